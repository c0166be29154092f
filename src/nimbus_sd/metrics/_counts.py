"""Figures of one set of judged cells: confusion counts, and how well values rank positive above negative cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import auc, roc_curve

METRICS = ("precision", "recall", "specificity", "f1", "accuracy", "auroc", "average_precision")
RATES = METRICS[:5]

# Numbers in one block of resampled sums: 16 MB.
_BLOCK = 2_000_000


class Judged(NamedTuple):
    """Cells that have a label and a value, in one channel or in several together; arrays of one length."""

    cells: NDArray[np.intp]
    values: NDArray
    positive: NDArray[np.bool_]
    called: NDArray[np.bool_]


def pool(parts: Sequence[Judged]) -> Judged:
    """Put the cells of all channels together."""
    return Judged(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def measure(one: Judged, metrics: Sequence[str] = METRICS) -> dict[str, float]:
    """Cells, positives, their share, and metrics."""
    found = rates(*np.bincount(_outcome(one), minlength=4))
    if set(metrics) - set(RATES):
        found |= dict(zip(METRICS[5:], _ranking(one.values, one.positive), strict=True))
    positives, cells = int(one.positive.sum()), len(one.positive)
    share = positives / cells if cells else float("nan")
    return {
        "cells": cells,
        "positives": positives,
        "share_positive": share,
        **{name: float(found[name]) for name in metrics},
    }


def resample(
    one: Judged, unit: NDArray[np.intp], weights: NDArray, metrics: Sequence[str] = METRICS
) -> dict[str, NDArray]:
    """Compute metrics in every draw of units (regions or cells).

    ``unit`` says which one each cell of ``one`` belongs to, ``weights`` (draws x units) how often each is drawn.
    """
    ranks = _RankSums(one, unit, weights.shape[1]) if set(metrics) - set(RATES) else None
    counts = _sums(_outcome(one), unit, (4, weights.shape[1]))
    draws: dict[str, list[NDArray]] = {name: [] for name in metrics}
    for drawn in _blocks(weights, ranks.levels if ranks else 4):
        found = rates(*(counts @ drawn))
        if ranks:
            found |= dict(zip(METRICS[5:], ranks(drawn), strict=True))
        for name in metrics:
            draws[name].append(found[name])
    return {name: np.concatenate(blocks) for name, blocks in draws.items()}


def _blocks(weights: NDArray, levels: int) -> Iterator[NDArray[np.float64]]:
    """Draws in blocks that fit into memory, units x draws."""
    size = max(1, _BLOCK // max(levels, weights.shape[1], 1))
    for start in range(0, len(weights), size):
        yield weights[start : start + size].T.astype(np.float64, order="C")


def _outcome(one: Judged) -> NDArray[np.intp]:
    """0 true negative, 1 false positive, 2 false negative, 3 true positive."""
    return 2 * one.positive.astype(np.intp) + one.called


def rates(tn: NDArray, fp: NDArray, fn: NDArray, tp: NDArray) -> dict[str, NDArray]:
    """Rates of counts; NaN without cells to compute one from, and all but specificity without positives."""
    positives = tp + fn
    # Who calls nobody, though there is somebody to call, has a precision of 0 and not none: it counts in averages.
    calls = np.where(positives > 0, np.maximum(tp + fp, 1), 0)
    return {
        "precision": _ratio(tp, calls),
        "recall": _ratio(tp, positives),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, np.where(positives > 0, positives + tp + fp, 0)),
        "accuracy": _ratio(tp + tn, np.where(positives > 0, positives + tn + fp, 0)),
    }


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _ranking(values: NDArray, positive: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Area under the ROC curve and average precision, of one sort."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return np.array(np.nan), np.array(1.0 if positives else np.nan)
    false, true, _ = roc_curve(positive, values, drop_intermediate=False)
    precision = true[1:] * positives / (true[1:] * positives + false[1:] * negatives)
    return np.array(auc(false, true)), np.array(np.diff(true) @ precision)


class _RankSums:
    """AUROC and average precision under weights of units, from sums at each value that a positive cell has.

    A positive cell of value v adds to AUROC the negative cells below v (and half of those at v), to average
    precision the precision of calling v and above.
    """

    def __init__(self, one: Judged, unit: NDArray[np.intp], units: int) -> None:
        ours, theirs = one.values[one.positive], one.values[~one.positive]
        values, level = np.unique(ours, return_inverse=True)
        self.levels = len(values)
        shape = (self.levels, units)
        self._positive = _sums(level, unit[one.positive], shape)
        # Negative cells reach all levels up to this one; -1: none.
        reach = np.searchsorted(values, theirs, side="right") - 1
        reaches = reach >= 0
        reach, of = reach[reaches], unit[~one.positive][reaches]
        ties = values[reach] == theirs[reaches]
        self._reaching, self._tied = _sums(reach, of, shape), _sums(reach[ties], of[ties], shape)
        self._negatives = np.bincount(unit[~one.positive], minlength=units)

    def __call__(self, drawn: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """Both, for draws in columns."""
        here, tied = self._positive @ drawn, self._tied @ drawn
        true = np.cumsum(here[::-1], axis=0)[::-1]
        false = np.cumsum((self._reaching @ drawn)[::-1], axis=0)[::-1]
        negatives, positives = self._negatives @ drawn, here.sum(axis=0)
        won = (here * (negatives - false + tied / 2)).sum(axis=0)
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        return _ratio(won, positives * negatives), _ratio((here * precision).sum(axis=0), positives)


def _sums(row: NDArray[np.intp], unit: NDArray[np.intp], shape: tuple[int, int]) -> sparse.csr_array:
    """Count cells by row and unit."""
    return sparse.csr_array((np.ones(len(row)), (row, unit)), shape=shape)
