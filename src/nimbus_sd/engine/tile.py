"""A tile: which pixels it needs, how they are read, and what is summed over its cells."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd.engine.checks import BadPixels
from nimbus_sd.pixels import BOUNDARY_UM, Footprint, Grid, Tile, normalize, resize_image, resize_interior, resize_labels
from nimbus_sd.spatial import Region

T = TypeVar("T")

#: Channels are read in groups of at most this many bytes (as float32).
GROUP_BYTES = 2**27


@dataclass(frozen=True, eq=False)
class TileSums:
    """Sums over the n cells in the core of a tile, in c channels.

    Attributes
    ----------
    ids, geometry
        As in :class:`~nimbus_sd.pixels.Footprint`.
    expression, scores
        Sums of the raw intensities and of the score maps, shape (n, c).
    visible
        Ids of cells that have an interior pixel as the network sees them.
    not_finite, negative
        Number of bad pixels in the core, shape (c,).
    digests
        uint8, SHA-256 of the labels and of each channel as read, shape (1 + c, 32); without a cell no channel is read:
        (1, 32); without ``identify``: (0, 32).
    """

    ids: NDArray
    geometry: NDArray[np.float64]
    expression: NDArray[np.float64]
    scores: NDArray[np.float64]
    visible: NDArray
    not_finite: NDArray[np.int64]
    negative: NDArray[np.int64]
    digests: NDArray[np.uint8]


class TileReader:
    """Reads a tile: :meth:`read_labels` first, then its channels, group by group; ``identify`` keeps their hashes.

    Attributes
    ----------
    rows, cols
        Image pixels to read: all that resizing the window, the interior and the core need.
    index
        Model rows and columns of the window, mirrored beyond the image.
    core
        The core's image pixels, counted from the corner of those read.
    interior
        (h, w) bool, the network's second input.
    cells
        (h, w) int64, ids as the network's pixels see them, 0 = no cell.
    footprint
        The core's cells.
    """

    interior: NDArray[np.bool_]
    cells: NDArray[np.int64]
    footprint: Footprint

    def __init__(self, region: Region, grid: Grid, tile: Tile, *, identify: bool = False) -> None:
        self.region, self.grid, self.tile, self.identify = region, grid, tile, identify
        self.digests: list[NDArray[np.uint8]] = []
        # In model pixels, however fine the image is.
        self._boundary = BOUNDARY_UM / region.pixel_size * grid.scale
        index, read, core = [], [], []
        for axis in (0, 1):
            window = grid.mirrored(tile.window[axis].start, tile.window[axis].stop, axis)
            lower, upper, _ = grid.bilinear(window, axis)
            # Beyond the window, too, so that cells touching across its edge have their boundary there.
            first, last = grid.nearest(np.array([window.min() - self._boundary, window.max() + self._boundary]), axis)
            inner = grid.image_range(tile.core[axis].start, tile.core[axis].stop, axis)
            start = int(min(lower.min(), first, inner.start))
            stop = int(max(upper.max() + 1, last + 1, inner.stop))
            index.append(window)
            read.append(slice(start, stop))
            core.append(slice(inner.start - start, inner.stop - start))
        self.index = index[0], index[1]
        self.rows, self.cols = read
        self.core = core[0], core[1]

    @classmethod
    def open(cls, region: Region, grid: Grid, tile: Tile, *, identify: bool = False) -> TileReader:
        """Return a reader that has read the labels."""
        reader = cls(region, grid, tile, identify=identify)
        reader.read_labels()
        return reader

    @property
    def n_pixels(self) -> int:
        """Number of pixels per channel, of the image or of what the model sees, whichever is more."""
        read = (self.rows.stop - self.rows.start) * (self.cols.stop - self.cols.start)
        return max(read, len(self.index[0]) * len(self.index[1]))

    @property
    def visible(self) -> NDArray:
        """Ids of the window's cells that have a pixel in the interior as the network sees it."""
        return pd.unique(self.cells[self.interior])

    def read_labels(self) -> None:
        """Read the labels, and derive the cells and the interior on the model's grid and the core's footprint."""
        labels = self.region.read_labels(self.rows, self.cols)
        if self.identify:
            self.digests.append(digest(labels))
        core = labels[self.core]
        origin = self.rows.start + self.core[0].start, self.cols.start + self.core[1].start
        model_rows, model_cols = (
            self.grid.model_index(slice(first, first + n), axis) - self.tile.core[axis].start
            for axis, (first, n) in enumerate(zip(origin, core.shape, strict=True))
        )
        width = self.tile.core[1].stop - self.tile.core[1].start
        self.footprint = Footprint.of(core, model_rows, model_cols, width, origin)
        seen = labels, self.grid, self.index, (self.rows.start, self.cols.start)
        self.interior, self.cells = resize_interior(*seen, self._boundary), resize_labels(*seen)

    def channels(
        self, group: Sequence[int], factors: NDArray[np.float64], bad: BadPixels
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Read the channels at some positions, with their factors, and count bad pixels.

        Returns the network's inputs (c, h, w), float32, normalised on the model's grid, and the sum of the raw
        intensities over each cell of the core, (n, c).
        """
        image = self.region.read_image(group, self.rows, self.cols)
        if self.identify:
            self.digests.extend(digest(channel) for channel in image)
        image = bad.clean(image, [self.region.channels[i] for i in group], self.core)
        expression = np.stack([self.footprint.sum_image(channel[self.core]) for channel in image], axis=1)
        scaled = normalize(image, factors)
        return resize_image(scaled, self.grid, self.index, (self.rows.start, self.cols.start)), expression

    def sum_maps(self, maps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum score maps (c, h, w) over the core's cells, (n, c)."""
        core = self.tile.core_in_window
        return np.stack([self.footprint.sum_map(scores[core]) for scores in maps], axis=1)

    def named_digests(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Read the labels and each channel again, and hash them; with what each hash is of."""
        yield f"labels {self.region.labels_key!r}", digest(self.region.read_labels(self.rows, self.cols))
        for group in channel_groups(len(self.region.channels), self.n_pixels):
            for i, channel in zip(group, self.region.read_image(group, self.rows, self.cols), strict=True):
                name = f"pixels in channel {self.region.channels[i]!r} of image {self.region.image_key!r}"
                yield name, digest(channel)

    def first_difference(self, digests: NDArray[np.uint8]) -> str | None:
        """Name the first pixels (labels or a channel) that are not those of which ``digests`` were made."""
        pairs = zip(digests, self.named_digests(), strict=False)
        return next((name for before, (name, now) in pairs if not np.array_equal(before, now)), None)


def channel_groups(n_channels: int, n_pixels: int) -> Iterator[range]:
    """Cut the channels of a window of ``n_pixels`` into groups that are read together."""
    size = max(1, GROUP_BYTES // (4 * n_pixels))
    for start in range(0, n_channels, size):
        yield range(start, min(start + size, n_channels))


def digest(pixels: NDArray) -> NDArray[np.uint8]:
    """SHA-256 of an array's bytes."""
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(pixels).data).digest(), np.uint8)


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, the next of which is made in a thread while the caller works on one."""
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, iterator, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]
