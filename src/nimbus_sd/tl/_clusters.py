"""Clusters as a column of ``obs``: names by size, missing where a cell has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

UNASSIGNED, AMBIGUOUS = "unassigned", "ambiguous"
# Greys, so that only what has a type has a colour.
GREYS = {AMBIGUOUS: "#7a7a7a", UNASSIGNED: "#a8a8a8"}


def by_size(sizes: NDArray) -> NDArray[np.int64]:
    """Return the new number of each cluster, 0 for the largest; of equal ones the earlier comes first."""
    numbers = np.empty(len(sizes), np.int64)
    numbers[np.argsort(-np.asarray(sizes), kind="stable")] = np.arange(len(sizes))
    return numbers


def column(numbers: NDArray[np.integer], used: NDArray[np.bool_], names: Sequence[str]) -> pd.Categorical:
    """Return a column of names.

    Parameters
    ----------
    numbers
        Position of each used cell's name, (cells used,).
    used
        Which cells have one, (cells,).
    names
        All names, in order.
    """
    codes = np.full(used.size, -1, np.int64)
    codes[used] = numbers
    return pd.Categorical.from_codes(codes, categories=list(names))


def seed_of(rng: int | np.random.Generator) -> int:
    """Return an int as it is, so that scanpy gives the same with it; else draw one."""
    return int(rng.integers(2**31)) if isinstance(rng, np.random.Generator) else int(rng)


def check_rng(rng: object) -> None:
    """Raise a ValueError if this is no seed and no generator: the same call must give the same again."""
    whole = isinstance(rng, int | np.integer) and not isinstance(rng, bool) and 0 <= rng < 2**32
    if not whole and not isinstance(rng, np.random.Generator):
        raise ValueError(f"`rng` is {rng!r}; it must be a seed, from 0 to 2**32 - 1, or a numpy.random.Generator.")


def check_number(name: str, value: object, fits: Callable[[float], bool], allowed: str) -> None:
    """Raise a ValueError if a parameter is not a number that fits; ``allowed`` says which do."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not fits(float(value)):
        raise ValueError(f"`{name}` is {value!r}; it must be a number {allowed}.")


def check_count(name: str, value: object, least: int) -> None:
    """Raise a ValueError if a parameter is not a whole number of at least that."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number, {least} or more.")
