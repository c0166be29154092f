"""The shape of a layer's distribution: two clear groups of cells, or one long slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.stats import kurtosis, skew

from nimbus_sd import keys
from nimbus_sd._table import as_list, judged, truth_layer
from nimbus_sd._table import layer as read_layer
from nimbus_sd.metrics._fitted import warn_if_fitted

if TYPE_CHECKING:
    from anndata import AnnData

#: Fewer cells, of all or of one class, have no shape.
FEWEST = 10
_GRID = 256


def score_shape(
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str | None = None,
    *,
    middle: tuple[float, float] = (0.25, 0.75),
    likely: bool = True,
) -> pd.DataFrame:
    """Measure how clearly a layer parts positive from negative cells.

    As in Fig. 5 of Rumberger et al.

    Parameters
    ----------
    adata
        Cells x channels.
    pred
        Layer of scores or of any values, or several.
    truth
        Layer of labels: above 0.5 positive, below negative; 0.5 (undetermined) and NaN are left out. None goes without
        ``overlap``.
    middle
        Scores in this range, ends included, say neither yes nor no.
    likely
        Whether to use the labels 0.25 and 0.75 (likely negative and positive).

    Returns
    -------
    DataFrame
        One row per channel and one, ``"all"``, of all channels' cells together; of several layers, the layer is the
        first level of the index.

        - ``cells``: with a value
        - ``bimodality``: Sarle's coefficient with the correction for sample size, in (0, 1]; a uniform distribution
          has 0.555, two far groups come near 1. A single skewed group may have a high one too.
        - ``overlap``: area under both classes' densities, in [0, 1], 0 if they are apart. Densities are Gaussian
          kernel estimates (Scott's bandwidth per class, mirrored at the ends) on a grid of 256 bins over the range
          of the values.
        - ``middle``: share of cells in the uncertain middle; NaN if values are outside [0, 1]

        NaN with fewer than 10 cells (``overlap``: of either class); ``bimodality`` and ``overlap`` also where all
        values are the same.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If ``middle`` is not a range within [0, 1], or the truth judges no cell.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.metrics.score_shape(adata, "gold", "gold").loc["CD3", "overlap"].round(2).item()
    0.0
    """
    low, high = middle
    if not 0 <= low <= high <= 1:
        raise ValueError(f"`middle` is {middle}; it must be two numbers in [0, 1], the smaller one first.")
    labels = None if truth is None else truth_layer(adata, truth, likely=likely)
    known = None if labels is None else judged(labels, likely=likely)
    tables = {}
    for name in as_list(pred):
        values = read_layer(adata, name)
        if known is not None:
            warn_if_fitted(adata, name, np.asarray(known.any(axis=1)))
        rows = []
        for i in (*range(adata.n_vars), slice(None)):
            one = values[:, i]
            there = np.isfinite(one)
            state = None
            if labels is not None and known is not None:
                # 1 positive, 0 negative, -1 not judged.
                state = np.where(known[:, i], labels[:, i] > 0.5, -1)[there]
            rows.append(_shape(one[there].astype(np.float64), state, (low, high)))
        tables[name] = pd.DataFrame(rows, index=[*adata.var_names, "all"])
    if isinstance(pred, str):
        return tables[pred].rename_axis("channel")
    return pd.concat(tables, names=["layer", "channel"])


def _shape(values: NDArray, state: NDArray | None, middle: tuple[float, float]) -> dict[str, float]:
    enough = values.size >= FEWEST
    spread = enough and values.max() > values.min()
    within = enough and values.min() >= 0 and values.max() <= 1
    return {
        "cells": values.size,
        "bimodality": _bimodality(values) if spread else float("nan"),
        "overlap": _overlap(values, state) if spread and state is not None else float("nan"),
        "middle": float(((values >= middle[0]) & (values <= middle[1])).mean()) if within else float("nan"),
    }


def _bimodality(values: NDArray) -> float:
    n = values.size
    correction = 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return float((skew(values, bias=False) ** 2 + 1) / (kurtosis(values, bias=False) + correction))


def _overlap(values: NDArray, state: NDArray) -> float:
    edges = np.linspace(values.min(), values.max(), _GRID + 1)
    densities = []
    for group in (0, 1):
        own = values[state == group]
        if own.size < FEWEST:
            return float("nan")
        counts = np.histogram(own, edges)[0] / own.size
        bandwidth = own.std(ddof=1) * own.size**-0.2
        # Not finer than the grid.
        width = max(1.0, bandwidth / (edges[1] - edges[0]))
        densities.append(gaussian_filter1d(counts, width, mode="reflect"))
    return float(np.minimum(*densities).sum())
