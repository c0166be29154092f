"""Assignment matrices: which markers a cell type is positive for, in any of the codes in use."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from nimbus_sd._csv import columns_of

Matrix: TypeAlias = pd.DataFrame | str | Path

_WORDS = {
    1.0: ("+", "pos", "positive", "true"),
    0.0: ("-", "\N{MINUS SIGN}", "\N{EN DASH}", "neg", "negative", "false"),
    0.5: ("?", "any", "undefined", "undetermined"),
}
_LABEL = {word: label for label, words in _WORDS.items() for word in words}
_CODES = {0.0: 0.0, 0.5: 0.5, 1.0: 1.0}
# With a 2 for undetermined, as the authors of the paper write it.
_CODES_WITH_2 = {0.0: 0.0, 1.0: 1.0, 2.0: 0.5}
_SHOWN = 8


def read_matrix(matrix: Matrix) -> pd.DataFrame:
    """Read an assignment matrix.

    Parameters
    ----------
    matrix
        DataFrame or CSV file, cell types x markers.

    Returns
    -------
    Cell types x markers, float32: 1 positive, 0 negative, 0.5 undetermined.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If it is no DataFrame or path.
    ValueError
        If there are no types or markers, names are missing or there twice, entries are none of the code, or a type is
        undetermined for every marker. All of it is listed.
    """
    table = _texts(matrix)
    if not table.size:
        raise ValueError(
            "An assignment matrix needs cell types as rows and markers as columns; this has "
            f"{len(table)} types and {table.shape[1]} markers. A CSV file must be separated by commas."
        )
    problems = [*_name_problems(table.index, "cell type"), *_name_problems(table.columns, "marker")]
    codes = _CODES_WITH_2 if (table.map(_number) == 2).any(axis=None) else _CODES
    labels = table.map(lambda text: _LABEL.get(text.casefold(), codes.get(_number(text), np.nan))).astype(np.float32)
    wrong = np.argwhere(labels.isna().to_numpy())
    for i, j in wrong[:_SHOWN]:
        found = repr(table.iat[i, j]) if table.iat[i, j] else "nothing"
        problems.append(f"{table.index[i]!r} has {found} for {table.columns[j]!r}")
    if len(wrong):
        allowed = "0, 1 and 2, as there is a 2" if codes is _CODES_WITH_2 else "0, 1 and 0.5"
        problems.append(
            f"{len(wrong)} of {labels.size} entries are none of 'positive', 'negative', 'undetermined', or {allowed} "
            "(undetermined)"
        )
    if empty := [name for name, undetermined in (labels == 0.5).all(axis=1).items() if undetermined]:
        problems.append(
            f"{', '.join(map(repr, empty))}: undetermined for every marker, so that it says nothing; delete the row "
            "and make these cells' type missing"
        )
    if problems:
        raise ValueError(f"The assignment matrix cannot be used: {'; '.join(problems)}.")
    return labels


def _texts(matrix: Matrix) -> pd.DataFrame:
    if isinstance(matrix, pd.DataFrame):
        table = matrix
    elif isinstance(matrix, str | Path):
        columns_of(Path(matrix))
        # Without a header, for pandas would give the second of two equal columns another name.
        text = StringIO(Path(matrix).read_bytes().decode("utf-8-sig"))
        rows = pd.read_csv(text, header=None, dtype=str, keep_default_na=False)
        table = rows.iloc[1:, 1:].set_axis(rows.iloc[0, 1:].to_list(), axis=1).set_axis(rows.iloc[1:, 0].to_list())
    else:
        raise TypeError(f"`matrix` is a {type(matrix).__name__}; it must be a DataFrame or the path of a CSV file.")
    return table.map(_text).set_axis(map(_text, table.index)).set_axis(map(_text, table.columns), axis=1)


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value).strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _name_problems(names: pd.Index, what: str) -> Iterator[str]:
    for name in names[names.duplicated()].unique():
        if name:
            yield f"the {what} {name!r} is there twice"
    if (names == "").any():
        yield f"a {what} has no name"
