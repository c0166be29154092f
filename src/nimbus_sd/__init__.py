"""Which marker is this cell positive for? Nimbus scores for multiplexed tissue images in SpatialData."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nimbus_sd import datasets, io, labels, metrics, models, pl, simulate, tl, train
    from nimbus_sd._predict import predict
    from nimbus_sd._review import review

_ROOMS = ("datasets", "io", "labels", "metrics", "models", "pl", "simulate", "tl", "train")

__all__ = ["datasets", "io", "labels", "metrics", "models", "pl", "predict", "review", "simulate", "tl", "train"]


def __getattr__(name: str) -> Any:
    """Import a room, or a function, when it is first asked for: importing the package alone takes no time."""
    if name in ("predict", "review"):
        return getattr(import_module(f"nimbus_sd._{name}"), name)
    if name in _ROOMS:
        return import_module(f"nimbus_sd.{name}")
    if name == "__version__":
        return import_module("importlib.metadata").version("nimbus-sd")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
