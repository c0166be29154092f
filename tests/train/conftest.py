"""Labelled regions, and a store of them that is cheap to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_training import CARD, with_silver
from spatialdata import SpatialData

from nimbus_sd.train import Store, build_store


@pytest.fixture
def labelled(tissue: Callable[..., Any], make_sdata: Callable[..., SpatialData]) -> SpatialData:
    """Four small regions of two channels and silver labels."""
    drawn = {f"r{i}": tissue((64, 64), 2, seed=i) for i in range(4)}
    return with_silver(
        make_sdata({k: image for k, (image, _) in drawn.items()}, {f"{k}_cells": m for k, (_, m) in drawn.items()})
    )


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Store]:
    """Build a store of small tiles."""

    def make(sdata: SpatialData, name: str = "tiles", **settings: Any) -> Store:
        own = {"data_set": "d", "model": CARD, "tile_size": 16, "overlap": 4, "pixel_size": 0.5, "progress": False}
        return build_store(tmp_path / name, sdata, **own | settings)

    return make
