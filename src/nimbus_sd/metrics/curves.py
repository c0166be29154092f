"""Metrics against the threshold, ROC and precision-recall curves, as long tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, truth_states
from nimbus_sd.metrics.judged import RATES, Judged, judged_cells, pool, rates, with_value

# Steps of a threshold between the least and the largest value.
_STEPS = 100
# Points of a curve that are kept, for a picture.
_POINTS = 1000


def threshold_curve(
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    thresholds: ArrayLike | None = None,
    average: Literal["pooled"] | None = None,
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
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    average: Literal["pooled"] | None = None,
    likely: bool = True,
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
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    average: Literal["pooled"] | None = None,
    likely: bool = True,
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
    adata: AnnData,
    pred: str | Sequence[str],
    truth: str,
    average: Literal["pooled"] | None,
    likely: bool,
    curve: Callable[[Judged], Sequence[NDArray]],
    columns: Sequence[str],
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
            points = points.iloc[kept]
            points.insert(0, "channel", channel)
            points.insert(0, "layer", name)
            tables.append(points)
    return pd.concat(tables, ignore_index=True)
