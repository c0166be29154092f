"""SpatialData of a few pixels."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import BaseTransformation, Identity, Scale


def square(size: float) -> Scale:
    return Scale([size, size], axes=("y", "x"))


def pixels(n_channels: int = 2, height: int = 6, width: int = 8, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 1000, (n_channels, height, width), dtype=np.uint16)


def cells(height: int = 6, width: int = 8) -> NDArray[np.int32]:
    """Cells 3 (4 pixels), 5 (6 pixels) and 9 (1 pixel)."""
    labels = np.zeros((height, width), np.int32)
    labels[0:2, 0:2], labels[3:5, 2:5], labels[-1, -1] = 3, 5, 9
    return labels


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
        array, transformations = parts(element)
        names = channels[key] if isinstance(channels, Mapping) else list(channels)[: len(array)]
        sdata.images[key] = Image2DModel.parse(array, c_coords=list(names), transformations=transformations)
    for key, element in (labels or {}).items():
        array, transformations = parts(element)
        sdata.labels[key] = Labels2DModel.parse(array, transformations=transformations)
    return sdata


@pytest.fixture(name="build")
def _build() -> Callable[..., SpatialData]:
    return build


@pytest.fixture(name="square")
def _square() -> Callable[[float], Scale]:
    return square


@pytest.fixture(name="pixels")
def _pixels() -> Callable[..., NDArray[np.uint16]]:
    return pixels


@pytest.fixture(name="cells")
def _cells() -> Callable[..., NDArray[np.int32]]:
    return cells
