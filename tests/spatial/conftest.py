"""SpatialData of a few pixels."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import BaseTransformation, Identity, Scale

from nimbus_sd.spatial import Region, find_regions

Element = NDArray | tuple[NDArray, Mapping[str, BaseTransformation]]


def build(
    images: Mapping[str, Element] | None = None,
    labels: Mapping[str, Element] | None = None,
    *,
    channels: Mapping[str, Sequence[str]] | Sequence[str] = ("CD3", "CD8"),
) -> SpatialData:
    """Make a SpatialData from arrays, or from arrays and transformations; without these all share ``global``."""

    def parts(element: Element) -> tuple[NDArray, dict[str, BaseTransformation]]:
        array, transformations = element if isinstance(element, tuple) else (element, {"global": Identity()})
        return array, dict(transformations)

    sdata = SpatialData()
    for key, element in (images or {}).items():
        array, places = parts(element)
        names = channels[key] if isinstance(channels, Mapping) else list(channels)[: len(array)]
        c_coords = list(names) if names else None
        sdata.images[key] = Image2DModel.parse(array, dims="cyx", c_coords=c_coords, transformations=places)
    for key, element in (labels or {}).items():
        array, places = parts(element)
        sdata.labels[key] = Labels2DModel.parse(array, dims="yx", transformations=places)
    return sdata


def region_of(image: NDArray, labels: NDArray, scale: float = 1.0) -> Region:
    """Region of one image without channel names, on which labels lie at a scale."""
    sdata = build({"image": image}, {"cells": (labels, {"global": square(scale)})}, channels=())
    (region,) = find_regions(sdata, pixel_size=0.5)
    return region


def square(size: float) -> BaseTransformation:
    return Scale([size, size], axes=("y", "x")) if size != 1 else Identity()


def pixels(n_channels: int = 2, height: int = 6, width: int = 8, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 1000, (n_channels, height, width), dtype=np.uint16)


def cells(height: int = 6, width: int = 8) -> NDArray[np.int32]:
    """Cells 3 (4 pixels), 5 (6 pixels) and 9 (1 pixel)."""
    labels = np.zeros((height, width), np.int32)
    labels[0:2, 0:2], labels[3:5, 2:5], labels[-1, -1] = 3, 5, 9
    return labels


def _given(function: Callable) -> Callable:
    """Make a fixture that gives tests this function."""
    return pytest.fixture(name=function.__name__, scope="session")(lambda: function)


build_, region_of_, square_, pixels_, cells_ = map(_given, (build, region_of, square, pixels, cells))
