"""Do silver labels agree with intensities? What the paper looked at by eye, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from nimbus_sd import keys
from nimbus_sd._table import clusters_of, judged, scaled_arcsinh, truth_layer
from nimbus_sd._table import layer as read_layer

if TYPE_CHECKING:
    from anndata import AnnData

# Fewer cells of a type tell nothing.
_FEWEST = 10
# Separations that say "as bright as", and such that say nothing against the labels.
_DIMMER, _CLEAR = 0.4, 0.6


class _Type(NamedTuple):
    name: str
    positive: bool
    values: NDArray


def check_silver(
    adata: AnnData,
    *,
    cell_type_key: str | None = "cell_type",
    layer: str = keys.INTEGRATED,
    silver: str = keys.SILVER,
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
        One row per marker that is labelled (index ``channel``):

        - ``positives``, ``negatives``: cells
        - ``auroc``: chance that a positive cell is brighter than a negative one
        - ``effect_size``: Cohen's d of arcsinh(x / c), positive minus negative cells; c is the median of the channel's
          values above 0
        - ``separation``: the same chance as ``auroc``, for the cells of the dimmest positive and the brightest
          negative type, by their medians; types of under 10 cells do not count
        - ``positive_type``, ``negative_type``: these two
        - ``reason``: what contradicts the labels (a ``separation`` or ``auroc`` under 0.6, a missing class), empty if
          nothing does

        Sorted by the smaller one of ``auroc`` and ``separation``; NaN and empty where there is nothing to compare.

    Raises
    ------
    KeyError
        If a layer or the column does not exist.
    ValueError
        If labels are outside of [0, 1] or say nothing.

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
    for i, name in enumerate(adata.var_names):
        known = judged(labels[:, i]) & np.isfinite(values[:, i])
        if not judged(labels[:, i]).any():
            continue
        found = [] if types is None else list(_types(types, labels[:, i], values[:, i], known))
        rows[str(name)] = _row(values[known, i], labels[known, i] > 0.5, found)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("channel")
    worst = table[["auroc", "separation"]].min(axis=1)
    return table.loc[worst.sort_values(kind="stable").index]


def _types(types: pd.Categorical, labels: NDArray, values: NDArray, known: NDArray) -> Iterator[_Type]:
    """Yield the types whose cells all have the same label, if they are enough."""
    for code, name in enumerate(types.categories):
        cells = known & (types.codes == code)
        positive = labels[cells] > 0.5
        if cells.sum() >= _FEWEST and positive.all() == positive.any():
            yield _Type(str(name), bool(positive[0]), values[cells])


def _row(values: NDArray, positive: NDArray[np.bool_], types: list[_Type]) -> dict[str, object]:
    auroc = _auroc(values[positive], values[~positive])
    row: dict[str, object] = {
        "positives": int(positive.sum()),
        "negatives": int((~positive).sum()),
        "auroc": auroc,
        "effect_size": _effect_size(values[positive], values[~positive]),
        "separation": float("nan"),
        "positive_type": "",
        "negative_type": "",
        "reason": "",
    }
    if positive.all() or not positive.any():
        row["reason"] = f"no {'negative' if positive.any() else 'positive'} cells"
    elif auroc < _CLEAR:
        how = "dimmer than" if auroc < _DIMMER else "as bright as"
        row["reason"] = f"positive cells are {how} negative ones (AUROC {auroc:.2f})"
    dimmest = min((one for one in types if one.positive), key=_middle, default=None)
    brightest = max((one for one in types if not one.positive), key=_middle, default=None)
    if dimmest is None or brightest is None:
        return row
    separation = _auroc(dimmest.values, brightest.values)
    row |= {"separation": separation, "positive_type": dimmest.name, "negative_type": brightest.name}
    if separation < _CLEAR:
        how = "brighter than" if separation < _DIMMER else "as bright as"
        row["reason"] = f"{brightest.name!r} (negative) is {how} {dimmest.name!r} (positive)"
    return row


def _middle(one: _Type) -> float:
    return float(np.median(one.values))


def _auroc(positive: NDArray, negative: NDArray) -> float:
    if not positive.size or not negative.size:
        return float("nan")
    truth = np.repeat([True, False], [positive.size, negative.size])
    return float(roc_auc_score(truth, np.concatenate([positive, negative])))


def _effect_size(positive: NDArray, negative: NDArray) -> float:
    """Difference of means in units of the pooled standard deviation."""
    freedom = positive.size + negative.size - 2
    if min(positive.size, negative.size) < 2:
        return float("nan")
    squares = sum(float(((one - one.mean()) ** 2).sum()) for one in (positive, negative))
    difference = float(positive.mean() - negative.mean())
    return difference / np.sqrt(squares / freedom) if squares > 0 else float("nan")
