"""Groups of cells, figures of them with bootstrap intervals, and averages of such figures.

Cells of one region share its staining, its segmentation and its annotator, so intervals from resampled cells are too
narrow. Regions are drawn with replacement, all their cells and channels together; cells only where regions are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from nimbus_sd._table import obs_columns, region_column
from nimbus_sd.metrics.judged import METRICS, States, judged_cells, measure, pool, resample

#: With fewer regions than this, cells are resampled.
MIN_REGIONS = 5
_LEVEL = 0.95

Average = Literal["macro", "pooled"]
Seed: TypeAlias = int | np.random.Generator


def interval(draws: NDArray, units: int, point: float | None = None) -> tuple[float, float]:
    """Compute the 95 % interval of a figure, NaN with fewer than two units or without a draw.

    G is the number of resampled units (regions or cells), t the quantile of Student's distribution with G - 1 degrees
    of freedom. Without ``point``, for figures without bounds such as a difference: the percentiles
    ``Phi(-sqrt(G / (G - 1)) t)`` and its complement of the draws, as the plain ones are too narrow where units are few
    (Hesterberg 2015, "What teachers should know about the bootstrap").

    Such percentiles are too narrow near 0 and 1. For a metric between these, ``point``, the interval is
    ``logit(point) -+ sqrt(G / (G - 1)) t sd``, with ``sd`` the spread of the draws' logits. A draw with less than a
    twentieth of the errors counts as one with a twentieth. Where all is right (or wrong), no draw differs: the other
    end is then the exact limit for the share of units with an error, if none of G has one.
    ``tests/metrics/test_bootstrap.py`` counts how often these intervals cover the truth.
    """
    finite = draws[np.isfinite(draws)]
    if units < 2 or not finite.size or (point is not None and not np.isfinite(point)):
        return float("nan"), float("nan")
    limit = ((1 - _LEVEL) / 2) ** (1 / units)
    if point in (0, 1):
        return (limit, 1.0) if point == 1 else (0.0, 1 - limit)
    reach = np.sqrt(units / (units - 1)) * stats.t.ppf((1 + _LEVEL) / 2, units - 1)
    if point is None:
        tail = stats.norm.sf(reach)
        low, high = np.quantile(finite, [tail, 1 - tail])
    else:
        spread = reach * logit(np.clip(finite, point / 20, 1 - (1 - point) / 20)).std()
        low, high = expit(logit(point) + np.array([-spread, spread]))
    return float(low), float(high)


@dataclass
class Group:
    """Some cells of the table: values of the ``by`` columns and row numbers; for a bootstrap also what is drawn.

    ``region`` numbers the region of each cell, -1 for cells that are not judged in any channel. ``weights`` (draws x
    regions) says how often each region is drawn; groups that share regions share these draws. ``rng`` draws cells.
    """

    key: tuple
    cells: NDArray[np.intp]
    region: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    weights: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    @cached_property
    def regions(self) -> NDArray[np.intp]:
        """Regions with a judged cell."""
        return np.unique(self.region[self.region >= 0])

    @cached_property
    def drawn_cells(self) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """Each cell's place among the judged ones, and how often those are drawn, draws x judged cells."""
        judged = self.region >= 0
        return np.cumsum(judged) - 1, draw_cells(int(judged.sum()), len(self.weights), self.rng)


def _choose(regions: NDArray) -> str:
    return "regions" if len(regions) >= MIN_REGIONS else "cells"


def split(
    adata: AnnData, states: States, by: Sequence[str], n_boot: int, rng: Seed, region_key: str | None
) -> tuple[list[Group], Group]:
    """Return the groups of cells and all their cells together, with the draws of their regions.

    Regions are drawn within each group where no region is in two of them, and from all otherwise. For all cells
    together they are drawn from all.
    """
    if n_boot < 0 or n_boot == 1:
        raise ValueError(f"`n_boot` is {n_boot}; it must be the number of draws, at least 2, or 0 for none.")
    groups = [Group((), np.arange(adata.n_obs))]
    if by:
        by_key = obs_columns(adata, by).reset_index(drop=True).groupby(list(by), observed=True)
        groups = [Group(key, part.index.to_numpy()) for key, part in by_key]
    if not groups:
        raise ValueError(f"No cell has a value in `obs` {', '.join(map(repr, by))}: there is no group to compare.")
    whole = Group(("all",) * max(1, len(by)), np.sort(np.concatenate([group.cells for group in groups])))
    if n_boot == 0:
        return groups, whole
    judged = (states >= 0).any(axis=1)
    region = np.full(len(states), -1)
    region[judged] = pd.factorize(region_column(adata, region_key)[judged], use_na_sentinel=False)[0]
    *seeds, last, second, first = np.random.default_rng(rng).spawn(len(groups) + 3)
    for group, seed in zip((*groups, whole), (*seeds, last), strict=True):
        group.region, group.rng = region[group.cells], seed
    strata = np.zeros(region.max() + 1, np.intp)
    whole.weights = draw_regions(strata, n_boot, second)
    members = np.concatenate([group.regions for group in groups])
    if len(np.unique(members)) == len(members):
        for number, group in enumerate(groups, 1):
            strata[group.regions] = number
    weights = draw_regions(strata, n_boot, first)
    for group in groups:
        group.weights = weights
    return groups, whole


