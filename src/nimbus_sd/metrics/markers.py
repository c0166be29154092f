"""How well a layer agrees with the truth, marker by marker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from nimbus_sd import keys

if TYPE_CHECKING:
    from anndata import AnnData


def marker_metrics(
    adata: AnnData,
    pred: str = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    threshold: float | Literal["otsu"] = 0.5,
) -> pd.DataFrame:
    """Compare a layer with the truth (Rumberger et al., "Validation and benchmarking").

    Parameters
    ----------
    adata
        Cells x channels.
    pred
        Layer of scores, or of any values that are larger for positive cells.
    truth
        Layer of labels: above 0.5 positive, below 0.5 negative; 0.5 (undetermined) and NaN are left out.
    threshold
        Cells at or above it are called positive. ``"otsu"`` calls cells above Otsu's threshold of all the layer's
        values in the channel, judged or not: what labs often do with integrated expression.

    Returns
    -------
    DataFrame
        One row per channel: ``cells`` (with a label and a value), ``share_positive`` (of those, by the truth),
        ``precision``, ``recall``, ``specificity``, ``f1``, ``threshold``. A metric without cells to compute it
        from is NaN.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If ``threshold`` is neither a number nor ``"otsu"``.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> float(ns.metrics.marker_metrics(adata, pred="gold").loc["CD3", "f1"])
    1.0
    """
    if isinstance(threshold, str) and threshold != "otsu":
        raise ValueError(f"`threshold` is {threshold!r}; it must be a number or 'otsu'.")
    values, labels = _layer(adata, pred), _layer(adata, truth)
    rows = [_metrics(values[:, i], labels[:, i], threshold) for i in range(adata.n_vars)]
    return pd.DataFrame(rows, index=adata.var_names)


def _layer(adata: AnnData, name: str) -> NDArray:
    if name not in adata.layers:
        # anndata 0.13 lists X among the layers, under the key None.
        raise KeyError(f"There is no layer {name!r}; there are {sorted(key for key in adata.layers if key)}.")
    values = adata.layers[name]
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


def _metrics(values: NDArray, labels: NDArray, threshold: float | Literal["otsu"]) -> dict[str, float]:
    if threshold == "otsu":
        from skimage.filters import threshold_otsu

        finite = values[np.isfinite(values)]
        # Values that are all the same fall into one class, and nobody is above it.
        cut = float(threshold_otsu(finite)) if np.unique(finite).size > 1 else np.inf
        called = values > cut
    else:
        cut, called = float(threshold), values >= float(threshold)
    judged = np.isfinite(values) & np.isfinite(labels) & (labels != 0.5)
    called, positive = called[judged], labels[judged] > 0.5
    tp, fp = int((called & positive).sum()), int((called & ~positive).sum())
    fn, tn = int((~called & positive).sum()), int((~called & ~positive).sum())
    return {
        "cells": len(positive),
        "share_positive": _ratio(tp + fn, len(positive)),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else float("nan"),
        "threshold": cut,
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
