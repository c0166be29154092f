"""One grid of model pixels over a whole region, and tiles that together give what one pass over it would give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

# Keeps floor() and ceil() of products such as 100 * 0.29 on the right side of rounding errors; far below any pixel.
_EPS = 1e-6
#: Width in um of the inner boundary that cells lose: a pixel of the images that the published model was trained on.
BOUNDARY_UM = 0.5


@dataclass(frozen=True)
class Grid:
    """The model's pixel grid over a region.

    Model pixel ``i`` covers the image pixels from ``i / scale`` to ``(i + 1) / scale``; image pixel ``y`` belongs to
    model pixel ``floor(y * scale)``. The grid starts at the image's corner, so tiles of any size see the same pixels.

    Parameters
    ----------
    shape
        Image height and width in pixels.
    scale
        Pixel size of the image over the pixel size of the model (0.5: the model's pixels are twice as wide).
    stride
        Pooling stride of the network: the padded grid's sides are multiples of it.
    """

    shape: tuple[int, int]
    scale: float
    stride: int

    @property
    def model_shape(self) -> tuple[int, int]:
        """Model pixels that cover the image."""
        height, width = (max(1, ceil(n * self.scale - _EPS)) for n in self.shape)
        return height, width

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Model shape, filled up to a multiple of the stride and to twice the stride at least.

        The network pads by reflection, for which its coarsest level needs two pixels.
        """
        height, width = (max(2, ceil(n / self.stride)) * self.stride for n in self.model_shape)
        return height, width

    def image_range(self, start: int, stop: int, axis: int) -> slice:
        """Image pixels that belong to the model pixels ``start`` to ``stop`` of an axis."""
        first, last = (ceil((i - _EPS) / self.scale) for i in (start, stop))
        n = self.shape[axis]
        # The last model pixel takes what rounding leaves over.
        return slice(min(first, n), n if stop >= self.model_shape[axis] else min(last, n))

    def model_index(self, pixels: slice, axis: int) -> NDArray[np.int64]:
        """Model pixel of each image pixel of a range."""
        index = np.floor(np.arange(pixels.start, pixels.stop) * self.scale + _EPS).astype(np.int64)
        return np.minimum(index, self.model_shape[axis] - 1)

    def mirrored(self, start: int, stop: int, axis: int) -> NDArray[np.int64]:
        """Model pixels of the padded range ``start`` to ``stop``: beyond the far edge the image is mirrored."""
        n = self.model_shape[axis]
        # All are pixel 0 where there is one only.
        index = np.arange(start, stop) % max(1, 2 * n - 2)
        return np.where(index < n, index, 2 * n - 2 - index)

    def bilinear(self, index: NDArray[np.int64], axis: int) -> tuple[NDArray, NDArray, NDArray]:
        """Lower and upper image pixel and the upper one's weight, for the centres of model pixels."""
        n = self.shape[axis]
        position = np.clip((index + 0.5) / self.scale - 0.5, 0, n - 1)
        lower = np.floor(position + _EPS).astype(np.int64)
        weight = np.clip(position - lower, 0, 1).astype(np.float32)
        return lower, np.minimum(lower + 1, n - 1), weight

    def nearest(self, index: NDArray, axis: int) -> NDArray[np.int64]:
        """Image pixel whose label a model pixel, or a place between two, takes: ``floor(index / scale)``."""
        return np.clip(np.floor(index / self.scale + _EPS).astype(np.int64), 0, self.shape[axis] - 1)


def interior(labels: NDArray) -> NDArray[np.bool_]:
    """Pixels of cells that no other label touches (4-connected).

    Equals ``(labels > 0) & ~skimage.segmentation.find_boundaries(labels, mode="inner")``; the image's edge is no
    boundary. ``labels`` are integers (y, x), 0 for background.
    """
    inside = labels > 0
    for ahead, behind in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        same = labels[ahead] == labels[behind]
        inside[ahead] &= same
        inside[behind] &= same
    return inside


def resize_image(
    image: NDArray[np.float32], grid: Grid, index: tuple[NDArray, NDArray], origin: tuple[int, int]
) -> NDArray[np.float32]:
    """Bilinear values at the centres of model pixels, without smoothing (the published model's rule).

    ``image`` is a window (c, y, x) that holds every pixel needed, ``origin`` the image row and column of its first
    pixel, ``index`` the model rows and columns wanted. Returns (c, rows, columns).
    """
    for axis in (0, 1):
        lower, upper, weight = grid.bilinear(index[axis], axis)
        low = np.take(image, lower - origin[axis], axis=axis + 1)
        if weight.any():
            high = np.take(image, upper - origin[axis], axis=axis + 1)
            high -= low
            high *= weight[:, None] if axis == 0 else weight
            low += high
        image = low
    return image


def resize_labels(labels: NDArray, grid: Grid, index: tuple[NDArray, NDArray], origin: tuple[int, int]) -> NDArray:
    """Nearest labels (y, x) at model pixels, or places between them; parameters as for :func:`resize_image`."""
    rows, cols = (grid.nearest(index[axis], axis) - origin[axis] for axis in (0, 1))
    return labels[np.ix_(rows, cols)]


def resize_interior(
    labels: NDArray, grid: Grid, index: tuple[NDArray, NDArray], origin: tuple[int, int], boundary: float
) -> NDArray[np.bool_]:
    """Model pixels of cells without their inner boundary, the network's second input.

    The labels ``boundary`` model pixels above, below, left and right are the same: so the finer pixels of an image
    change nothing. The image's edge is no boundary. Parameters as for :func:`resize_image`.
    """
    cells = resize_labels(labels, grid, index, origin)
    inside = cells > 0
    for step in (-boundary, boundary):
        inside &= resize_labels(labels, grid, (index[0] + step, index[1]), origin) == cells
        inside &= resize_labels(labels, grid, (index[0], index[1] + step), origin) == cells
    return inside


@dataclass(frozen=True)
class Tile:
    """A window on a region's padded model grid: what the network sees, and the core whose result counts.

    The ``core`` are the model rows and columns that belong to this tile alone. The ``window`` is core and halo, cut at
    the padded grid's edge; its sides are multiples of the stride.
    """

    core: tuple[slice, slice]
    window: tuple[slice, slice]

    @property
    def core_in_window(self) -> tuple[slice, slice]:
        """The core, counted from the window's corner."""
        rows, cols = (slice(c.start - w.start, c.stop - w.start) for c, w in zip(self.core, self.window, strict=True))
        return rows, cols


def tiles(grid: Grid, tile_size: int, halo: int) -> Iterator[Tile]:
    """Cut a region into tiles, row by row; cores cover the model shape once and are cut where the image ends.

    Cores start at multiples of the pooling stride, the halo covers the network's reach, and nothing is added beyond
    the padded grid's edge, where the network's own padding acts as it does on the whole image. So the cores' results
    equal those of one pass over everything. ``tile_size`` is the core's side in model pixels, rounded up to a multiple
    of the stride; ``halo`` the model pixels seen around it, also a multiple.
    """
    axes = []
    for size, padded in zip(grid.model_shape, grid.padded_shape, strict=True):
        side = max(1, ceil(tile_size / grid.stride)) * grid.stride
        # Equal cores waste less than full ones and a remainder.
        side = ceil(ceil(size / ceil(size / side)) / grid.stride) * grid.stride
        spans = [(a, a + side) for a in range(0, size, side)]
        axes.append([(slice(a, min(b, size)), slice(max(0, a - halo), min(b + halo, padded))) for a, b in spans])
    for rows, cols in product(*axes):
        yield Tile(*zip(rows, cols, strict=True))


def overlapping_tiles(shape: tuple[int, int], size: int, overlap: int) -> Iterator[Tile]:
    """Cut a region into windows of one size for training, row by row; nothing is exact at their edges.

    They are spread evenly, so that neighbours share ``overlap`` model pixels or more. Where the region is smaller than
    a window, the window goes on beyond its far edge, as the padded grid does. A tile's core is what the next window
    does not begin with, so that each pixel is in one core. ``shape``, ``size`` (a window's side) and ``overlap``, less
    than ``size``, are in model pixels.
    """
    axes = []
    for length in shape:
        number = max(1, ceil((length - overlap) / (size - overlap)))
        spare = max(0, length - size)
        starts = [round(spare * i / max(1, number - 1)) for i in range(number)]
        stops = [*starts[1:], starts[-1] + size]
        axes.append([(slice(a, b), slice(a, a + size)) for a, b in zip(starts, stops, strict=True)])
    for rows, cols in product(*axes):
        yield Tile(*zip(rows, cols, strict=True))
