"""What clusters might be: cell types of their cells, from a table of signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import clusters_of
from nimbus_sd.tl._inputs import scored_matrix
from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED
from nimbus_sd.tl._scored_tree import check_limit, panel_signatures, scored_tree
from nimbus_sd.tl._signature_panel import Missing
from nimbus_sd.tl._signature_table import Signatures, markers_of
from nimbus_sd.tl._signature_tree import CellType
from nimbus_sd.tl._type_calls import call_types, type_names

if TYPE_CHECKING:
    from anndata import AnnData

_WORTH_NAMING = 0.05


def suggest_types(
    adata: AnnData,
    groupby: str,
    signatures: Signatures = None,
    *,
    layer: str = keys.NIMBUS,
    min_probability: float = 0.5,
    min_share: float = 0.5,
    missing: Missing = "error",
) -> pd.DataFrame:
    """Suggest a cell type for each cluster, by the types that its cells have.

    Each cell has the types of :func:`cell_types`: its own and those above. The cluster gets the deepest one that more
    than ``min_share`` of its cells have. If not even a root is that common, it is ``"ambiguous"`` if most of its cells
    have some type, or most of those without a type are ambiguous; else ``"unassigned"``.

    Parameters
    ----------
    adata
        Cells x channels.
    groupby
        Column of ``obs`` with the clusters.
    signatures, layer, min_probability, missing
        As for :func:`cell_types`.
    min_share
        In [0.5, 1).

    Returns
    -------
    DataFrame
        One row for each cluster, named as text, in the order of its categories:

        - ``type``: the suggestion
        - ``share``: of the cluster's cells that have this type (or no type)
        - ``probability``: mean over the cluster's cells that they are of this type; NaN without a type
        - ``cells``: number of cells with scores
        - ``reason``: the signs that the type asks for; without a type, how many cells have one or are ambiguous
        - ``others``: other types of at least 5 % of the cells, the most common first

    Raises
    ------
    KeyError
        If the column or layer does not exist, or a marker has no channel.
    ValueError
        As for :func:`cell_types`; if ``groupby`` is no column of clusters, or ``min_share`` is out of range.

    Warns
    -----
    UserWarning
        As for :func:`cell_types`.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> table = ns.tl.signatures().loc[["Immune cell", "T cell", "B cell", "Epithelial cell"]]
    >>> ns.tl.suggest_types(adata, "cell_type", table, layer="gold")["type"].to_dict()
    {'B cell': 'B cell', 'CD4 T cell': 'T cell', 'CD8 T cell': 'T cell', 'epithelium': 'Epithelial cell',
     'macrophage': 'Immune cell', 'other': 'unassigned'}
    """
    check_limit("min_probability", min_probability)
    check_limit("min_share", min_share)
    groups = clusters_of(adata, groupby)
    told = panel_signatures(adata, signatures, missing)
    scores, used, channels = scored_matrix(adata, layer, markers_of(told))
    tree = scored_tree(told, scores, channels, layer)

    group = groups.codes[used]
    names = type_names(tree)
    cells = np.zeros((len(groups.categories), len(names)), np.int64)
    expected = np.zeros((len(groups.categories), len(tree)))
    for called in call_types(scores, channels, tree, min_probability):
        known = group[called.cells] >= 0
        mine = group[called.cells][known].astype(np.intp)
        np.add.at(cells, (mine, called.code[known] % len(names)), 1)
        for i, probability in enumerate(called.probabilities):
            expected[:, i] += np.bincount(mine, probability[known], len(expected))

    rows = [_row(tree, names, *pair, min_share) for pair in zip(cells, expected, strict=True)]
    columns = ["type", "share", "probability", "cells", "reason", "others"]
    return pd.DataFrame(rows, index=pd.Index(groups.categories, name=groupby), columns=columns)


def _row(
    tree: Sequence[CellType], names: Sequence[str], cells: NDArray, expected: NDArray, min_share: float
) -> tuple[str, float, float, int, str, str]:
    total = int(cells.sum())
    if not total:
        return UNASSIGNED, np.nan, np.nan, 0, "no cell has scores", ""
    lines = [(*one.parents, one.name) for one in tree]
    with_subtypes = [sum(n for n, line in zip(cells, lines, strict=False) if one.name in line) for one in tree]
    common = [i for i, n in enumerate(with_subtypes) if n > min_share * total]
    if common:
        # Types that more than half of the cells have lie on one line, the deepest last.
        best = common[-1]
        row = (tree[best].name, with_subtypes[best] / total, expected[best] / total, total, tree[best].signature)
        told = {i for i, line in enumerate(lines) if tree[best].name in line}
    else:
        assigned = int(cells[: len(tree)].sum())
        some = 2 * assigned > total
        unclear, nothing = cells[len(tree) :]
        name = AMBIGUOUS if some or unclear > nothing else UNASSIGNED
        why = f"{assigned / total:.0%} of the cells have a type"
        if not some and name == AMBIGUOUS:
            why += f", {unclear / total:.0%} are ambiguous"
        row = (name, (assigned if some else total - assigned) / total, np.nan, total, why)
        told = set()
    order = [i for i in np.argsort(-cells, kind="stable") if i not in told and cells[i] >= _WORTH_NAMING * total]
    return (*row, ", ".join(f"{names[i]} {cells[i] / total:.0%}" for i in order if names[i] != row[0]))
