"""All tiles of a region, one after the other, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.engine.read import GROUP_BYTES, BadPixels, TileReader, read_ahead
from nimbus_sd.models import Scorer
from nimbus_sd.pixels import CellSums, Grid, tiles
from nimbus_sd.spatial import Region, RegionResult

# Side of a tile's core in image pixels: its labels take about 1.5 GB to work on.
_MAX_CORE = 4096


def model_grid(region: Region, scorer: Scorer) -> Grid:
    """Grid on which region and model meet."""
    return Grid(region.shape, region.pixel_size / scorer.card.pixel_size, scorer.card.stride)


def default_tile_size(scorer: Scorer, regions: Sequence[Region]) -> int:
    """Side of a core in model pixels: larger ones waste less halo, but need more memory.

    A wide network needs it for the model's pixels, a fine image for its own.
    """
    side = scorer.card.patch * (1024 if scorer.card.root_filters <= 32 else 512)
    finest = min(region.pixel_size for region in regions) / scorer.card.pixel_size
    return max(scorer.card.stride, min(side, int(_MAX_CORE * finest)))


def tile_count(region: Region, scorer: Scorer, tile_size: int) -> int:
    """Count the tiles of a region."""
    return sum(1 for _ in tiles(model_grid(region, scorer), tile_size, scorer.card.halo))


def score_region(
    region: Region,
    factors: NDArray[np.float64],
    scorer: Scorer,
    *,
    tile_size: int,
    bad: BadPixels,
    on_tile: Callable[[float], object],
) -> RegionResult:
    """Score every cell of a region in every channel.

    Parameters
    ----------
    region
        Image and labels.
    factors
        Normalisation factor of each channel, shape (c,); a channel whose factor is NaN is not scored (NaN).
    scorer
        The model.
    tile_size
        Side of a tile's core in model pixels.
    bad
        Where bad pixels are counted.
    on_tile
        Called with the share of a tile that has been done since the last call.

    Returns
    -------
    RegionResult
    """
    grid = model_grid(region, scorer)
    n = len(region.channels)
    sums = CellSums(n)

    def load() -> Iterator[tuple[TileReader, list[int], NDArray[np.float32], NDArray[np.float64]] | None]:
        for tile in tiles(grid, tile_size, scorer.card.halo):
            reader = TileReader.open(region, grid, tile)
            if not reader.has_cells:
                yield None
                continue
            size = max(1, GROUP_BYTES // (4 * reader.pixels))
            for start in range(0, n, size):
                group = list(range(start, min(start + size, n)))
                yield reader, group, *reader.channels(group, factors[group], bad)

    expression: list[NDArray[np.float64]] = []
    scores: list[NDArray[np.float64]] = []
    visible: list[NDArray] = [np.zeros(0, np.int64)]
    for loaded in read_ahead(load()):
        if loaded is None:
            on_tile(1.0)
            continue
        reader, group, inputs, intensity = loaded
        expression.append(intensity)
        scores.append(_scored(reader, inputs, factors[group], scorer))
        on_tile(len(group) / n)
        if group[-1] == n - 1:
            sums.add(reader.footprint, np.concatenate(expression, axis=1), np.concatenate(scores, axis=1))
            visible.append(reader.visible)
            expression, scores = [], []
    ids, area, centroid, mean, score = sums.result()
    too_small = len(np.setdiff1d(ids, np.concatenate(visible)))
    return RegionResult(region, ids, score, mean, area, centroid, too_small)


def _scored(
    reader: TileReader, inputs: NDArray[np.float32], factors: NDArray[np.float64], scorer: Scorer
) -> NDArray[np.float64]:
    """Sum the score map of each channel over the core's cells, (n, c); NaN where there is no factor."""
    known = factors > 0
    sums = np.full((len(reader.footprint.ids), len(inputs)), np.nan)
    if known.any():
        maps = scorer(inputs[known], reader.interior)
        core = reader.tile.core_in_window
        sums[:, known] = np.stack([reader.footprint.sum_map(one[core]) for one in maps], axis=1)
    return sums
