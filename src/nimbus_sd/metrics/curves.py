"""Metrics against the threshold, ROC and precision-recall curves, as long tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from nimbus_sd import keys
from nimbus_sd.metrics._counts import RATES, Judged, rates
from nimbus_sd.metrics._curve import curve_cells, curve_table

if TYPE_CHECKING:
    from anndata import AnnData

# Steps of a threshold between the least and the largest value.
_STEPS = 100


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
    adata
        Cells x channels.
    pred
        Layer, or several.
    truth
        Layer of labels, as for :func:`marker_metrics`.
    thresholds
        Cells at or above are called positive; in units of the layer. By default 101 in equal steps: from 0 to 1
        where all values of the curve's cells lie there, and from their least to their largest value elsewhere.
    average
        ``"pooled"`` puts the cells of all markers together; for layers whose markers share a scale.
    likely
        Whether cells labelled 0.75 and 0.25 count.

    Returns
    -------
    DataFrame
        One row per layer, channel and threshold, numbered: ``layer``, ``channel`` (``"all"`` if pooled),
        ``threshold``, ``precision``, ``recall``, ``specificity``, ``f1``, ``accuracy``; NaN as in
        :func:`marker_metrics`. A channel without a judged cell has one row, of NaN.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If labels are outside of [0, 1] or none says positive or negative.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> curve = ns.metrics.threshold_curve(adata, "gold", thresholds=[0.5, 1.1])
    >>> curve.loc[curve["channel"] == "CD3", "recall"].tolist()
    [1.0, 0.0]
    """

    def curve(one: Judged) -> dict[str, NDArray]:
        if not one.values.size:
            return {}
        low, high = one.values.min(), one.values.max()
        if low >= 0 and high <= 1:
            low, high = 0, 1
        cuts = np.linspace(low, high, _STEPS + 1) if thresholds is None else np.ravel(np.asarray(thresholds, float))
        # In the layer's own precision, as a single threshold is compared.
        cuts_here = cuts.astype(np.result_type(one.values.dtype, np.float16))
        ours, theirs = np.sort(one.values[one.positive]), np.sort(one.values[~one.positive])
        fn, tn = np.searchsorted(ours, cuts_here), np.searchsorted(theirs, cuts_here)
        return {"threshold": cuts, **rates(tn, theirs.size - tn, fn, ours.size - fn)}

    return curve_table(curve_cells(adata, pred, truth, average, likely), curve, ("threshold", *RATES))


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
    adata
        Cells x channels.
    pred
        Layer, or several.
    truth
        Layer of labels, as for :func:`marker_metrics`.
    average
        ``"pooled"`` puts the cells of all markers together; for layers whose markers share a scale.
    likely
        Whether cells labelled 0.75 and 0.25 count.

    Returns
    -------
    DataFrame
        One row per layer, channel and point, numbered: ``layer``, ``channel`` (``"all"`` if pooled), ``threshold``
        (falling, from infinity), ``false_positive_rate``, ``true_positive_rate``. Points on a straight line are left
        out, and at most 1000 kept. A channel without positive or without negative cells has one row, of NaN.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If labels are outside of [0, 1] or none says positive or negative.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> curve = ns.metrics.roc_curve(adata, "gold", likely=False)
    >>> curve.loc[curve["channel"] == "CD3", "true_positive_rate"].tolist()
    [0.0, 1.0, 1.0]
    """
    columns = ("threshold", "false_positive_rate", "true_positive_rate")

    def curve(one: Judged) -> dict[str, NDArray]:
        if one.positive.all() or not one.positive.any():
            return {}
        false, true, cuts = metrics.roc_curve(one.positive, one.values)
        return dict(zip(columns, (cuts, false, true), strict=True))

    return curve_table(curve_cells(adata, pred, truth, average, likely), curve, columns)


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
    adata
        Cells x channels.
    pred
        Layer, or several.
    truth
        Layer of labels, as for :func:`marker_metrics`.
    average
        ``"pooled"`` puts the cells of all markers together; for layers whose markers share a scale.
    likely
        Whether cells labelled 0.75 and 0.25 count.

    Returns
    -------
    DataFrame
        One row per layer, channel and point, numbered: ``layer``, ``channel`` (``"all"`` if pooled), ``threshold``
        (rising, to infinity), ``recall``, ``precision``. Points between two of the same recall are left out, and at
        most 1000 kept. A channel without positive cells has one row, of NaN.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If labels are outside of [0, 1] or none says positive or negative.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> curve = ns.metrics.pr_curve(adata, "gold", likely=False)
    >>> curve.loc[curve["channel"] == "CD3", "recall"].tolist()
    [1.0, 1.0, 0.0]
    """
    columns = ("threshold", "recall", "precision")

    def curve(one: Judged) -> dict[str, NDArray]:
        if not one.positive.any():
            return {}
        precision, recall, cuts = metrics.precision_recall_curve(one.positive, one.values, drop_intermediate=True)
        return dict(zip(columns, (np.append(cuts, np.inf), recall, precision), strict=True))

    return curve_table(curve_cells(adata, pred, truth, average, likely), curve, columns)
