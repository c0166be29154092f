"""How wrong silver labels are, where cells were judged by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd.metrics import marker_metrics

if TYPE_CHECKING:
    from anndata import AnnData


def silver_noise(
    adata: AnnData,
    *,
    silver: str = keys.SILVER,
    gold: str = keys.GOLD,
    by: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Measure the noise of silver labels against gold ones, the noisiest marker first.

    As in Fig. 2d of Rumberger et al.

    Parameters
    ----------
    adata
        Cells x channels.
    silver, gold
        Layers of labels. Cells that either of them leaves out (0.5, NaN) do not count.
    by
        Column of ``obs``, or several: noise of each group of cells. Types show errors that come as a block: a type's
        marker that is wrong in the matrix.

    Returns
    -------
    DataFrame
        One row per marker, and group if asked for, that has a cell to compare: ``cells``, ``positives`` (by gold),
        ``wrong`` (share of silver labels), ``wrong_positives`` (share of the silver positive cells that gold calls
        negative), ``missed_positives`` (share of the gold positive cells that silver calls negative), and of
        :func:`nimbus_sd.metrics.marker_metrics` ``precision``, ``recall``, ``specificity``, ``f1``.

    Raises
    ------
    KeyError
        If a layer or a column does not exist.
    ValueError
        If gold labels say nothing.

    Examples
    --------
    >>> import pandas as pd
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.labels.silver(adata, pd.DataFrame({"CD8": [1, 1, 0, 0, 0, 0]}, index=[
    ...     "CD4 T cell", "CD8 T cell", "B cell", "macrophage", "epithelium", "other"]))
    >>> noise = ns.labels.silver_noise(adata, by="cell_type")
    >>> noise.index[0], float(noise["wrong"].iloc[0])
    (('CD4 T cell', 'CD8'), 1.0)
    """
    found = marker_metrics(adata, silver, gold, threshold=0.5, by=by)
    found = found[found["cells"] > 0]
    true = (found["recall"] * found["positives"]).fillna(0).round()
    negatives = found["cells"] - found["positives"]
    false = ((1 - found["specificity"]) * negatives).fillna(0).round()
    missed = found["positives"] - true
    called = (true + false).replace(0, np.nan)
    noise = pd.DataFrame(
        {
            "cells": found["cells"],
            "positives": found["positives"],
            "wrong": (false + missed) / found["cells"],
            "wrong_positives": false / called,
            "missed_positives": missed / found["positives"].replace(0, np.nan),
        }
    ).join(found[["precision", "recall", "specificity", "f1"]])
    return noise.sort_values("wrong", ascending=False, kind="stable")
