"""From labelled regions to a model: a store of tiles, noise-robust training, fine-tuning. Needs the extra ``train``.

What needs the extra is imported when it is first asked for; the store and the recipes do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nimbus_sd.train.build import Split, build_store
from nimbus_sd.train.recipe import Augmentation, Recipe, Selection
from nimbus_sd.train.store import Store

if TYPE_CHECKING:
    from nimbus_sd.train.run import left_out, show_left_out
    from nimbus_sd.train.training import fine_tune, train

_LAZY = {"fine_tune": "training", "left_out": "run", "show_left_out": "run", "train": "training"}

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
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("lightning", "kornia", "tensorboard"):
            raise
        hint = "pip install '.[train]' in the clone of nimbus-sd"
        raise ImportError(f"{__name__}.{name} needs {error.name}, which is not installed: {hint}.") from error


def __dir__() -> list[str]:
    return __all__
