"""Silver standard from cell types and what they are positive for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of
from nimbus_sd.labels._matrix import Matrix, read_matrix
from nimbus_sd.labels._silver_layer import add_silver, check_silver_key, excluded
from nimbus_sd.labels._states import listed
from nimbus_sd.spatial import not_found

if TYPE_CHECKING:
    from anndata import AnnData


def silver(
    adata: AnnData,
    matrix: Matrix,
    *,
    cell_type_key: str = "cell_type",
    exclude: str | Sequence[str] = (),
    key_added: str = keys.SILVER,
) -> None:
    """Label each cell by its type: positive for what the type expresses (Rumberger et al., silver standard labels).

    Parameters
    ----------
    adata
        Cells x channels.
    matrix
        DataFrame, or path of a CSV file, cell types x markers, named as in ``obs`` and ``var``. Every entry says
        positive, negative or undetermined (not uniform in the type, such as Ki67). In words: ``positive``, ``pos``,
        ``+``; ``negative``, ``neg``, ``-``; ``undetermined``, ``undefined``, ``any``, ``?``. In numbers: 1, 0 and
        0.5, or, if there is a 2 anywhere in the matrix, 1, 0 and 2.
    cell_type_key
        Column of ``obs`` with the types. Cells without one are not judged.
    exclude
        Markers that get no labels, as those that looked wrong in :func:`check_silver`.
    key_added
        Name of the layer.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``layers[key_added]``: float32, 1 positive, 0 negative, 0.5 undetermined, NaN not judged: cells without a
          type, channels that the matrix lacks or ``exclude`` names
        - ``uns[key_added]``: how it was made

    Raises
    ------
    KeyError
        If a type of the cells is not in the matrix, or a marker is not in the table; likely names are given.
    ValueError
        If the matrix cannot be read without a doubt (see ``matrix``), has a type or marker twice, or a type that is
        undetermined for every marker; if ``key_added`` holds something else.

    Warns
    -----
    UserWarning
        Names types of the matrix that no cell has, and markers that are undetermined for every cell.

    Examples
    --------
    >>> import pandas as pd
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> names = ["CD4 T cell", "CD8 T cell", "B cell", "macrophage", "epithelium", "other"]
    >>> matrix = pd.DataFrame({"CD3": [1, 1, 0, 0, 0, 0], "CD8": [0, 1, 0, 0, 0, 0]}, index=names)
    >>> ns.labels.silver(adata, matrix)
    >>> adata.obs["cell_type"].iloc[0], adata.layers["silver"][0, 2:4].tolist()
    ('CD8 T cell', [1.0, 1.0])
    """
    table = read_matrix(matrix)
    types = clusters_of(adata, cell_type_key)
    check_silver_key(adata, key_added)
    if unknown := [name for name in types.categories if name not in table.index]:
        raise _no_row(unknown, table, adata, cell_type_key)
    if missing := [name for name in table.columns if name not in adata.var_names]:
        raise not_found("channel", missing, adata.var_names, " (markers of the matrix)")
    if absent := [name for name in table.index if name not in types.categories]:
        _warn(f"No cell of obs[{cell_type_key!r}] is of the type(s) {listed(absent)} that the matrix has.")

    labels = np.full(adata.shape, np.nan, np.float32)
    known = np.flatnonzero(types.codes >= 0)
    of_type = table.loc[types.categories].to_numpy()
    labels[known[:, None], adata.var_names.get_indexer(table.columns)] = of_type[types.codes[known]]
    labels[:, excluded(adata, exclude)] = np.nan
    if says_nothing := _undetermined(adata, labels):
        _warn(f"Marker(s) {listed(says_nothing)} are undetermined for every cell; `exclude` can name them.")
    add_silver(adata, key_added, labels, {"cell_type_key": cell_type_key, "exclude": list(as_list(exclude))})


def _no_row(unknown: list[str], table: pd.DataFrame, adata: AnnData, key: str) -> KeyError:
    near = dict.fromkeys(match for name in unknown for match in get_close_matches(name, table.index))
    if table.index.isin(adata.var_names).all():
        advice = "Its rows are markers: transpose it."
    else:
        advice = "Add the rows, or make the type of these cells missing."
    hint = f" Did you mean {listed(near)}?" if near else ""
    return KeyError(
        f"The matrix has no row for {listed(unknown)} of obs[{key!r}]; it has {listed(table.index)}.{hint} {advice}"
    )


def _undetermined(adata: AnnData, labels: NDArray[np.float32]) -> list[str]:
    """Name the channels that are judged, but never as positive or negative."""
    known = np.isfinite(labels)
    nothing = known.any(axis=0) & ~(known & (labels != 0.5)).any(axis=0)
    return [str(name) for name in adata.var_names[nothing]]


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)
