"""Has the tiles of a plan computed, on this machine or elsewhere, and adds up their sums."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.engine.checkpoint import Checkpoint, Memory, add_resume_hint
from nimbus_sd.engine.checks import BadPixels, check_scores
from nimbus_sd.engine.plan import Plan
from nimbus_sd.engine.tile import TileReader, TileSums, channel_groups, read_ahead
from nimbus_sd.models import Scorer
from nimbus_sd.pixels import CellSums
from nimbus_sd.spatial import Region, RegionResult, as_os_error


class Job(NamedTuple):
    """A tile to compute or, if it has hashes, a completed one whose pixels are to be compared with them."""

    number: int
    digests: NDArray[np.uint8] | None = None


#: Computes tiles, in any order (``run_here``, ``run_on_client``): yields numbers and sums, None for a completed tile.
Runner: TypeAlias = Callable[
    [Plan, Sequence[Job], Callable[[float], object]], Generator[tuple[int, TileSums | None], None, None]
]


def score(
    plan: Plan, run: Runner, store: Memory | Checkpoint, *, bad: BadPixels, on_share: Callable[[float], object]
) -> list[RegionResult]:
    """Score every cell of every region in every channel.

    Finished tiles are kept in ``store``, which is open, bad pixels counted in ``bad``. ``on_share`` is called with the
    share of a tile that has been computed since the last call.
    """
    completed = store.completed_tiles()
    # Completed tiles first: other pixels than theirs are found before the long work.
    jobs = [
        *(Job(*tile) for tile in completed.items()),
        *(Job(i) for i in range(len(plan.tiles)) if i not in completed),
    ]
    finished: set[int] = set()
    upcoming = 0
    results: list[RegionResult] = []
    sums = _RegionSums(plan.regions[0])
    with add_resume_hint(store, len(plan.tiles)), closing(run(plan, jobs, on_share)) as computed:
        for number, tile_sums in computed:
            if tile_sums is not None:
                store.save(number, tile_sums)
            finished.add(number)
            # In the order of the plan, whichever finishes first: the order decides on the last digits.
            while upcoming in finished:
                position = plan.tiles[upcoming][0]
                sums.add(store.load(upcoming), bad)
                upcoming += 1
                if upcoming == len(plan.tiles) or plan.tiles[upcoming][0] != position:
                    results.append(sums.result())
                    sums = _RegionSums(plan.regions[min(position + 1, len(plan.regions) - 1)])
    return results


class _RegionSums:
    """Adds up the tiles of a region."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._sums = CellSums(len(region.channels))
        self._visible: list[NDArray] = [np.zeros(0, np.int64)]

    def add(self, tile: TileSums, bad: BadPixels) -> None:
        bad.add(self._region.channels, tile.not_finite, tile.negative)
        if len(tile.ids):
            self._sums.add(tile.ids, tile.geometry, tile.expression, tile.scores)
            self._visible.append(tile.visible)

    def result(self) -> RegionResult:
        ids, area, centroid, expression, scores = self._sums.result()
        too_small = len(np.setdiff1d(ids, np.concatenate(self._visible)))
        return RegionResult(self._region, ids, scores, expression, area, centroid, too_small)


def run_here(
    plan: Plan,
    jobs: Iterable[Job],
    on_share: Callable[[float], object],
    *,
    scorer: Scorer,
    turn: AbstractContextManager[object] | None = None,
) -> Generator[tuple[int, TileSums | None], None, None]:
    """Compute tiles on this machine.

    While channels are in the network, a thread reads the next ones, and another sums the last ones' score maps. The
    network works in the caller's thread, where Ctrl-C stops it.

    Parameters
    ----------
    plan, jobs, scorer
        The tiles, which of them to compute or compare, and the model.
    on_share
        Called with the share of a tile that has been computed since the last call.
    turn
        Entered while the network works.

    Yields
    ------
    number, sums
        In the order of the jobs; None for a completed tile.
    """
    n_channels = len(plan.factors)
    scores: list[Future[NDArray[np.float64]]] = []
    with ThreadPoolExecutor(1) as pool:
        for part in read_ahead(_read_tiles(plan, jobs)):
            if part.reader is not None and part.inputs is not None:
                factors = plan.factors[part.group]
                names = [part.reader.region.channels[i] for i in part.group]
                maps, positions = _score_maps(part.inputs, names, factors, part.reader, scorer, turn or nullcontext())
                scores.append(pool.submit(_sum_maps, part.reader, maps, positions, factors > 0))
                # Not to be kept while the next channels are in the network.
                del maps
            on_share(len(part.group) / n_channels)
            if part.group.stop == n_channels:
                # Now, not when the next tile has been through: a stop should not lose what is done.
                columns = [future.result() for future in scores]
                scores = []
                yield (
                    part.number,
                    part.sums and replace(part.sums, scores=np.concatenate([part.sums.scores, *columns], axis=1)),
                )


