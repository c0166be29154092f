"""A region: an image, the cells in it, and how large its pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from spatialdata.transformations import BaseTransformation, Scale
from spatialdata.transformations import Sequence as Chain

_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, eq=False)
class Region:
    """One image and one labels element on a common pixel grid, the finer of the two.

    Attributes
    ----------
    image_key, labels_key
        Names of the elements.
    channels
        The channels asked for; channel ``i`` of `read_image` is ``channels[i]``.
    shape
        Height and width of the common grid in pixels.
    pixel_size
        um per pixel of the common grid.
    image_repeat, labels_repeat
        Pixels of the common grid that a pixel of the element covers, in each direction. At least one of them
        is 1.
    image_transformations
        The image's transformations, from its own pixels into each coordinate system.
    """

    image_key: str
    labels_key: str
    channels: list[str]
    shape: tuple[int, int]
    pixel_size: float
    image_repeat: int
    labels_repeat: int
    image_transformations: dict[str, BaseTransformation] = field(repr=False)
    _image: da.Array = field(repr=False)
    _labels: da.Array = field(repr=False)
    _channel_index: tuple[int, ...] = field(repr=False)

    @property
    def dtype(self) -> np.dtype:
        """Type of the image's numbers as `read_image` gives them."""
        return np.dtype(np.uint8) if self._image.dtype.kind == "b" else self._image.dtype.newbyteorder("=")

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image in its own pixels."""
        height, width = self._image.shape[1:]
        return height, width

    @property
    def transformations(self) -> dict[str, BaseTransformation]:
        """Transformations from pixels of the common grid into each coordinate system of the image."""
        if self.image_repeat == 1:
            return dict(self.image_transformations)
        to_image = Scale([1 / self.image_repeat] * 2, axes=("y", "x"))
        return {system: Chain([to_image, own]) for system, own in self.image_transformations.items()}

    def read_image(self, channels: Sequence[int], rows: slice, cols: slice) -> NDArray:
        """Read a window of some channels, and no more of the element than that takes.

        Parameters
        ----------
        channels
            Positions in `channels`, in any order.
        rows, cols
            Window on the common grid, in pixels.

        Returns
        -------
        numpy.ndarray
            Shape (C, h, w), C-contiguous, in the image's own dtype and the machine's byte order (bool as
            uint8).
        """
        wanted = [self._channel_index[channel] for channel in channels]
        ordered = sorted(set(wanted))
        window = _read(self._image, self.image_repeat, self.shape, rows, cols, ordered)
        window = window if wanted == ordered else window[[ordered.index(index) for index in wanted]]
        return np.ascontiguousarray(window, self.dtype)

    def read_labels(self, rows: slice, cols: slice) -> NDArray[np.int64]:
        """Read a window of the labels.

        Parameters
        ----------
        rows, cols
            Window on the common grid, in pixels.

        Returns
        -------
        numpy.ndarray
            Ids, shape (h, w), 0 = no cell.

        Raises
        ------
        ValueError
            An id is negative or does not fit into 64 bit with sign, which is what a table can hold.
        """
        window = _read(self._labels, self.labels_repeat, self.shape, rows, cols)
        if window.size and (window.min() < 0 or window.max() > _INT64.max):
            raise ValueError(
                f"Labels {self.labels_key!r} hold ids from {window.min()} to {window.max()}; ids must lie "
                f"between 0 (no cell) and {_INT64.max}. Renumber them, e.g. with "
                "`spatialdata.relabel_sequential`."
            )
        return np.ascontiguousarray(window, np.int64)


@dataclass(frozen=True, eq=False)
class RegionResult:
    """What was measured of the n cells of a region, in C channels.

    Attributes
    ----------
    region
        The region.
    ids
        Labels of the cells, shape (n,), each once.
    scores
        Confidence that the cell expresses the marker, shape (n, C), float32 in [0, 1].
    expression
        Mean raw intensity, shape (n, C), float32.
    area_px
        Pixels of the region's common grid in each cell, shape (n,).
    centroid
        Mean y and x on the common grid, shape (n, 2); the centre of the first pixel is (0.5, 0.5).
    too_small
        Number of cells that have no interior pixel at the model's pixel size.
    """

    region: Region
    ids: NDArray[np.integer]
    scores: NDArray[np.float32]
    expression: NDArray[np.float32]
    area_px: NDArray[np.integer]
    centroid: NDArray[np.float64]
    too_small: int = 0


def _read(
    pixels: da.Array,
    repeat: int,
    shape: tuple[int, int],
    rows: slice,
    cols: slice,
    channels: list[int] | None = None,
) -> NDArray:
    """Read a window of the common grid from an element whose pixels cover ``repeat`` x ``repeat`` of it.

    Where the element ends up to one of its pixels early, its edge is repeated in images (c, y, x), and no
    cell is put in labels (y, x).
    """
    windows, inside, outside = [], [], []
    for extent, size, axis in zip(shape, pixels.shape[-2:], (rows, cols), strict=True):
        start, stop, step = axis.indices(extent)
        if step != 1:
            raise ValueError(f"Windows are read without steps, but {axis} was asked for.")
        index = np.arange(start, stop) // repeat
        outside.append(index >= size)
        index = np.minimum(index, size - 1)
        first, last = (index[0], index[-1] + 1) if index.size else (0, 0)
        windows.append(slice(int(first), int(last)))
        inside.append(index - first)
    view = pixels[(..., *windows)]
    if channels is not None and channels != list(range(len(view))):
        view = view[channels]
    # Threads of dask's own would fight with the caller's, and deadlock within a distributed worker.
    window = np.asarray(view.compute(scheduler="synchronous"))
    if repeat > 1:
        window = window[..., inside[0][:, None], inside[1]]
        if window.ndim == 2:
            window[outside[0][:, None] | outside[1]] = 0
    return window
