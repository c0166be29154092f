"""Whether a score of 0.8 means that four cells of five are positive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, outside_unit_interval, stack_layers, truth_states
from nimbus_sd.metrics.judged import warn_if_fitted


def calibration_curve(
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
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
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    n_bins: int = 10,
    likely: bool = True,
) -> pd.DataFrame:
    """Measure how far scores are from the share of positive cells.

    Parameters
    ----------
    adata, pred, truth, n_bins, likely
        As for :func:`calibration_curve`, as are errors and warnings.

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


def _scores(
    adata: AnnData, pred: str | Sequence[str], truth: str, likely: bool, n_bins: int
) -> Iterator[tuple[str, NDArray, NDArray[np.int8]]]:
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
    n, n_positive = len(score), int(positive.sum())
    errors = dict.fromkeys(("brier", "ece", "ece_balanced"), float("nan"))
    weights = {}
    if n:
        errors["brier"] = float(brier_score_loss(positive, score, pos_label=True))
        weights["ece"] = np.ones(n)
    if 0 < n_positive < n:
        weights["ece_balanced"] = np.where(positive, 1 / n_positive, 1 / (n - n_positive))
    for name, weight in weights.items():
        total, mean, observed = _binned(score, positive, weight, n_bins)
        errors[name] = float(np.nansum(total * np.abs(mean - observed)) / total.sum())
    return {"cells": n, "positives": n_positive, **errors}
