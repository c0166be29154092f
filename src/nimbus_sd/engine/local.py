"""Computes tiles one after the other on this machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.engine.bad_pixels import BadPixels
from nimbus_sd.engine.concerns import check_scores
from nimbus_sd.engine.identity import differing
from nimbus_sd.engine.plan import Plan, TileSums
from nimbus_sd.engine.read import TileReader, groups, read_ahead
from nimbus_sd.models import Scorer
from nimbus_sd.spatial import as_os_error


class Job(NamedTuple):
    """A tile to compute or, if it has digests, one that is there and whose pixels are to be compared with them."""

    number: int
    digests: NDArray[np.uint8] | None = None


def run_here(
    plan: Plan,
    jobs: Iterable[Job],
    on_share: Callable[[float], object],
    *,
    scorer: Scorer,
    turn: AbstractContextManager[object] | None = None,
) -> Generator[tuple[int, TileSums | None], None, None]:
    """Compute tiles: while channels are in the network, the next are read and the last ones' score maps summed.

    Parameters
    ----------
    plan, jobs
        The tiles, and which of them.
    on_share
        Called with the share of a tile that has been done since the last call.
    scorer
        The model.
    turn
        Entered while the network works.

    Yields
    ------
    number, sums
        In the order of the jobs; None for a tile that was there.

    Raises
    ------
    OSError
        Pixels cannot be read.
    ValueError
        A tile that was there is of other pixels; the network overflows.
    """
    scores: list[Future[NDArray[np.float64]]] = []
    for part, summed in _through_network(plan, jobs, on_share, scorer, turn or nullcontext()):
        scores.extend([] if summed is None else [summed])
        if part.group.stop == len(plan.factors):
            # Now, not when the next tile has been through: a stop should not lose what is done.
            sums, found = part.sums, [one.result() for one in scores]
            yield part.number, sums and replace(sums, scores=np.concatenate([sums.scores, *found], axis=1))
            scores = []


class _Part(NamedTuple):
    """Some channels of a tile, as read; all of them, without pixels, where there is nothing to score.

    With the last channels come the tile's sums, without scores yet.
    """

    number: int
    group: range
    reader: TileReader | None
    inputs: NDArray[np.float32] | None
    sums: TileSums | None


def _read(plan: Plan, jobs: Iterable[Job]) -> Iterator[_Part]:
    n = len(plan.factors)
    for number, digests in jobs:
        try:
            if digests is not None:
                if other := differing(plan, number, digests):
                    raise ValueError(
                        f"The checkpoint was made of other {other}: tile {number + 1} of {len(plan.tiles)} differs. "
                        "Restore them to go on, or pass another `checkpoint` to begin anew."
                    )
                yield _Part(number, range(n), None, None, None)
                continue
            reader, bad = TileReader.open(*plan.locate(number), identify=plan.identify), BadPixels()
            if not reader.has_cells:
                yield _Part(number, range(n), None, None, _without_scores(reader, np.zeros((0, n)), bad))
                continue
            expression: list[NDArray[np.float64]] = []
            for group in groups(n, reader.windows.pixels):
                inputs, sums = reader.channels(group, plan.factors[group], bad)
                expression.append(sums)
                last = _without_scores(reader, np.concatenate(expression, axis=1), bad) if group.stop == n else None
                yield _Part(number, group, reader, inputs, last)
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
        digests=np.array(reader.digests or [], np.uint8).reshape(-1, 32),
    )


def _through_network(
    plan: Plan,
    jobs: Iterable[Job],
    on_share: Callable[[float], object],
    scorer: Scorer,
    turn: AbstractContextManager[object],
) -> Iterator[tuple[_Part, Future[NDArray[np.float64]] | None]]:
    """Score what is read; the sums, (n, c), are made in a thread. The network works here, where Ctrl-C stops it."""
    with ThreadPoolExecutor(1) as pool:
        for part in read_ahead(_read(plan, jobs)):
            summed = None
            if part.reader is not None and part.inputs is not None:
                known = plan.factors[part.group] > 0
                distinct, own = _distinct(part.inputs, np.flatnonzero(known))
                with turn:
                    maps = scorer(part.inputs[distinct], part.reader.interior)
                region = part.reader.region
                check_scores(maps, region, [region.channels[part.group[i]] for i in distinct])
                summed = pool.submit(_summed, part.reader, maps, own, known)
                # Not to be kept while the next is in the network.
                del maps
            on_share(len(part.group) / len(plan.factors))
            yield part._replace(inputs=None), summed


def _distinct(images: NDArray[np.float32], channels: NDArray[np.intp]) -> tuple[list[int], list[int]]:
    """Find which of the channels to score, and whose map among these is each one's: constant ones may share one."""
    low, high = (reduce(images, axis=(1, 2)) for reduce in (np.min, np.max))
    keys = [("value", low[i]) if low[i] == high[i] else ("channel", i) for i in channels]
    firsts = list(dict.fromkeys(keys))
    return [int(channels[keys.index(key)]) for key in firsts], [firsts.index(key) for key in keys]


def _summed(
    reader: TileReader, maps: NDArray[np.float32], own: list[int], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Sum the score map of each channel over the core's cells, (n, c); NaN where there is no factor."""
    sums = np.full((len(reader.footprint.ids), len(known)), np.nan)
    if own:
        core = reader.tile.core_in_window
        sums[:, known] = np.stack([reader.footprint.sum_map(one[core]) for one in maps], axis=1)[:, own]
    return sums
