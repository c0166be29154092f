"""Whether a score of 0.8 means that four cells of five are positive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, judged, outside_unit_interval, truth_layer
from nimbus_sd._table import layer as read_layer
from nimbus_sd.metrics._fitted import warn_if_fitted

if TYPE_CHECKING:
    from anndata import AnnData

_ALL = "all"


def calibration_curve(
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    n_bins: int = 10,
    likely: bool = True,
    by_channel: bool = False,
) -> pd.DataFrame:
    """Share of positive cells among those of about the same score: the reliability curve.

    Parameters
    ----------
    adata
        Cells x channels.
    pred
        Layer of scores in [0, 1], or several.
    truth
        Layer of labels: above 0.5 positive, below negative; 0.5 (undetermined) and NaN are left out.
    n_bins
        Number of bins of equal width; a bin holds its lower edge, the last one 1 as well.
    likely
        Whether to use the labels 0.25 and 0.75 (likely negative and positive).
    by_channel
        A curve for each channel instead of one of all channels' cells together.

    Returns
    -------
    DataFrame
        One row per layer, channel and bin: ``layer``, ``channel`` ("all" for all together), ``bin`` (from 0),
        ``score`` (mean), ``observed`` (share of positive cells), ``cells``. Both are NaN in an empty bin.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If scores are outside [0, 1], the truth judges no cell, or ``n_bins`` is below 1.

    Warns
    -----
    UserWarning
        If a layer is judged on cells that :func:`nimbus_sd.tl.calibrate` or :func:`nimbus_sd.tl.adapt` fitted it on.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.metrics.calibration_curve(adata, "gold", n_bins=2)[["score", "observed"]].to_numpy().tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if n_bins < 1:
        raise ValueError(f"`n_bins` is {n_bins}; it must be at least 1.")
    rows = []
    for name, scores, labels, known in _layers(adata, pred, truth, likely):
        columns = [[i] for i in range(adata.n_vars)] if by_channel else [list(range(adata.n_vars))]
        for channels in columns:
            used = known[:, channels]
            score, positive = scores[:, channels][used], labels[:, channels][used] > 0.5
            count, mean, observed = _binned(score, positive, np.ones(score.size), n_bins)
            channel = str(adata.var_names[channels[0]]) if by_channel else _ALL
            for number in range(n_bins):
                rows.append((name, channel, number, mean[number], observed[number], int(count[number])))
    return pd.DataFrame(rows, columns=["layer", "channel", "bin", "score", "observed", "cells"])


def calibration_error(
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    n_bins: int = 10,
    likely: bool = True,
) -> pd.DataFrame:
    """How far scores are from the share of positive cells.

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
        - ``ece_balanced``: the same with both classes weighted equally, as if half of the cells were positive, so
          that the few positive cells of a rare marker count; NaN without both classes. Scores that are right about a
          rare marker's share are too low by this measure.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If scores are outside [0, 1], the truth judges no cell, or ``n_bins`` is below 1.

    Warns
    -----
    UserWarning
        If a layer is judged on cells that :func:`nimbus_sd.tl.calibrate` or :func:`nimbus_sd.tl.adapt` fitted it on.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.metrics.calibration_error(adata, "gold").loc["CD3", ["brier", "ece"]].to_list()
    [0.0, 0.0]
    """
    if n_bins < 1:
        raise ValueError(f"`n_bins` is {n_bins}; it must be at least 1.")
    tables = {}
    for name, scores, labels, known in _layers(adata, pred, truth, likely):
        rows = [_errors(scores[known[:, i], i], labels[known[:, i], i] > 0.5, n_bins) for i in range(adata.n_vars)]
        rows.append(_errors(scores[known], labels[known] > 0.5, n_bins))
        tables[name] = pd.DataFrame(rows, index=[*adata.var_names, _ALL])
    if isinstance(pred, str):
        return tables[pred].rename_axis("channel")
    return pd.concat(tables, names=["layer", "channel"])


def _layers(
    adata: AnnData, pred: str | Sequence[str], truth: str, likely: bool
) -> Iterator[tuple[str, NDArray, NDArray, NDArray[np.bool_]]]:
    """Each layer's name, its scores, the labels, and where both are known."""
    labels = truth_layer(adata, truth, likely=likely)
    for name in as_list(pred):
        scores = read_layer(adata, name)
        if outside_unit_interval(scores).any():
            raise ValueError(
                f"Layer {name!r} has values outside [0, 1]; calibration is for scores. For other values see "
                "nimbus_sd.metrics.marker_metrics."
            )
        known = judged(labels, likely=likely) & np.isfinite(scores)
        # Shown at the caller of the public function, past this generator.
        warn_if_fitted(adata, name, known.any(axis=1), stacklevel=4)
        yield name, scores, labels, known


def _binned(
    score: NDArray, positive: NDArray[np.bool_], weight: NDArray, n_bins: int
) -> tuple[NDArray, NDArray, NDArray]:
    """Weight, mean score and share of positives of each bin."""
    bins = np.minimum((score.astype(np.float64) * n_bins).astype(int), n_bins - 1)
    total, sum_score, sum_positive = (
        np.bincount(bins, values, minlength=n_bins) for values in (weight, weight * score, weight * positive)
    )
    with np.errstate(invalid="ignore"):
        return total, sum_score / total, sum_positive / total


def _errors(score: NDArray, positive: NDArray[np.bool_], n_bins: int) -> dict[str, float]:
    from sklearn.metrics import brier_score_loss

    n, n_positive = len(score), int(positive.sum())
    row = {"cells": n, "positives": n_positive}
    nothing = float("nan")
    if n == 0:
        return row | {"brier": nothing, "ece": nothing, "ece_balanced": nothing}
    balanced = nothing
    if 0 < n_positive < n:
        balanced = _ece(score, positive, np.where(positive, 1 / n_positive, 1 / (n - n_positive)), n_bins)
    brier = float(brier_score_loss(positive, score, pos_label=True))
    return row | {"brier": brier, "ece": _ece(score, positive, np.ones(n), n_bins), "ece_balanced": balanced}


def _ece(score: NDArray, positive: NDArray[np.bool_], weight: NDArray, n_bins: int) -> float:
    total, mean, observed = _binned(score, positive, weight, n_bins)
    return float(np.nansum(total * np.abs(mean - observed)) / total.sum())
