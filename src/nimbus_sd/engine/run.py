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


#: Is called with the share of a tile that has been computed since the last call.
OnShare: TypeAlias = Callable[[float], object]
#: Is entered while the network works.
Turn: TypeAlias = AbstractContextManager[object]
#: Numbers of tiles and their sums, None for a completed tile.
Computed: TypeAlias = Generator[tuple[int, TileSums | None], None, None]
#: Computes tiles, in any order: ``run_here``, ``run_on_client``.
Runner: TypeAlias = Callable[[Plan, Sequence[Job], OnShare], Computed]


def score(
    plan: Plan, run: Runner, store: Memory | Checkpoint, *, bad: BadPixels, on_share: OnShare
) -> list[RegionResult]:
    """Score every cell of every region in every channel.

    Finished tiles are kept in ``store``, which is open, and bad pixels are counted in ``bad``.
    """
    completed = store.completed_tiles()
    # Completed tiles first: other pixels than theirs are found before the long work.
    jobs = [Job(*tile) for tile in completed.items()]
    jobs += [Job(number) for number in range(len(plan.tiles)) if number not in completed]
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
                if (position := plan.tiles[upcoming][0]) > len(results):
                    results.append(sums.result())
                    sums = _RegionSums(plan.regions[position])
                sums.add(store.load(upcoming), bad)
                upcoming += 1
        results.append(sums.result())
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
    plan: Plan, jobs: Iterable[Job], on_share: OnShare, *, scorer: Scorer, turn: Turn | None = None
) -> Computed:
    """Compute tiles on this machine, and yield them in the order of the jobs.

    While channels are in the network, a thread reads the next ones, and another sums the last ones' score maps. The
    network works in the caller's thread, where Ctrl-C stops it.
    """
    scores: list[Future[NDArray[np.float64]]] = []
    with ThreadPoolExecutor(1) as pool:
        for part in read_ahead(_read_tiles(plan, jobs)):
            if part.inputs is not None:
                factors = plan.factors[part.group]
                maps, positions = _score_maps(part.inputs, part, factors, scorer, turn or nullcontext())
                scores.append(pool.submit(_sum_maps, part.reader, maps, positions, factors > 0))
                # Not to be kept while the next channels are in the network.
                del maps
            on_share(len(part.group) / len(plan.factors))
            if part.group.stop == len(plan.factors):
                # Now, not when the next tile has been through: a stop should not lose what is done.
                columns, scores = [future.result() for future in scores], []
                sums = part.sums
                yield part.number, sums and replace(sums, scores=np.concatenate([sums.scores, *columns], axis=1))


class _Part(NamedTuple):
    """Some channels of a tile, as read; all of them, without pixels, where there is nothing to score.

    With the last channels come the tile's sums, without scores yet.
    """

    number: int
    group: range
    reader: TileReader
    inputs: NDArray[np.float32] | None = None
    sums: TileSums | None = None


def _read_tiles(plan: Plan, jobs: Iterable[Job]) -> Iterator[_Part]:
    """Read tiles, and compare completed ones with the hashes of their pixels."""
    n = len(plan.factors)
    for number, digests in jobs:
        reader, bad = plan.reader(number), BadPixels()
        place = f"{number + 1} of {len(plan.tiles)}"
        try:
            if digests is not None:
                if changed := reader.first_difference(digests):
                    difference = f"The checkpoint was made of other {changed}: tile {place} differs"
                    raise ValueError(f"{difference}. Restore them, or pass another `checkpoint` to begin anew.")
                yield _Part(number, range(n), reader)
                continue
            reader.read_labels()
            if not len(reader.footprint.ids):
                yield _Part(number, range(n), reader, sums=_without_scores(reader, [np.zeros((0, n))], bad))
                continue
            expression: list[NDArray[np.float64]] = []
            for group in channel_groups(n, reader.n_pixels):
                inputs, sums = reader.channels(group, plan.factors[group], bad)
                expression.append(sums)
                complete = _without_scores(reader, expression, bad) if group.stop == n else None
                yield _Part(number, group, reader, inputs, complete)
        except OSError as error:
            raise as_os_error(error, f"Tile {place}: {error}") from error


def _without_scores(reader: TileReader, expression: list[NDArray[np.float64]], bad: BadPixels) -> TileSums:
    channels, footprint = reader.region.channels, reader.footprint
    return TileSums(
        ids=footprint.ids,
        geometry=footprint.geometry,
        expression=np.concatenate(expression, axis=1),
        scores=np.zeros((len(footprint.ids), 0)),
        visible=reader.visible,
        not_finite=np.array([bad.not_finite[name] for name in channels], np.int64),
        negative=np.array([bad.negative[name] for name in channels], np.int64),
        digests=np.array(reader.digests, np.uint8).reshape(-1, 32),
    )


def _score_maps(
    images: NDArray[np.float32], part: _Part, factors: NDArray[np.float64], scorer: Scorer, turn: Turn
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
        maps = scorer(images[chosen], part.reader.interior)
    check_scores(maps, part.reader.region, [part.reader.region.channels[part.group[i]] for i in chosen])
    return maps, [distinct.index(key) for key in keys]


def _sum_maps(
    reader: TileReader, maps: NDArray[np.float32], positions: list[int], scored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Sum the score map of each channel over the core's cells, (n, c); NaN where there is no factor."""
    sums = np.full((len(reader.footprint.ids), len(scored)), np.nan)
    if positions:
        sums[:, scored] = reader.sum_maps(maps)[:, positions]
    return sums
