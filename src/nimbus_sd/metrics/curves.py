"""Curves of scores against the truth, as long tables: metrics by threshold, ROC, precision and recall, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, outside_unit_interval, stack_layers, truth_states
from nimbus_sd.metrics.judged import RATES, Judged, Names, States, judged_cells, pool, rates, warn_if_fitted, with_value

Curve: TypeAlias = Callable[[Judged], Sequence[NDArray]]
Pooled: TypeAlias = Literal["pooled"] | None
Scored: TypeAlias = tuple[str, NDArray, States]

# Steps of a threshold between the least and the largest value.
_STEPS = 100
# Points of a curve that are kept, for a picture.
_POINTS = 1000


def threshold_curve(
    adata: AnnData,
    pred: Names = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    thresholds: ArrayLike | None = None,
    average: Pooled = None,
    likely: bool = True,
) -> pd.DataFrame:
    """Compute metrics at many thresholds.

    Parameters
    ----------
    adata, truth, likely
        As for :func:`marker_metrics`.
    pred
        Layer, or several.
    thresholds
        Cells at or above are called positive; in units of the layer. By default 101 in equal steps: from 0 to 1
        where all values of the curve's cells lie there, and from their least to their largest value elsewhere.
    average
        ``"pooled"`` puts the cells of all markers together; for layers whose markers share a scale.

    Returns
    -------
    DataFrame
        One row per layer, channel and threshold, numbered: ``layer``, ``channel`` (``"all"`` if pooled),
        ``threshold``, ``precision``, ``recall``, ``specificity``, ``f1``, ``accuracy``; NaN as in
        :func:`marker_metrics`. A channel without a judged cell has one row, of NaN.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> curve = ns.metrics.threshold_curve(adata, "gold", thresholds=[0.5, 1.1])
    >>> curve.loc[curve["channel"] == "CD3", "recall"].tolist()
    [1.0, 0.0]
    """

    def curve(judged: Judged) -> Sequence[NDArray]:
        if not judged.values.size:
            return ()
        low, high = judged.values.min(), judged.values.max()
        if low >= 0 and high <= 1:
            low, high = 0, 1
        cuts = np.linspace(low, high, _STEPS + 1) if thresholds is None else np.ravel(np.asarray(thresholds, float))
        # In the layer's own precision, as a single threshold is compared.
        layer_cuts = cuts.astype(np.result_type(judged.values.dtype, np.float16))
        positive, negative = np.sort(judged.values[judged.positive]), np.sort(judged.values[~judged.positive])
        fn, tn = np.searchsorted(positive, layer_cuts), np.searchsorted(negative, layer_cuts)
        return (cuts, *rates(tn, negative.size - tn, fn, positive.size - fn).values())

    return _curves(adata, pred, truth, average, likely, curve, ("threshold", *RATES))


def roc_curve(
    adata: AnnData, pred: Names = keys.NIMBUS, truth: str = keys.GOLD, *, average: Pooled = None, likely: bool = True
) -> pd.DataFrame:
    """Compute ROC curves.

    Parameters
    ----------
    adata, pred, truth, average, likely
        As for :func:`threshold_curve`.

    Returns
    -------
    DataFrame
        One row per layer, channel and point, numbered: ``layer``, ``channel`` (``"all"`` if pooled), ``threshold``
        (falling, from infinity), ``false_positive_rate``, ``true_positive_rate``. Points on a straight line are left
        out, and at most 1000 kept. A channel without positive or without negative cells has one row, of NaN.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> curve = ns.metrics.roc_curve(adata, "gold", likely=False)
    >>> curve.loc[curve["channel"] == "CD3", "true_positive_rate"].tolist()
    [0.0, 1.0, 1.0]
    """

    def curve(judged: Judged) -> Sequence[NDArray]:
        if judged.positive.all() or not judged.positive.any():
            return ()
        false, true, cuts = metrics.roc_curve(judged.positive, judged.values)
        return cuts, false, true

    columns = ("threshold", "false_positive_rate", "true_positive_rate")
    return _curves(adata, pred, truth, average, likely, curve, columns)


def pr_curve(
    adata: AnnData, pred: Names = keys.NIMBUS, truth: str = keys.GOLD, *, average: Pooled = None, likely: bool = True
) -> pd.DataFrame:
    """Compute precision-recall curves.

    Parameters
    ----------
    adata, pred, truth, average, likely
        As for :func:`threshold_curve`.

    Returns
    -------
    DataFrame
        One row per layer, channel and point, numbered: ``layer``, ``channel`` (``"all"`` if pooled), ``threshold``
        (rising, to infinity), ``recall``, ``precision``. Points between two of the same recall are left out, and at
        most 1000 kept. A channel without positive cells has one row, of NaN.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> curve = ns.metrics.pr_curve(adata, "gold", likely=False)
    >>> curve.loc[curve["channel"] == "CD3", "recall"].tolist()
    [1.0, 1.0, 0.0]
    """

    def curve(judged: Judged) -> Sequence[NDArray]:
        if not judged.positive.any():
            return ()
        precision, recall, cuts = metrics.precision_recall_curve(judged.positive, judged.values, drop_intermediate=True)
        return np.append(cuts, np.inf), recall, precision

    return _curves(adata, pred, truth, average, likely, curve, ("threshold", "recall", "precision"))


def _curves(
    adata: AnnData, pred: Names, truth: str, average: str | None, likely: bool, curve: Curve, columns: Sequence[str]
) -> pd.DataFrame:
    """Put the curves of all layers and channels below each other; one row of NaN where ``curve`` returns nothing."""
    if average not in (None, "pooled"):
        raise ValueError(f"`average` is {average!r}; it must be None or 'pooled'.")
    states = truth_states(adata, truth, likely=likely)
    tables = []
    for name in as_list(pred):
        values = layer(adata, name)
        parts = judged_cells(values, with_value(states, values, name), [0.0] * adata.n_vars)
        curves = [("all", pool(parts))] if average == "pooled" else zip(adata.var_names, parts, strict=True)
        for channel, judged in curves:
            points = pd.DataFrame(dict(zip(columns, curve(judged) or np.full((len(columns), 1), np.nan), strict=True)))
            kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), _POINTS)).round().astype(int))
            points.insert(0, "channel", channel)
            points.insert(0, "layer", name)
            tables.append(points.iloc[kept])
    return pd.concat(tables, ignore_index=True)


def calibration_curve(
    adata: AnnData,
    pred: Names = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    n_bins: int = 10,
    likely: bool = True,
    by_channel: bool = False,
) -> pd.DataFrame:
    """Compute the share of positive cells among those of about the same score: the reliability curve.

    Parameters
    ----------
    adata, truth, likely
        As for :func:`marker_metrics`.
    pred
        Layer of scores in [0, 1], or several.
    n_bins
        Number of bins of equal width; a bin holds its lower edge, the last one 1 as well.
    by_channel
        A curve for each channel instead of one of all channels' cells together.

    Returns
    -------
    DataFrame
        One row per layer, channel and bin: ``layer``, ``channel`` ("all" for all together), ``bin`` (from 0),
        ``score`` (mean), ``observed`` (share of positive cells), ``cells``. Both are NaN in an empty bin.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.metrics.calibration_curve(adata, "gold", n_bins=2)[["score", "observed"]].to_numpy().tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    tables = []
    for name, scores, states in _scores(adata, pred, truth, likely, n_bins):
        parts = zip(adata.var_names, scores.T, states.T, strict=True) if by_channel else [("all", scores, states)]
        for channel, score, state in parts:
            judged = state >= 0
            count, mean, observed = _binned(score[judged], state[judged] == 1, np.ones(judged.sum()), n_bins)
            figures = {"bin": range(n_bins), "score": mean, "observed": observed, "cells": count.astype(int)}
            tables.append(pd.DataFrame({"layer": name, "channel": channel, **figures}))
    return pd.concat(tables, ignore_index=True)


