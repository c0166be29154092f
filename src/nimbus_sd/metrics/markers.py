"""How well a layer agrees with the truth, marker by marker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
        Cells at or above it are called positive. ``"otsu"`` takes Otsu's threshold of the layer's values in each
        channel, what labs often do with integrated expression.

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

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> float(ns.metrics.marker_metrics(adata, pred="gold").loc["CD3", "f1"])
    1.0
    """
    for layer in (pred, truth):
        if layer not in adata.layers:
            raise KeyError(
                f"There is no layer {layer!r}; there are {sorted(k for k in adata.layers if k is not None)}."
            )
    values, labels = np.asarray(adata.layers[pred]), np.asarray(adata.layers[truth])
    rows = {name: _metrics(values[:, i], labels[:, i], threshold) for i, name in enumerate(adata.var_names)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _metrics(values: NDArray, labels: NDArray, threshold: float | Literal["otsu"]) -> dict[str, float]:
    from skimage.filters import threshold_otsu
    from sklearn.metrics import confusion_matrix

    judged = np.isfinite(values) & np.isfinite(labels) & (labels != 0.5)
    values, positive = values[judged], labels[judged] > 0.5
    if threshold == "otsu":
        cut = float(threshold_otsu(values)) if np.unique(values).size > 1 else np.inf
        called = values > cut
    else:
        cut, called = float(threshold), values >= float(threshold)
    (tn, fp), (fn, tp) = confusion_matrix(positive, called, labels=[False, True])
    return {
        "cells": len(values),
        "share_positive": _ratio(tp + fn, len(values)),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else float("nan"),
        "threshold": cut,
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
