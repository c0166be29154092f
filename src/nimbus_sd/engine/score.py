"""Has the tiles of a plan computed, keeps them, and adds them up."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any, Protocol

from numpy.typing import NDArray

from nimbus_sd.engine.bad_pixels import BadPixels
from nimbus_sd.engine.checkpoint import Checkpoint
from nimbus_sd.engine.local import Job
from nimbus_sd.engine.plan import Plan, TileSums, joined
from nimbus_sd.spatial import RegionResult


class Runner(Protocol):
    """Computes tiles, in any order: :func:`run_here` or :func:`run_on_client`, told by what model."""

    def __call__(
        self, plan: Plan, jobs: Sequence[Job], on_share: Callable[[float], object]
    ) -> Generator[tuple[int, TileSums | None], None, None]:
        """Yield numbers and sums of tiles; None for a tile that was there."""


class Memory:
    """Keeps finished tiles until they are added up; a :class:`Checkpoint` keeps them longer."""

    def __init__(self) -> None:
        self._tiles: dict[int, TileSums] = {}

    def opened(self, inputs: dict[str, Any]) -> AbstractContextManager[None]:
        """Nothing is to be opened, nor compared."""
        return nullcontext()

    def there(self) -> dict[int, NDArray]:
        """Nothing is there from earlier calls."""
        return {}

    def save(self, number: int, sums: TileSums) -> None:
        """Keep a tile."""
        self._tiles[number] = sums

    def load(self, number: int) -> TileSums:
        """Give a tile back."""
        return self._tiles.pop(number)

    def how_to_go_on(self, total: int | None) -> str:
        """Tell a user whose run was stopped; without a total, before its first tile."""
        if total is None:
            return "Nothing was kept, as no tile had begun when it was stopped; the same call begins anew."
        return "Nothing was kept; with `checkpoint`, a folder, the same call goes on where it was stopped."


def score(
    plan: Plan,
    run: Runner,
    store: Memory | Checkpoint,
    *,
    bad: BadPixels,
    on_share: Callable[[float], object],
) -> list[RegionResult]:
    """Score every cell of every region in every channel.

    Parameters
    ----------
    plan
        The tiles.
    run
        Computes them.
    store
        Where finished tiles are kept, and found; opened.
    bad
        Where bad pixels are counted.
    on_share
        Called with the share of a tile that has been done since the last call.

    Returns
    -------
    One result for each region.

    Raises
    ------
    KeyboardInterrupt
        The user stopped it; the message says how to go on.
    """
    members: list[list[int]] = [[] for _ in plan.regions]
    for number, (position, _) in enumerate(plan.tiles):
        members[position].append(number)
    kept: set[int] = set()

    def parts(position: int) -> Iterator[TileSums]:
        """Tiles of a region in the order of the plan, whoever finishes first: the order decides on the last digits."""
        for number in members[position]:
            while number not in kept:
                one, sums = next(finished)
                kept.add(one)
                if sums is not None:
                    store.save(one, sums)
            sums = store.load(number)
            bad.add(plan.regions[position].channels, sums.not_finite, sums.negative)
            yield sums

    with (
        add_resume_hint(store, len(plan.tiles)),
        closing(run(plan, _jobs(plan, store), on_share)) as finished,
    ):
        return [joined(region, parts(position)) for position, region in enumerate(plan.regions)]


@contextmanager
def add_resume_hint(store: Memory | Checkpoint, total: int | None = None) -> Iterator[None]:
    """Say how to go on where the work within is stopped or fails, but not where it refuses what it was given.

    Parameters
    ----------
    store
        Where finished tiles are kept.
    total
        Number of tiles; None where the work comes before the first one.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Stopped. {store.how_to_go_on(total)}") from None
    except (ValueError, KeyError, TypeError):
        # The same call would be refused again.
        raise
    except Exception as error:
        error.add_note(store.how_to_go_on(total))
        raise


def _jobs(plan: Plan, store: Memory | Checkpoint) -> list[Job]:
    """List all tiles, first those that are there: what was made of other pixels is found before the long work."""
    there = store.there()
    return [*(Job(*tile) for tile in there.items()), *(Job(i) for i in range(len(plan.tiles)) if i not in there)]