def calibration_error(
    adata: AnnData, pred: Names = keys.NIMBUS, truth: str = keys.GOLD, *, n_bins: int = 10, likely: bool = True
) -> pd.DataFrame:
    """Measure how far scores are from the share of positive cells.

    Parameters
    ----------
    adata, pred, truth, n_bins, likely
        As for :func:`calibration_curve`.

    Returns
    -------
    DataFrame
        One row per channel and one, ``"all"``, of all channels' cells together; of several layers, the layer is the
        first level of the index.

        - ``cells``, ``positives``: judged cells with a score
        - ``brier``: mean squared difference of score and truth
        - ``ece``: expected calibration error, the difference of mean score and share of positive cells in a bin,
          averaged over bins by their cells
        - ``ece_balanced``: the same with both classes weighted equally, so that the few positive cells of a rare
          marker count; NaN without both classes. Scores that are right about its share are too low by this measure.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.metrics.calibration_error(adata, "gold").loc["CD3", ["brier", "ece"]].to_list()
    [0.0, 0.0]
    """
    tables = {}
    for name, scores, states in _scores(adata, pred, truth, likely, n_bins):
        judged = states >= 0
        parts = [*zip(scores.T, states.T, judged.T, strict=True), (scores, states, judged)]
        rows = [_errors(score[used], state[used] == 1, n_bins) for score, state, used in parts]
        tables[name] = pd.DataFrame(rows, index=[*adata.var_names, "all"])
    return stack_layers(tables, pred)


