"""Labelled regions, and a store of them that is cheap to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_training import CARD, GIVEN, with_silver
from spatialdata import SpatialData

from nimbus_sd.train import Store, build_store

SMALL = {"data_set": "d", "model": CARD, "tile_size": (16, 4), "split": GIVEN, "pixel_size": 0.5, "progress": False}


def _labelled(tissue: Callable[..., Any], make_sdata: Callable[..., SpatialData]) -> SpatialData:
    drawn = {f"r{i}": tissue((64, 64), 2, seed=i) for i in range(4)}
    masks = {f"{key}_cells": mask for key, (_, mask) in drawn.items()}
    return with_silver(make_sdata({key: image for key, (image, _) in drawn.items()}, masks))


@pytest.fixture
def labelled(tissue: Callable[..., Any], make_sdata: Callable[..., SpatialData]) -> SpatialData:
    return _labelled(tissue, make_sdata)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Store]:
    return lambda sdata, name="tiles", **settings: build_store(tmp_path / name, sdata, **SMALL | settings)


@pytest.fixture(scope="session")
def store(tissue: Callable[..., Any], make_sdata: Callable[..., SpatialData], tmp_path_factory: Any) -> Store:
    """A store of these regions, which no test changes."""
    return build_store(tmp_path_factory.mktemp("store") / "tiles", _labelled(tissue, make_sdata), **SMALL)
