"""Reading a tile: labels and interior once, then the channels group by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd.pixels import Footprint, Grid, Tile, interior, normalize, resize_image, resize_labels
from nimbus_sd.spatial import Region

T = TypeVar("T")

#: Channels are read in groups of at most so many bytes (as float32).
GROUP_BYTES = 2**27


@dataclass
class BadPixels:
    """Pixels, per channel, that are not what an image should hold; the caller warns once about all of them."""

    not_finite: Counter[str] = field(default_factory=Counter)
    negative: Counter[str] = field(default_factory=Counter)

    def clean(
        self, image: NDArray, names: Sequence[str], core: tuple[slice, slice] = (slice(None), slice(None))
    ) -> NDArray:
        """Replace NaN and infinity by 0, in a copy, and count them, and negative values, within the core."""
        if image.dtype.kind in "ub":
            return image
        if image.dtype.kind == "f":
            # What float32 cannot hold would be infinite further on.
            finite = np.abs(image) <= np.finfo(np.float32).max
            if not finite.all():
                image = np.where(finite, image, image.dtype.type(0))
                self.not_finite.update(_counts(~finite, names, core))
        self.negative.update(_counts(image < 0, names, core))
        return image


def _counts(flags: NDArray[np.bool_], names: Sequence[str], core: tuple[slice, slice]) -> dict[str, int]:
    return {name: int(np.count_nonzero(channel[core])) for name, channel in zip(names, flags, strict=True)}


@dataclass(frozen=True)
class TileReader:
    """A tile's windows on image and model grid, and what all channels share.

    Parameters
    ----------
    region, grid, tile
        What is read.
    index
        Model rows and columns of the window, mirrored beyond the image.
    rows, cols
        Image pixels to read: all that the window's resizing, the interior and the core need.
    core
        The core's image pixels, counted from the corner of those read.
    interior
        (h, w) bool, the network's second input.
    footprint
        The core's cells.
    visible
        Ids of the window's cells that have a pixel in the interior as the network sees it.
    """

    region: Region
    grid: Grid
    tile: Tile
    index: tuple[NDArray[np.int64], NDArray[np.int64]]
    rows: slice
    cols: slice
    core: tuple[slice, slice]
    interior: NDArray[np.bool_]
    footprint: Footprint
    visible: NDArray

    @classmethod
    def open(cls, region: Region, grid: Grid, tile: Tile) -> TileReader:
        """Read the labels of a tile."""
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
        rows, cols = read
        labels = region.read_labels(rows, cols)
        in_core = labels[core[0], core[1]]
        origin = (rows.start + core[0].start, cols.start + core[1].start)
        model_rows, model_cols = (
            grid.model_index(slice(origin[axis], origin[axis] + in_core.shape[axis]), axis) - tile.core[axis].start
            for axis in (0, 1)
        )
        width = tile.core[1].stop - tile.core[1].start
        inside, at_model = (
            resize_labels(pixels, grid, (index[0], index[1]), (rows.start, cols.start))
            for pixels in (interior(labels), labels)
        )
        return cls(
            region,
            grid,
            tile,
            (index[0], index[1]),
            rows,
            cols,
            (core[0], core[1]),
            inside,
            Footprint.of(in_core, model_rows, model_cols, width, origin),
            pd.unique(at_model[inside]),
        )

    @property
    def has_cells(self) -> bool:
        """Whether a cell lies in the core."""
        return len(self.footprint.ids) > 0

    @property
    def pixels(self) -> int:
        """Number of pixels per channel, of the image or of what the model sees, whichever is more."""
        return max((self.rows.stop - self.rows.start) * (self.cols.stop - self.cols.start), self.interior.size)

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
        image = self.region.read_image(group, self.rows, self.cols)
        image = bad.clean(image, [self.region.channels[i] for i in group], self.core)
        expression = np.stack([self.footprint.sum_image(channel[self.core]) for channel in image], axis=1)
        scaled = normalize(image, factors)
        return resize_image(scaled, self.grid, self.index, (self.rows.start, self.cols.start)), expression


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, the next of which is made in a thread while the caller works on one."""
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, iterator, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]