class _Part(NamedTuple):
    """Some channels of a tile, as read; all of them, without pixels, where there is nothing to score.

    With the last channels come the tile's sums, without scores yet.
    """

    number: int
    group: range
    reader: TileReader | None = None
    inputs: NDArray[np.float32] | None = None
    sums: TileSums | None = None


def _read_tiles(plan: Plan, jobs: Iterable[Job]) -> Iterator[_Part]:
    """Read tiles, and compare completed ones with the hashes of their pixels."""
    n = len(plan.factors)
    for number, digests in jobs:
        reader, bad = plan.reader(number), BadPixels()
        try:
            if digests is not None:
                if changed := reader.first_difference(digests):
                    raise ValueError(
                        f"The checkpoint was made of other {changed}: tile {number + 1} of {len(plan.tiles)} differs. "
                        "Restore them to go on, or pass another `checkpoint` to begin anew."
                    )
                yield _Part(number, range(n))
                continue
            reader.read_labels()
            if not len(reader.footprint.ids):
                yield _Part(number, range(n), sums=_without_scores(reader, np.zeros((0, n)), bad))
                continue
            expression: list[NDArray[np.float64]] = []
            for group in channel_groups(n, reader.n_pixels):
                inputs, sums = reader.channels(group, plan.factors[group], bad)
                expression.append(sums)
                complete = group.stop == n
                yield _Part(
                    number,
                    group,
                    reader,
                    inputs,
                    _without_scores(reader, np.concatenate(expression, axis=1), bad) if complete else None,
                )
        except OSError as error:
            raise as_os_error(error, f"Tile {number + 1} of {len(plan.tiles)}: {error}") from error


def _without_scores(reader: TileReader, expression: NDArray[np.float64], bad: BadPixels) -> TileSums:
    channels, footprint = reader.region.channels, reader.footprint
    return TileSums(
        ids=footprint.ids,
        geometry=footprint.geometry,
        expression=expression,
        scores=np.zeros((len(footprint.ids), 0)),
        visible=reader.visible,
        not_finite=np.array([bad.not_finite[name] for name in channels], np.int64),
        negative=np.array([bad.negative[name] for name in channels], np.int64),
        digests=np.array(reader.digests, np.uint8).reshape(-1, 32),
    )


def _score_maps(
    images: NDArray[np.float32],
    names: list[str],
    factors: NDArray[np.float64],
    reader: TileReader,
    scorer: Scorer,
    turn: AbstractContextManager[object],
) -> tuple[NDArray[np.float32], list[int]]:
    """Score channels that have a factor; constant channels of the same value share a map.

    Returns the maps, and which of them is that of each channel with a factor.
    """
    channels = np.flatnonzero(factors > 0)
    low, high = (reduce(images, axis=(1, 2)) for reduce in (np.min, np.max))
    keys = [("value", low[i]) if low[i] == high[i] else ("channel", i) for i in channels]
    distinct = list(dict.fromkeys(keys))
    chosen = [int(channels[keys.index(key)]) for key in distinct]
    with turn:
        maps = scorer(images[chosen], reader.interior)
    check_scores(maps, reader.region, [names[i] for i in chosen])
    return maps, [distinct.index(key) for key in keys]


def _sum_maps(
    reader: TileReader, maps: NDArray[np.float32], positions: list[int], scored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Sum the score map of each channel over the core's cells, (n, c); NaN where there is no factor."""
    sums = np.full((len(reader.footprint.ids), len(scored)), np.nan)
    if positions:
        sums[:, scored] = reader.sum_maps(maps)[:, positions]
    return sums