def _scores(adata: AnnData, pred: Names, truth: str, likely: bool, n_bins: int) -> Iterator[Scored]:
    """Yield each layer's name, its scores, and the truth where it has a score."""
    if n_bins < 1:
        raise ValueError(f"`n_bins` is {n_bins}; it must be at least 1.")
    states = truth_states(adata, truth, likely=likely)
    for name in as_list(pred):
        scores = layer(adata, name)
        if outside_unit_interval(scores).any():
            raise ValueError(f"Layer {name!r} has values outside [0, 1]: only scores can be calibrated.")
        judged = np.where(np.isfinite(scores), states, np.int8(-1))
        # Shown at the caller of the public function, past this generator.
        warn_if_fitted(adata, name, judged, stacklevel=4)
        yield name, scores, judged


def _binned(score: NDArray, positive: NDArray, weight: NDArray, n_bins: int) -> tuple[NDArray, NDArray, NDArray]:
    """Weight, mean score and share of positives of each bin."""
    bins = np.minimum((score.astype(np.float64) * n_bins).astype(int), n_bins - 1)
    total, sum_score, sum_positive = (
        np.bincount(bins, values, minlength=n_bins) for values in (weight, weight * score, weight * positive)
    )
    with np.errstate(invalid="ignore"):
        return total, sum_score / total, sum_positive / total


def _errors(score: NDArray, positive: NDArray, n_bins: int) -> dict[str, float]:
    n, n_positive = len(score), int(positive.sum())
    errors = dict.fromkeys(("brier", "ece", "ece_balanced"), float("nan"))
    weights = {}
    if n:
        errors["brier"] = float(metrics.brier_score_loss(positive, score, pos_label=True))
        weights["ece"] = np.ones(n)
    if 0 < n_positive < n:
        weights["ece_balanced"] = np.where(positive, 1 / n_positive, 1 / (n - n_positive))
    for name, weight in weights.items():
        total, mean, observed = _binned(score, positive, weight, n_bins)
        errors[name] = float(np.nansum(total * np.abs(mean - observed)) / total.sum())
    return {"cells": n, "positives": n_positive, **errors}
