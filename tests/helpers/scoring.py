"""``predict`` as tests call it: without views, with given factors, at half the resolution; and its checkpoints."""

from pathlib import Path

import pandas as pd

import nimbus_sd as ns

FACTORS = {"DAPI": 120.0, "CD3": 100.0, "CD20": 90.0}


def predict(sdata, model, *keys, **settings):
    defaults = {"normalization": FACTORS, "tta": False, "progress": False, "pixel_size": 0.5}
    return ns.predict(sdata, *keys, model=model, **defaults | settings)


def assert_same_bytes(adata, other):
    for layer in ("nimbus", "integrated_expression"):
        assert adata.layers[layer].tobytes() == other.layers[layer].tobytes()
    assert adata.obsm["spatial"].tobytes() == other.obsm["spatial"].tobytes()
    pd.testing.assert_frame_equal(adata.obs, other.obs, check_exact=True)
    assert str(adata.uns) == str(other.uns)


def tiles(folder: Path) -> dict[Path, int]:
    """The tiles of a checkpoint, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("tile-*.npz"))}
