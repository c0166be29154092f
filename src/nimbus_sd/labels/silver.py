"""Silver standard: labels of all cells from their types and what these are positive for, or from gates."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd._table import as_list, at_or_above, check_table, check_writable, clusters_of, judged
from nimbus_sd._table import layer as read_layer
from nimbus_sd._text import as_number, as_text, columns_of, listed, read_texts
from nimbus_sd.keys import INTEGRATED, SILVER
from nimbus_sd.labels.layers import columns_of_channels
from nimbus_sd.spatial import not_found

logger = logging.getLogger("nimbus_sd")

Matrix: TypeAlias = pd.DataFrame | str | Path
Names: TypeAlias = str | Sequence[str]
Gates: TypeAlias = Mapping[str, float | tuple[float, float]] | pd.Series | str | Path

_TOOL = "labels.silver"
_LABELS = {
    **dict.fromkeys(("+", "pos", "positive", "true"), 1.0),
    **dict.fromkeys(("-", "\N{MINUS SIGN}", "\N{EN DASH}", "neg", "negative", "false"), 0.0),
    **dict.fromkeys(("?", "any", "undefined", "undetermined"), 0.5),
}


def silver(
    adata: AnnData, matrix: Matrix, *, cell_type_key: str = "cell_type", exclude: Names = (), key_added: str = SILVER
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
        Markers that get no labels, such as those that look wrong in :func:`check_silver`.
    key_added
        Name of the layer.

    Returns
    -------
    None
        Sets ``layers[key_added]`` (float32, 1 positive, 0 negative, 0.5 undetermined, NaN not judged: cells without a
        type, channels that the matrix lacks or ``exclude`` names) and ``uns[key_added]``: how it was made.

    Raises
    ------
    KeyError
        A type of the cells is not in the matrix, or a marker is not in the table.
    ValueError
        An entry of the matrix has no clear meaning, a name is there twice, or ``key_added`` holds something else.

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
    table = _read_matrix(matrix)
    types = clusters_of(adata, cell_type_key)
    _check_key(adata, key_added)
    if unknown := [name for name in types.categories if name not in table.index]:
        advice = "add it, or make the type of these cells missing"
        if table.index.isin(adata.var_names).all():
            advice = "its rows are markers: transpose it"
        raise not_found("row", unknown, table.index, f" in the matrix for a type of obs[{cell_type_key!r}] ({advice})")
    columns = columns_of_channels(adata, list(table.columns), " (markers of the matrix)")
    if absent := [name for name in table.index if name not in types.categories]:
        warnings.warn(f"No cell is of the type(s) {listed(absent)} that the matrix has.", stacklevel=2)

    labels = np.full(adata.shape, np.nan, np.float32)
    typed = np.flatnonzero(types.codes >= 0)
    labels[typed[:, None], columns] = table.loc[types.categories].to_numpy()[types.codes[typed]]
    labels[:, columns_of_channels(adata, exclude, " (named in `exclude`)")] = np.nan
    if len(silent := adata.var_names[np.isfinite(labels).any(axis=0) & ~judged(labels).any(axis=0)]):
        warnings.warn(f"Marker(s) {listed(silent)} are undetermined for every cell; `exclude` them.", stacklevel=2)
    _add(adata, key_added, labels, {"cell_type_key": cell_type_key, "exclude": as_list(exclude)})


def silver_from_gates(
    adata: AnnData, gates: Gates, *, layer: str = INTEGRATED, exclude: Names = (), key_added: str = SILVER
) -> None:
    """Label each cell by one or two gates for each marker, as the paper's Vectra data (Rumberger et al., Methods).

    Parameters
    ----------
    adata
        Cells x channels.
    gates
        Marker -> value at and above which a cell is positive and below which it is negative; or a pair of them,
        ``(lower, upper)``: negative below the lower, positive at and above the upper, between them undetermined. With
        a lower gate of ``-inf`` no cell is negative, with an upper one of ``inf`` none is positive. Or the path of a
        CSV file with the columns ``marker`` and ``gate``, or ``marker``, ``lower`` and ``upper``.
    layer
        The values that are gated.
    exclude
        Markers that get no labels.
    key_added
        Name of the layer.

    Returns
    -------
    None
        Sets ``layers[key_added]`` (float32, 1 positive, 0.5 undetermined, 0 negative, NaN without a gate or a value)
        and ``uns[key_added]``, whose ``params`` hold ``gates``: lower and upper gate (twice the same where there is
        one) of each of the ``markers``. A warning names those that have all cells on one side of a finite gate.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.X
    >>> ns.labels.silver_from_gates(adata, {"CD3": 900.0, "CD8": (600.0, 900.0)})
    >>> bool(((adata.layers["silver"][:, 2] == 1) == (adata.X[:, 2] >= 900)).all())
    True
    """
    values = read_layer(adata, layer)
    pairs = _read_gates(gates)
    _check_key(adata, key_added)
    columns = columns_of_channels(adata, list(pairs), " (markers of the gates)")
    labels = np.full(adata.shape, np.nan, np.float32)
    one_sided = []
    for i, (name, pair) in zip(columns, pairs.items(), strict=True):
        measured = np.isfinite(values[:, i])
        above = [at_or_above(values[measured, i], gate) for gate in pair]
        labels[measured, i] = np.mean(above, axis=0)
        for gate, is_above in dict(zip(pair, above, strict=True)).items():
            if measured.any() and np.isfinite(gate) and is_above.all() == is_above.any():
                one_sided.append(f"{name!r} (all {'at or above' if is_above[0] else 'below'} {gate:g})")
    labels[:, columns_of_channels(adata, exclude, " (named in `exclude`)")] = np.nan
    if one_sided:
        hint = f"Is it in the units of layers[{layer!r}]?"
        warnings.warn(f"The gate does not split the cells of {', '.join(one_sided)}. {hint}", stacklevel=2)
    params = {"layer": layer, "markers": list(pairs), "gates": np.array(list(pairs.values()))}
    _add(adata, key_added, labels, params | {"exclude": as_list(exclude)})


def _check_key(adata: AnnData, key_added: str) -> None:
    """Refuse a name that cannot be written, or that holds what these tools did not make."""
    check_table(adata)
    check_writable(key_added)
    entry = adata.uns.get(key_added)
    ours = isinstance(entry, Mapping) and entry.get("tool") == _TOOL
    if (key_added in adata.layers or key_added in adata.uns) and not ours:
        raise ValueError(f"`key_added` is {key_added!r}, a result that was not made here; choose another name.")


def _add(adata: AnnData, key_added: str, labels: NDArray[np.float32], params: dict[str, Any]) -> None:
    adata.layers[key_added] = labels
    adata.uns[key_added] = {"tool": _TOOL, "params": params}
    called = judged(labels)
    logger.info("added layers[%r]: %d labels of %d channels", key_added, called.sum(), called.any(axis=0).sum())


def _read_matrix(matrix: Matrix) -> pd.DataFrame:
    """Return the labels of cell types x markers, float32; one ValueError says all that is wrong with the entries."""
    if isinstance(matrix, str | Path):
        columns_of(Path(matrix))
        matrix = read_texts(Path(matrix))
    elif not isinstance(matrix, pd.DataFrame):
        raise TypeError(f"`matrix` is a {type(matrix).__name__}; it must be a DataFrame or the path of a CSV file.")
    table = matrix.map(as_text).set_axis(map(as_text, matrix.index)).set_axis(map(as_text, matrix.columns), axis=1)
    if not table.size:
        size = f"{len(table)} cell types (rows) and {table.shape[1]} markers (columns, in a file separated by commas)"
        raise ValueError(f"An assignment matrix must have cell types and markers; this has {size}.")
    problems = []
    for names, what in ((table.index, "cell type"), (table.columns, "marker")):
        problems += [f"the {what} {name!r} is there twice" for name in names[names.duplicated()].unique() if name]
        problems += [f"a {what} has no name"] * ("" in names)
    # The authors of the paper write a 2 for undetermined.
    undetermined = 2.0 if (table.map(as_number) == 2).any(axis=None) else 0.5
    numbers: dict[Any, float] = {0.0: 0.0, 1.0: 1.0, undetermined: 0.5}
    labels = table.map(lambda text: _LABELS.get(text.casefold(), numbers.get(as_number(text)))).astype(np.float32)
    wrong = np.argwhere(labels.isna().to_numpy())
    for i, j in wrong[:8]:
        entry = repr(table.iat[i, j]) if table.iat[i, j] else "nothing"
        problems.append(f"{table.index[i]!r} has {entry} for {table.columns[j]!r}")
    if len(wrong):
        allowed = "0, 1 and 2, as there is a 2" if undetermined == 2 else "0, 1 and 0.5"
        problems.append(f"{len(wrong)} entries are none of 'positive', 'negative', 'undetermined', or {allowed}")
    if len(silent := labels.index[(labels == 0.5).all(axis=1)]):
        problems.append(f"{listed(silent)}: undetermined for every marker; delete the row, and these cells' type")
    if problems:
        raise ValueError(f"The assignment matrix cannot be used: {'; '.join(problems)}.")
    return labels


def _read_gates(gates: Gates) -> dict[str, tuple[float, float]]:
    """Return the lower and the upper gate of each marker; where there is one, it is both."""
    if isinstance(gates, str | Path):
        columns = columns_of(Path(gates))
        form = {"marker", "gate", "lower", "upper"} & set(columns)
        if form not in ({"marker", "gate"}, {"marker", "lower", "upper"}):
            allowed = "'marker', 'gate' or 'marker', 'lower', 'upper'"
            raise ValueError(f"{gates} has {listed(columns)}; it must have {allowed}.")
        table = pd.read_csv(gates)
        values = table["gate"] if "gate" in form else zip(table["lower"], table["upper"], strict=True)
        given = list(zip(table["marker"].astype(str).str.strip(), values, strict=True))
    elif isinstance(gates, Mapping | pd.Series):
        given = [(str(name), gate) for name, gate in gates.items()]
    else:
        allowed = "a mapping or Series such as {'CD3': 900} or {'CD3': (600, 900)}, or the path of a CSV file"
        raise TypeError(f"`gates` is a {type(gates).__name__}; it must be {allowed}.")
    names = [name for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"`gates` names {listed(twice)} more than once.")
    if not names:
        raise ValueError("`gates` names no marker.")
    pairs = {name: pair for name, gate in given if (pair := _pair(gate))}
    if wrong := {name: gate for name, gate in given if name not in pairs}:
        rule = "no number and no pair of numbers, lower <= upper, which may be -inf and inf"
        raise ValueError(f"The gate of {listed(wrong)} is {rule}; the first is {next(iter(wrong.values()))!r}.")
    return pairs


def _pair(gate: Any) -> tuple[float, float] | None:
    """Return the lower and the upper gate; None if it is neither a number nor two in order."""
    try:
        numbers = np.asarray(gate, float)
    except (TypeError, ValueError):
        return None
    if numbers.ndim == 0:
        return (float(numbers), float(numbers)) if np.isfinite(numbers) else None
    return (float(numbers[0]), float(numbers[1])) if numbers.shape == (2,) and numbers[0] <= numbers[1] else None
