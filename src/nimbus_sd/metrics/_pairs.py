"""Mutual information between a confounder and being wrong, with its interval and its null."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nimbus_sd.metrics.bootstrap import MIN_REGIONS

_NEIGHBOURS = 3


class Pairs(NamedTuple):
    """Pairs of a cell and a marker: a confounder, being wrong, the region, the cell, and who shares the value."""

    values: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    region: NDArray[np.intp]
    cell: NDArray[np.intp]
    owner: NDArray[np.intp]

    def information(self, seed: int) -> float:
        """Estimate the mutual information; NaN with too few wrong or right pairs."""
        from sklearn.feature_selection import mutual_info_classif

        if min(self.wrong.sum(), (~self.wrong).sum()) <= _NEIGHBOURS:
            return float("nan")
        column = self.values[:, None]
        return float(
            mutual_info_classif(
                column, self.wrong, discrete_features=False, n_neighbors=_NEIGHBOURS, random_state=seed
            )[0]
        )

    def part(self, kept: NDArray[np.bool_]) -> Pairs:
        """Keep some of the pairs."""
        return Pairs(self.values[kept], self.wrong[kept], self.region[kept], self.cell[kept], self.owner[kept])

    def shuffled(self, rng: np.random.Generator) -> Pairs:
        """Break the tie between confounder and being wrong: values change owners."""
        _, first, owner = np.unique(self.owner, return_index=True, return_inverse=True)
        return self._replace(values=rng.permutation(self.values[first])[owner])


def reason(pairs: Pairs) -> str:
    """Say why there can be no estimate; empty if there can."""
    if not len(pairs.values):
        return "not known for any of the cells"
    if pairs.values.min() == pairs.values.max():
        return "the same for all cells"
    for word, count in (("wrong", pairs.wrong.sum()), ("right", (~pairs.wrong).sum())):
        if count <= _NEIGHBOURS:
            return f"{count or 'no'} calls are {word}; at least {_NEIGHBOURS + 1} are needed"
    return ""


def estimate(pairs: Pairs, n_permutations: int, n_boot: int, rng: np.random.Generator) -> dict[str, float | str]:
    """Information, its interval and its null."""
    regions = np.unique(pairs.region)
    resampled = "regions" if len(regions) >= MIN_REGIONS else "cells"
    seed = int(rng.integers(2**31))
    point, low, high, null, p = (float("nan"),) * 5
    if not reason(pairs):
        point = pairs.information(seed)
        unit = pairs.region if resampled == "regions" else pairs.cell
        halves = np.array([half.information(seed) for half in _halves(pairs, unit, n_boot, rng)])
        low, high = _interval(point, halves, len(np.unique(unit)))
        shuffles = (pairs.shuffled(rng) for _ in range(n_permutations))
        nulls = np.array([one.information(seed) for one in shuffles])
        if n_permutations:
            null, p = float(np.quantile(nulls, 0.95)), float((1 + (nulls >= point).sum()) / (1 + n_permutations))
    return {
        "information": point,
        "information_low": low,
        "information_high": high,
        "null_95": null,
        "p_value": p,
        "n_regions": len(regions),
        "resampled": resampled,
    }


def _halves(pairs: Pairs, unit: NDArray[np.intp], n: int, rng: np.random.Generator) -> Iterator[Pairs]:
    """Draw halves of the units, without replacement."""
    names, number = np.unique(unit, return_inverse=True)
    for _ in range(n):
        drawn = np.zeros(len(names), bool)
        drawn[rng.permutation(len(names))[: len(names) // 2]] = True
        yield pairs.part(drawn[number])


def _interval(point: float, halves: NDArray[np.float64], units: int) -> tuple[float, float]:
    """Interval of Student about the estimate, from the spread of halves, never below 0."""
    known = halves[np.isfinite(halves)]
    if known.size < 2:
        return float("nan"), float("nan")
    half = units // 2
    # A half varies about the whole by (1 / half - 1 / units) of a unit's variance, the whole by 1 / units.
    error = float(known.std(ddof=1)) * np.sqrt(half / (units - half))
    reach = float(stats.t.ppf(0.975, units - 1)) * error
    return max(point - reach, 0.0), point + reach
