"""What is to be computed: the tiles of all regions, and what each of them gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.models import Card
from nimbus_sd.pixels import CellSums, Grid, Tile, tiles
from nimbus_sd.spatial import Region, RegionResult

# Side of a tile's core in image pixels: its labels take about 1.5 GB to work on.
_MAX_CORE = 4096


def model_grid(region: Region, card: Card) -> Grid:
    """Grid on which region and model meet."""
    return Grid(region.shape, region.pixel_size / card.pixel_size, card.stride)


def find_tile_size(tile_size: int | None, card: Card, regions: Sequence[Region]) -> int:
    """Side of a core in model pixels: as asked for, or one that fits.

    Larger ones waste less halo, but need more memory: a wide network for the model's pixels, a fine image for its own.

    Raises
    ------
    ValueError
        It is no whole number, or less than 1.
    """
    if tile_size is not None:
        if not isinstance(tile_size, Integral) or tile_size < 1:
            raise ValueError(
                f"`tile_size` is {tile_size!r}; give a whole number of model pixels of at least 1, or None."
            )
        return int(tile_size)
    side = card.patch * (1024 if card.root_filters <= 32 else 512)
    finest = min(region.pixel_size for region in regions) / card.pixel_size
    return max(card.stride, min(side, int(_MAX_CORE * finest)))


@dataclass(frozen=True, eq=False)
class Plan:
    """The tiles of all regions, numbered in the order in which their sums are added up.

    Whoever computes them, in whatever order: the scores are the same, to the last byte on the same machine with the
    same number of threads. Another number changes the order in which a convolution adds up: the last digits.

    Parameters
    ----------
    regions
        Images and labels; all have the same c channels.
    factors
        Normalisation factor of each channel, shape (c,); a channel whose factor is NaN is not scored (NaN).
    card
        The model's.
    tile_size
        Side of a tile's core in model pixels.
    identify
        Whether tiles tell of which pixels they were made.
    """

    regions: Sequence[Region]
    factors: NDArray[np.float64]
    card: Card
    tile_size: int
    identify: bool = False

    @cached_property
    def tiles(self) -> list[tuple[int, Tile]]:
        """Region (its position) and window of each tile."""
        return [
            (position, tile)
            for position, region in enumerate(self.regions)
            for tile in tiles(model_grid(region, self.card), self.tile_size, self.card.halo)
        ]

    def locate(self, number: int) -> tuple[Region, Grid, Tile]:
        """Return a tile's region, the region's grid, and the tile."""
        position, tile = self.tiles[number]
        return self.regions[position], model_grid(self.regions[position], self.card), tile


@dataclass(frozen=True, eq=False)
class TileSums:
    """Sums over the n cells in the core of a tile, in c channels.

    Parameters
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
        uint8, SHA-256 of the labels and of each channel as read, shape (1 + c, 32). Without a cell no channel is
        read: (1, 32). Without ``identify``: (0, 32).
    """

    ids: NDArray
    geometry: NDArray[np.float64]
    expression: NDArray[np.float64]
    scores: NDArray[np.float64]
    visible: NDArray
    not_finite: NDArray[np.int64]
    negative: NDArray[np.int64]
    digests: NDArray[np.uint8]


def joined(region: Region, parts: Iterable[TileSums]) -> RegionResult:
    """Add up the tiles of a region, given in the order of the plan."""
    sums = CellSums(len(region.channels))
    visible: list[NDArray] = [np.zeros(0, np.int64)]
    for part in parts:
        if len(part.ids):
            sums.add(part.ids, part.geometry, part.expression, part.scores)
            visible.append(part.visible)
    ids, area, centroid, mean, score = sums.result()
    too_small = len(np.setdiff1d(ids, np.concatenate(visible)))
    return RegionResult(region, ids, score, mean, area, centroid, too_small)
