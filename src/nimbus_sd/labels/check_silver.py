"""Are silver labels right? Against intensities, and against gold labels where there are any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from nimbus_sd import keys
from nimbus_sd._table import clusters_of, judged, scaled_arcsinh, truth_layer
from nimbus_sd._table import layer as read_layer
from nimbus_sd.metrics import marker_metrics

# Types with fewer cells are not compared.
_FEWEST = 10
# Below the first, one group is dimmer than the other; below the second, they are as bright as each other.
_DIMMER, _CLEAR = 0.4, 0.6


def check_silver(
    adata: AnnData, *, cell_type_key: str | None = "cell_type", layer: str = keys.INTEGRATED, silver: str = keys.SILVER
) -> pd.DataFrame:
    """Say of each marker how well its silver labels agree with intensities, the worst first.

    The paper compared labels with images by eye and left out markers that disagreed (Rumberger et al., "Automatic
    creation of silver standard labels"). A wrong entry of the matrix shows as a positive type that is dimmer than a
    negative one; a poor stain, or wrong types, as an AUROC near 0.5.

    Parameters
    ----------
    adata
        Cells x channels.
    cell_type_key
        Column of ``obs`` with the types that the labels are from. None for labels from gates.
    layer
        Layer of intensities.
    silver
        Layer of labels.

    Returns
    -------
    DataFrame
        One row per labelled marker (index ``channel``), sorted by the smaller one of ``auroc`` and ``separation``:

        - ``positives``, ``negatives``: cells
        - ``auroc``: chance that a positive cell is brighter than a negative one
        - ``effect_size``: Cohen's d of arcsinh(x / c), positive minus negative cells; c is the median of the channel's
          values above 0
        - ``separation``: the same chance as ``auroc``, for the cells of the dimmest positive and the brightest
          negative type, by their medians; types of under 10 cells do not count
        - ``positive_type``, ``negative_type``: these two
        - ``reason``: what contradicts the labels (a ``separation`` or ``auroc`` under 0.6, a missing class), empty if
          nothing does

        NaN and empty where there is nothing to compare.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.X
    >>> names = ["CD4 T cell", "CD8 T cell", "B cell", "macrophage", "epithelium", "other"]
    >>> matrix = {"CD3": [1, 1, 0, 0, 0, 0], "CD20": [0, 0, 1, 0, 0, 0], "CD8": [0, 0, 1, 0, 0, 0]}
    >>> ns.labels.silver(adata, pd.DataFrame(matrix, index=names))
    >>> ns.labels.check_silver(adata)["reason"].to_dict()
    {'CD8': "'CD8 T cell' (negative) is brighter than 'B cell' (positive)", 'CD3': '', 'CD20': ''}
    """
    labels = truth_layer(adata, silver)
    values = scaled_arcsinh(read_layer(adata, layer))
    types = None if cell_type_key is None else clusters_of(adata, cell_type_key)
    rows = {}
    for i in np.flatnonzero(judged(labels).any(axis=0)):
        kept = judged(labels[:, i]) & np.isfinite(values[:, i])
        cells = pd.DataFrame({"value": values[kept, i], "positive": labels[kept, i] > 0.5})
        cells["type"] = None if types is None else types[kept]
        rows[str(adata.var_names[i])] = _compare(cells)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("channel")
    worst = table[["auroc", "separation"]].min(axis=1)
    return table.loc[worst.sort_values(kind="stable").index]


def silver_noise(
    adata: AnnData, *, silver: str = keys.SILVER, gold: str = keys.GOLD, by: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """Measure the noise of silver labels against gold ones, the noisiest marker first (Rumberger et al., Fig. 2d).

    Parameters
    ----------
    adata
        Cells x channels.
    silver, gold
        Layers of labels. Cells that either of them leaves out (0.5, NaN) do not count.
    by
        Column of ``obs``, or several: noise of each group of cells. Types show a marker that is wrong in the matrix.

    Returns
    -------
    DataFrame
        One row per marker, and group if asked for, that has a cell to compare: ``cells``, ``positives`` (by gold),
        ``wrong`` (share of silver labels), ``wrong_positives`` (share of the silver positive cells that gold calls
        negative), ``missed_positives`` (share of the gold positive cells that silver calls negative), and of
        :func:`nimbus_sd.metrics.marker_metrics` ``precision``, ``recall``, ``specificity``, ``f1``.

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
    metrics = marker_metrics(adata, silver, gold, threshold=0.5, by=by)
    metrics = metrics[metrics["cells"] > 0]
    cells, positives = metrics["cells"], metrics["positives"]
    true_positives = (metrics["recall"] * positives).fillna(0).round()
    false_positives = ((1 - metrics["specificity"]) * (cells - positives)).fillna(0).round()
    missed = positives - true_positives
    noise = metrics[["cells", "positives"]].assign(
        wrong=(false_positives + missed) / cells,
        wrong_positives=false_positives / (true_positives + false_positives).replace(0, np.nan),
        missed_positives=missed / positives.replace(0, np.nan),
    )
    noise = noise.join(metrics[["precision", "recall", "specificity", "f1"]])
    return noise.sort_values("wrong", ascending=False, kind="stable")


def _compare(cells: pd.DataFrame) -> dict[str, object]:
    """Compare positive with negative cells, and the two types of either kind that are hardest to tell apart."""
    positive, negative = (cells.loc[cells["positive"] == side, "value"].to_numpy() for side in (True, False))
    auroc, separation, dimmest, brightest, reason = _auroc(positive, negative), float("nan"), "", "", ""
    if not positive.size or not negative.size:
        reason = f"no {'negative' if positive.size else 'positive'} cells"
    elif auroc < _CLEAR:
        how = "dimmer than" if auroc < _DIMMER else "as bright as"
        reason = f"positive cells are {how} negative ones (AUROC {auroc:.2f})"
    types = cells.groupby("type", observed=True).agg(
        cells=("value", "size"), median=("value", "median"), positive=("positive", "mean")
    )
    types = types[types["cells"] >= _FEWEST]
    medians = [types.loc[types["positive"] == side, "median"] for side in (1, 0)]
    if all(map(len, medians)):
        dimmest, brightest = str(medians[0].idxmin()), str(medians[1].idxmax())
        separation = _auroc(*(cells.loc[cells["type"] == name, "value"].to_numpy() for name in (dimmest, brightest)))
        if separation < _CLEAR:
            how = "brighter than" if separation < _DIMMER else "as bright as"
            reason = f"{brightest!r} (negative) is {how} {dimmest!r} (positive)"
    return {
        "positives": positive.size,
        "negatives": negative.size,
        "auroc": auroc,
        "effect_size": _effect_size(positive, negative),
        "separation": separation,
        "positive_type": dimmest,
        "negative_type": brightest,
        "reason": reason,
    }


def _auroc(positive: NDArray, negative: NDArray) -> float:
    if not positive.size or not negative.size:
        return float("nan")
    truth = np.repeat([True, False], [positive.size, negative.size])
    return float(roc_auc_score(truth, np.concatenate([positive, negative])))


def _effect_size(positive: NDArray, negative: NDArray) -> float:
    """Cohen's d: difference of means in units of the pooled standard deviation."""
    if min(positive.size, negative.size) < 2:
        return float("nan")
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in (positive, negative))
    difference = float(positive.mean() - negative.mean())
    return difference / np.sqrt(squares / (positive.size + negative.size - 2)) if squares > 0 else float("nan")