def draw_regions(strata: NDArray[np.intp], n_boot: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw regions with replacement, in each stratum as many as it has: draws x regions, how often each is drawn."""
    weights = np.zeros((n_boot, len(strata)), np.uint8)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_boot)
    return weights


def draw_cells(cells: int, n_boot: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw cells with replacement: draws x cells, how often each is drawn."""
    weights = np.empty((n_boot, cells), np.uint8)
    for row in weights:
        row[:] = np.bincount(rng.integers(cells, size=cells), minlength=cells)
    return weights


@dataclass(frozen=True)
class Estimate:
    """One row of a result: its figures, and draws of the metrics among them if any were made."""

    point: dict[str, float]
    draws: dict[str, NDArray] = field(default_factory=dict)
    units: int = 0
    regions: int = 0
    resampled: str = "regions"

    def row(self) -> dict[str, float | str]:
        """Columns of the result."""
        row: dict[str, float | str] = dict(self.point)
        for name, draws in self.draws.items():
            row[f"{name}_low"], row[f"{name}_high"] = interval(draws, self.units, self.point[name])
        return row | ({"n_regions": self.regions, "resampled": self.resampled} if self.draws else {})


def estimate_markers(
    values: NDArray,
    states: States,
    cuts: Sequence[float],
    group: Group,
    average: Average | None = None,
    metrics: Sequence[str] = METRICS,
) -> list[Estimate]:
    """Measure and resample each marker's cells of a group, for macro averages all in one way; or all pooled."""
    parts = list(judged_cells(values, states, cuts, group.cells))
    if average == "pooled":
        parts, cuts = [pool(parts)], [cuts[0] if len(set(cuts)) == 1 else float("nan")]
    estimates = []
    for judged, cut in zip(parts, cuts, strict=True):
        point = measure(judged, metrics) | {"threshold": cut}
        if not len(group.weights):
            estimates.append(Estimate(point))
            continue
        unit, weights = group.region[judged.cells], group.weights
        regions = np.unique(unit)
        units, resampled = len(regions), _choose(group.regions if average == "macro" else regions)
        if resampled == "cells":
            place, weights = group.drawn_cells
            unit, units = place[judged.cells], len(np.unique(judged.cells))
        estimates.append(Estimate(point, resample(judged, unit, weights, metrics), units, len(regions), resampled))
    return estimates


def macro_averages(parts: Sequence[Sequence[Estimate]], groups: Sequence[Group], whole: Group) -> list[Estimate]:
    """Average over the markers of each group, then over groups; what lacks a metric does not count for it.

    Where each group lies in one region, regions are resampled by weighting the groups. Otherwise the draws of the
    groups are averaged, and the group with the fewest units widens the interval.
    """
    means = []
    for markers, group in zip(parts, groups, strict=True):
        regions, resampled = len(group.regions), _choose(group.regions)
        units = regions if resampled == "regions" else max(marker.units for marker in markers)
        means.append(Estimate(*_average(markers), units, regions, resampled))
    point, draws = _average(means)
    regions, units = len(whole.regions), min(mean.units for mean in means)
    resampled = "regions" if all(mean.resampled == "regions" for mean in means) else "cells"
    if _choose(whole.regions) == "regions" and all(len(group.regions) <= 1 for group in groups):
        placed = [(mean, group.regions[0]) for mean, group in zip(means, groups, strict=True) if len(group.regions)]
        weights = whole.weights[:, [region for _, region in placed]].T
        for name in draws:
            points = np.array([mean.point[name] for mean, _ in placed])[:, None]
            draws[name] = _mean(np.broadcast_to(points, weights.shape), weights)
        units, resampled = regions, "regions"
    return [*means, Estimate(point, draws, units, regions, resampled)]


def _average(parts: Sequence[Estimate]) -> tuple[dict[str, float], dict[str, NDArray]]:
    """Sum cells and positives, keep a threshold that all have, average the other figures and draws."""
    columns = {name: [part.point[name] for part in parts] for name in parts[0].point}
    point = {name: float(_mean(np.array(column, float))) for name, column in columns.items()}
    cuts = set(columns["threshold"])
    point["threshold"] = cuts.pop() if len(cuts) == 1 else float("nan")
    point |= {name: sum(columns[name]) for name in ("cells", "positives")}
    return point, {name: _mean(np.stack([part.draws[name] for part in parts])) for name in parts[0].draws}


def _mean(values: NDArray, weights: NDArray | None = None) -> NDArray:
    """Average finite values over the first axis; NaN where there is none."""
    return np.ma.filled(np.ma.average(np.ma.masked_invalid(values), axis=0, weights=weights), np.nan)
