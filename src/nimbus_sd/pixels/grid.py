"""Where image and model meet: one global grid of model pixels over a region."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

# Keeps floor() and ceil() of products such as 100 * 0.29 on the right side of rounding errors; far below any pixel.
_EPS = 1e-6


@dataclass(frozen=True)
class Grid:
    """The model's pixel grid over a region.

    Model pixel ``i`` covers the image pixels from ``i / scale`` to ``(i + 1) / scale``; an image pixel ``y`` belongs to
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
        if n == 1:
            return np.zeros(stop - start, np.int64)
        index = np.arange(start, stop) % (2 * n - 2)
        return np.where(index < n, index, 2 * n - 2 - index)

    def bilinear(self, index: NDArray[np.int64], axis: int) -> tuple[NDArray, NDArray, NDArray]:
        """Lower and upper image pixel and the upper one's weight, for the centres of model pixels."""
        n = self.shape[axis]
        position = np.clip((index + 0.5) / self.scale - 0.5, 0, n - 1)
        lower = np.floor(position + _EPS).astype(np.int64)
        weight = np.clip(position - lower, 0, 1).astype(np.float32)
        return lower, np.minimum(lower + 1, n - 1), weight

    def nearest(self, index: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        """Image pixel whose label a model pixel takes: ``floor(index / scale)``."""
        return np.minimum(np.floor(index / self.scale + _EPS).astype(np.int64), self.shape[axis] - 1)


def interior(labels: NDArray) -> NDArray[np.bool_]:
    """Pixels of cells that no other label touches (4-connected), the network's second input.

    Equals ``(labels > 0) & ~skimage.segmentation.find_boundaries(labels, mode="inner")``: the image's edge is no
    boundary.

    Parameters
    ----------
    labels
        Integer labels of shape (y, x), 0 for background.

    Returns
    -------
    Boolean array of the same shape.
    """
    inside = labels > 0
    for axis in (0, 1):
        ahead, behind = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        differs = ahead != behind
        view = np.moveaxis(inside, axis, 0)
        view[1:] &= ~differs
        view[:-1] &= ~differs
    return inside


def resize_image(
    image: NDArray[np.float32], grid: Grid, index: tuple[NDArray, NDArray], origin: tuple[int, int]
) -> NDArray[np.float32]:
    """Bilinear values at the centres of model pixels, without smoothing (the published model's rule).

    Parameters
    ----------
    image
        Window of the image, shape (c, y, x), that holds every pixel needed.
    grid
        The region's grid.
    index
        Model rows and model columns wanted.
    origin
        Image row and column of the window's first pixel.

    Returns
    -------
    Array of shape (c, rows, columns).
    """
    for axis in (0, 1):
        lower, upper, weight = grid.bilinear(index[axis], axis)
        shape = (1, -1, 1) if axis == 0 else (1, 1, -1)
        low = np.take(image, lower - origin[axis], axis=axis + 1)
        if weight.any():
            high = np.take(image, upper - origin[axis], axis=axis + 1)
            high -= low
            high *= weight.reshape(shape)
            low += high
        image = low
    return image


def resize_labels(mask: NDArray, grid: Grid, index: tuple[NDArray, NDArray], origin: tuple[int, int]) -> NDArray:
    """Nearest values of a mask of shape (y, x) at model pixels; parameters as for :func:`resize_image`."""
    rows, cols = (grid.nearest(index[axis], axis) - origin[axis] for axis in (0, 1))
    return mask[np.ix_(rows, cols)]
