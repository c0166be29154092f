"""A region: an image, the cells in it, and how large its pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from spatialdata.transformations import BaseTransformation, Scale
from spatialdata.transformations import Sequence as Chain

from nimbus_sd.spatial.window import Unreadable, read_window, unreadable

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

        Raises
        ------
        OSError
            Pixels cannot be read, such as those of a damaged chunk.
        """
        wanted = [self._channel_index[channel] for channel in channels]
        ordered = sorted(set(wanted))
        try:
            window = read_window(self._image, self.image_repeat, self.shape, rows, cols, ordered)
        except Unreadable as error:
            damaged = [channel for channel in channels if self._fails(channel, rows, cols)] or channels
            names = ", ".join(repr(self.channels[channel]) for channel in damaged)
            what = f"Image {self.image_key!r}, channel(s) {names},"
            raise unreadable(what, self.shape, rows, cols, error) from error.__cause__
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
        OSError
            Pixels cannot be read, such as those of a damaged chunk.
        """
        try:
            window = read_window(self._labels, self.labels_repeat, self.shape, rows, cols)
        except Unreadable as error:
            raise unreadable(f"Labels {self.labels_key!r}", self.shape, rows, cols, error) from error.__cause__
        if window.size and (window.min() < 0 or window.max() > _INT64.max):
            raise ValueError(
                f"Labels {self.labels_key!r} hold ids from {window.min()} to {window.max()}; ids must lie "
                f"between 0 (no cell) and {_INT64.max}. Renumber them, e.g. with "
                "`spatialdata.relabel_sequential`."
            )
        return np.ascontiguousarray(window, np.int64)

    def _fails(self, channel: int, rows: slice, cols: slice) -> bool:
        """Tell whether a channel alone cannot be read."""
        try:
            read_window(self._image, self.image_repeat, self.shape, rows, cols, [self._channel_index[channel]])
        except Unreadable:
            return True
        return False


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
