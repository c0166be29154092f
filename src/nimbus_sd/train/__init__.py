"""From labelled regions to a model: a store of tiles, noise-robust training, fine-tuning. Needs the extra ``train``.

A name is imported when it is first asked for; the store alone needs nothing of the extra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nimbus_sd.train.build import Split, build_store
    from nimbus_sd.train.left_out_cells import left_out, show_left_out
    from nimbus_sd.train.recipe import Augmentation, Recipe, Selection
    from nimbus_sd.train.store import Store
    from nimbus_sd.train.training import fine_tune, train

_NAMES = {
    "build": ("Split", "build_store"),
    "left_out_cells": ("left_out", "show_left_out"),
    "recipe": ("Augmentation", "Recipe", "Selection"),
    "store": ("Store",),
    "training": ("fine_tune", "train"),
}

__all__ = [
    "Augmentation",
    "Recipe",
    "Selection",
    "Split",
    "Store",
    "build_store",
    "fine_tune",
    "left_out",
    "show_left_out",
    "train",
]


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _NAMES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("lightning", "kornia", "tensorboard"):
            raise
        raise ImportError(
            f"nimbus_sd.train.{name} needs {error.name}, which is not installed: "
            "pip install '.[train]' in the clone of nimbus-sd."
        ) from error


def __dir__() -> list[str]:
    return __all__
