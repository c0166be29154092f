"""Check models on real tissue without labels: markers that belong together or exclude each other, and stability.

``python benchmarks/label_free.py FOLDER --model compact OTHER.safetensors``: a table with a column for each model and
one for integrated expression with Otsu's threshold on its arcsinh. FOLDER holds ``image.ome.tif`` and
``labels.tif`` of a lymphoid tissue; it is not part of this repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.segmentation import expand_labels, find_boundaries

TOGETHER = [("CD19", "CD20"), ("CD20", "CD79a"), ("CD20", "PAX5"), ("CD19", "PAX5"), ("CD3", "CD7")]
APART = [("CD3", "CD20"), ("CD3", "PAX5"), ("Kappa", "Lambda"), ("CD4", "CD8")]
CHANNELS = sorted({name for pair in TOGETHER + APART for name in pair})
PIXEL_SIZE = 0.5

Calls = Callable[..., pd.DataFrame]


def shifted(labels: np.ndarray, pixels: int) -> np.ndarray:
    """Move a mask down and right."""
    return ndimage.shift(labels, pixels, order=0)


def eroded(labels: np.ndarray, pixels: int) -> np.ndarray:
    """Take pixels off each cell's outline."""
    for _ in range(pixels):
        labels = np.where(find_boundaries(labels, mode="inner", connectivity=1), 0, labels)
    return labels


CHANGES: dict[str, dict] = {
    "mask grown by 1 px": {"mask": partial(expand_labels, distance=1)},
    "mask grown by 2 px": {"mask": partial(expand_labels, distance=2)},
    "mask eroded by 1 px": {"mask": partial(eroded, pixels=1)},
    "mask eroded by 2 px": {"mask": partial(eroded, pixels=2)},
    "mask shifted by 1 px": {"mask": partial(shifted, pixels=1)},
    "mask shifted by 2 px": {"mask": partial(shifted, pixels=2)},
    "pixel size 20 % too small": {"pixel_size": 0.8 * PIXEL_SIZE},
    "pixel size 20 % too large": {"pixel_size": 1.2 * PIXEL_SIZE},
    "factor half": {"factor": 0.5},
    "factor double": {"factor": 2.0},
}


def calls(model: str, image: np.ndarray, labels: np.ndarray, *, mask=None, pixel_size=PIXEL_SIZE, factor=1.0):
    """Positive calls, cells x channels, under one change; ``model`` ``"arcsinh, otsu"`` thresholds the mean."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    import nimbus_sd as ns
    from nimbus_sd.metrics import find_threshold

    labels = labels if mask is None else mask(labels)
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=CHANNELS)},
        labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"))},
    )
    baseline = model == "arcsinh, otsu"
    settings = {"model": "compact" if baseline else model, "pixel_size": pixel_size, "progress": False}
    adata = ns.predict(sdata, **settings)
    if factor != 1:
        measured = adata.varm["nimbus_normalization"]["factor"] * factor
        adata = ns.predict(sdata, **settings, normalization=measured)
    if not baseline:
        called = adata.layers["nimbus"] >= 0.5
    else:
        mean = adata.layers["integrated_expression"]
        arcsinh = np.arcsinh(mean / np.median(np.where(mean > 0, mean, np.nan), axis=0, keepdims=True))
        arcsinh = np.nan_to_num(arcsinh)
        called = np.stack([column >= find_threshold(column, "otsu") for column in arcsinh.T], axis=1)
    return pd.DataFrame(called, index=adata.obs["instance_id"].to_numpy(), columns=CHANNELS)


def checks(model: str, image: np.ndarray, labels: np.ndarray) -> pd.Series:
    """Measure all checks of one model."""
    base = calls(model, image, labels)
    result = {}
    for a, b in TOGETHER:
        result["together", f"{a}, {b}: phi"] = np.corrcoef(base[a], base[b])[0, 1]
    for a, b in APART:
        rarer = min(base[a].sum(), base[b].sum())
        result["apart", f"{a}, {b}: cells of the rarer"] = rarer
        result["apart", f"{a}, {b}: both, of the rarer"] = (base[a] & base[b]).sum() / max(1, rarer)
        result["apart", f"{a}, {b}: both, of all cells"] = (base[a] & base[b]).mean()
    for name, change in CHANGES.items():
        other = calls(model, image, labels, **change)
        both = base.index.intersection(other.index)
        # Of the cells that either calls positive: rare markers would otherwise look stable whatever happens.
        same, either = base.loc[both] & other.loc[both], base.loc[both] | other.loc[both]
        result["calls changed, of positives", name] = 1 - same.to_numpy().sum() / max(1, either.to_numpy().sum())
    return pd.Series(result)


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Channels (c, y, x) and labels (y, x) of a tissue."""
    from nimbus_sd.io import read_fovs

    sdata = read_fovs(folder / "image.ome.tif", folder / "labels.tif", pixel_size=PIXEL_SIZE)
    return next(iter(sdata.images.values())).sel(c=CHANNELS).to_numpy(), next(iter(sdata.labels.values())).to_numpy()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["compact"])
    options = parser.parse_args()
    image, labels = read(options.folder)
    models = [*options.model, "arcsinh, otsu"]
    print(pd.DataFrame({model: checks(model, image, labels) for model in models}).round(3).to_string())


if __name__ == "__main__":
    main()
