"""A figure with its draws, and averages of such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.metrics._counts import METRICS, Judged, measure, resample
from nimbus_sd.metrics._frame import Group
from nimbus_sd.metrics.bootstrap import Resampled, share_interval


@dataclass(frozen=True)
class Estimate:
    """One row of a result: its figures, and draws of the metrics among them if any were made."""

    point: dict[str, float]
    draws: dict[str, NDArray] | None = None
    units: int = 0
    regions: int = 0
    resampled: Resampled = "regions"

    def row(self) -> dict[str, float | str]:
        """Columns of the result."""
        row: dict[str, float | str] = dict(self.point)
        if self.draws is not None:
            for name, draws in self.draws.items():
                row[f"{name}_low"], row[f"{name}_high"] = share_interval(self.point[name], draws, self.units)
            row |= {"n_regions": self.regions, "resampled": self.resampled}
        return row


def estimate(
    one: Judged, cut: float, group: Group, resampled: Resampled | None = None, metrics: Sequence[str] = METRICS
) -> Estimate:
    """Measure some cells of a group, and resample them."""
    point = measure(one, metrics) | {"threshold": cut}
    if group.sample is None:
        return Estimate(point)
    units = group.sample.units(one.cells, resampled)
    draws = resample(one, units.unit, units.weights, metrics)
    return Estimate(point, draws, units.size, units.regions, units.resampled)


def macro(parts: Sequence[Estimate], group: Group) -> Estimate:
    """Average over the markers of a group; those without a metric do not count for it."""
    sample = group.sample
    if sample is None:
        return Estimate(_average(parts))
    regions = len(sample.regions)
    units = regions if sample.resampled == "regions" else max(part.units for part in parts)
    return Estimate(_average(parts), _average_draws(parts), units, regions, sample.resampled)


def mean(parts: Sequence[Estimate], groups: Sequence[Group], whole: Group) -> Estimate:
    """Average over groups.

    Where each group lies in one region, regions are resampled by weighting the groups. Otherwise the draws of the
    groups are averaged, and the group with the fewest units widens the interval.
    """
    point = _average(parts)
    if whole.sample is None:
        return Estimate(point)
    regions = len(whole.sample.regions)
    places = [group.sample.regions for group in groups if group.sample is not None]
    if whole.sample.resampled == "regions" and all(len(place) <= 1 for place in places):
        judged = [number for number, place in enumerate(places) if len(place)]
        weights = whole.sample.weights[:, [places[number][0] for number in judged]]
        return Estimate(point, _weighted([parts[number] for number in judged], weights), regions, regions, "regions")
    resampled: Resampled = "regions" if all(part.resampled == "regions" for part in parts) else "cells"
    return Estimate(point, _average_draws(parts), min(part.units for part in parts), regions, resampled)


def nanmean(values: NDArray, weights: NDArray | None = None) -> NDArray:
    """Mean over the first axis of what is known, NaN where nothing is."""
    whole = np.isfinite(values) * (1.0 if weights is None else weights)
    total, count = (np.where(whole > 0, values, 0) * whole).sum(axis=0), whole.sum(axis=0)
    return np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)


def _average(parts: Sequence[Estimate]) -> dict[str, float]:
    """Sum cells and positives, keep a threshold that all have, average the rest."""
    table = {name: [part.point[name] for part in parts] for name in parts[0].point}
    figures = {name: float(nanmean(np.array(column, float))) for name, column in table.items()}
    cuts = set(table["threshold"])
    return figures | {
        "cells": sum(table["cells"]),
        "positives": sum(table["positives"]),
        "threshold": cuts.pop() if len(cuts) == 1 else float("nan"),
    }


def _average_draws(parts: Sequence[Estimate]) -> dict[str, NDArray]:
    draws = [part.draws for part in parts if part.draws is not None]
    return {name: nanmean(np.stack([one[name] for one in draws])) for name in draws[0]}


def _weighted(parts: Sequence[Estimate], weights: NDArray) -> dict[str, NDArray]:
    """Draws of means over groups, ``weights`` being draws x groups."""
    points = {name: np.array([part.point[name] for part in parts]) for name in parts[0].draws or ()}
    return {name: nanmean(np.broadcast_to(value, weights.shape).T, weights.T) for name, value in points.items()}
