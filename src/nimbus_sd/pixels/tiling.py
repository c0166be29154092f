"""Tiles whose cores together give exactly what one pass over the whole image would give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from nimbus_sd.pixels.grid import Grid


@dataclass(frozen=True)
class Tile:
    """A window on a region's padded model grid: what the network sees, and the core whose result counts.

    Parameters
    ----------
    core
        Model rows and columns that belong to this tile alone.
    window
        Core and halo, cut at the padded grid's edge, sides are multiples of the stride.
    """

    core: tuple[slice, slice]
    window: tuple[slice, slice]

    @property
    def core_in_window(self) -> tuple[slice, slice]:
        """The core, counted from the window's corner."""
        rows, cols = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, cols


def tiles(grid: Grid, tile_size: int, halo: int) -> Iterator[Tile]:
    """Cut a region into tiles, row by row.

    Cores start at multiples of the pooling stride and the halo covers the network's reach, and nothing is added
    beyond the padded grid's edge, where the network's own padding acts as it does on the whole image. So the cores'
    results equal those of one pass over everything.

    Parameters
    ----------
    grid
        The region's grid.
    tile_size
        Side of the core in model pixels, rounded up to a multiple of the stride.
    halo
        Model pixels seen around the core, a multiple of the stride.

    Yields
    ------
    Tile
        Cores cover the model shape once; they are cut where the image ends.
    """
    axes = []
    for size, padded in zip(grid.model_shape, grid.padded_shape, strict=True):
        side = max(1, ceil(tile_size / grid.stride)) * grid.stride
        # Equal cores waste less than full ones and a remainder.
        side = ceil(ceil(size / ceil(size / side)) / grid.stride) * grid.stride
        axes.append(
            [
                (
                    slice(start, min(start + side, size)),
                    slice(max(0, start - halo), min(start + side + halo, padded)),
                )
                for start in range(0, size, side)
            ]
        )
    for row_core, row_window in axes[0]:
        for col_core, col_window in axes[1]:
            yield Tile((row_core, col_core), (row_window, col_window))


def overlapping_tiles(shape: tuple[int, int], size: int, overlap: int) -> Iterator[Tile]:
    """Cut a region into windows of one size for training, row by row; nothing is exact at their edges.

    They are spread evenly, so that neighbours share ``overlap`` model pixels or more. Where the region is smaller than
    a window, the window goes on beyond its far edge, as the padded grid does.

    Parameters
    ----------
    shape
        Model pixels that cover the region.
    size
        Side of a window in model pixels.
    overlap
        Model pixels that neighbours share at least, less than ``size``.

    Yields
    ------
    Tile
        Whose core is what the next window does not begin with: each pixel is in one core.
    """
    axes = []
    for length in shape:
        number = max(1, ceil((length - overlap) / (size - overlap)))
        spare = max(0, length - size)
        starts = [round(spare * i / max(1, number - 1)) for i in range(number)]
        stops = [*starts[1:], starts[-1] + size]
        axes.append([(slice(a, a + size), slice(a, b)) for a, b in zip(starts, stops, strict=True)])
    for rows, own_rows in axes[0]:
        for cols, own_cols in axes[1]:
            yield Tile((own_rows, own_cols), (rows, cols))
