"""Reading a tile: labels and interior once, then the channels group by group."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd.engine.bad_pixels import BadPixels
from nimbus_sd.pixels import Footprint, Grid, Tile, interior, normalize, resize_image, resize_labels
from nimbus_sd.spatial import Region

T = TypeVar("T")

#: Channels are read in groups of at most so many bytes (as float32).
GROUP_BYTES = 2**27


@dataclass(frozen=True)
class Windows:
    """What of a region's grids a tile needs.

    Parameters
    ----------
    index
        Model rows and columns of the window, mirrored beyond the image.
    rows, cols
        Image pixels to read: all that the window's resizing, the interior and the core need.
    core
        The core's image pixels, counted from the corner of those read.
    """

    index: tuple[NDArray[np.int64], NDArray[np.int64]]
    rows: slice
    cols: slice
    core: tuple[slice, slice]

    @classmethod
    def of(cls, grid: Grid, tile: Tile) -> Windows:
        """Find them."""
        index, read, core = [], [], []
        for axis in (0, 1):
            window = grid.mirrored(tile.window[axis].start, tile.window[axis].stop, axis)
            lower, upper, _ = grid.bilinear(window, axis)
            nearest = grid.nearest(window, axis)
            own = grid.image_range(tile.core[axis].start, tile.core[axis].stop, axis)
            # One pixel more, so that cells touching across the window's edge have their boundary there.
            start = max(0, min(lower.min(), nearest.min() - 1, own.start))
            stop = min(grid.shape[axis], max(upper.max() + 1, nearest.max() + 2, own.stop))
            index.append(window)
            read.append(slice(int(start), int(stop)))
            core.append(slice(own.start - int(start), own.stop - int(start)))
        return cls((index[0], index[1]), read[0], read[1], (core[0], core[1]))

    @property
    def pixels(self) -> int:
        """Number of pixels per channel, of the image or of what the model sees, whichever is more."""
        read = (self.rows.stop - self.rows.start) * (self.cols.stop - self.cols.start)
        return max(read, len(self.index[0]) * len(self.index[1]))


@dataclass(frozen=True)
class TileReader:
    """A tile, and what all its channels share.

    Parameters
    ----------
    region, grid, tile
        What is read.
    windows
        Where it lies.
    interior
        (h, w) bool, the network's second input.
    footprint
        The core's cells.
    cells
        (h, w) int64, ids as the network's pixels see them, 0 = no cell.
    digests
        Of the labels and of each channel read so far, if the tile is to be identified.
    """

    region: Region
    grid: Grid
    tile: Tile
    windows: Windows
    interior: NDArray[np.bool_]
    footprint: Footprint
    cells: NDArray[np.int64]
    digests: list[NDArray[np.uint8]] | None = None

    @classmethod
    def open(cls, region: Region, grid: Grid, tile: Tile, *, identify: bool = False) -> TileReader:
        """Read the labels of a tile."""
        windows = Windows.of(grid, tile)
        rows, cols, core = windows.rows, windows.cols, windows.core
        labels = region.read_labels(rows, cols)
        in_core = labels[core[0], core[1]]
        origin = (rows.start + core[0].start, cols.start + core[1].start)
        model_rows, model_cols = (
            grid.model_index(slice(origin[axis], origin[axis] + in_core.shape[axis]), axis) - tile.core[axis].start
            for axis in (0, 1)
        )
        width = tile.core[1].stop - tile.core[1].start
        inside, at_model = (
            resize_labels(pixels, grid, windows.index, (rows.start, cols.start))
            for pixels in (interior(labels), labels)
        )
        return cls(
            region,
            grid,
            tile,
            windows,
            inside,
            Footprint.of(in_core, model_rows, model_cols, width, origin),
            at_model,
            [digest(labels)] if identify else None,
        )

    @property
    def visible(self) -> NDArray:
        """Ids of the window's cells that have a pixel in the interior as the network sees it."""
        return pd.unique(self.cells[self.interior])

    @property
    def has_cells(self) -> bool:
        """Whether a cell lies in the core."""
        return len(self.footprint.ids) > 0

    def channels(
        self, group: Sequence[int], factors: NDArray[np.float64], bad: BadPixels
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Read some channels.

        Parameters
        ----------
        group
            Positions of the channels in the region.
        factors
            Their normalisation factors.
        bad
            Where bad pixels are counted.

        Returns
        -------
        inputs
            (c, h, w) float32, normalised and brought to the model's grid.
        expression
            (n, c) float64: sum of the raw intensities over each cell of the core.
        """
        rows, cols, core = self.windows.rows, self.windows.cols, self.windows.core
        image = self.region.read_image(group, rows, cols)
        if self.digests is not None:
            self.digests.extend(digest(channel) for channel in image)
        image = bad.clean(image, [self.region.channels[i] for i in group], core)
        expression = np.stack([self.footprint.sum_image(channel[core]) for channel in image], axis=1)
        scaled = normalize(image, factors)
        return resize_image(scaled, self.grid, self.windows.index, (rows.start, cols.start)), expression


def groups(n_channels: int, pixels: int) -> Iterator[range]:
    """Cut the channels of a window of so many pixels into groups that are read together."""
    size = max(1, GROUP_BYTES // (4 * pixels))
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
