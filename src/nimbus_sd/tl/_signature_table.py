"""Signature tables: read in any of their spellings, returned in one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from nimbus_sd._text import as_text, columns_of, read_texts
from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED, check_name

Signatures: TypeAlias = pd.DataFrame | str | Path | None

PARENT, SOURCE = "parent", "source"

_WORDS = {
    "+": ("+", "pos", "positive"),
    "-": ("-", "\N{MINUS SIGN}", "\N{EN DASH}", "neg", "negative"),
    "": ("", "any"),
}
_NUMBERS = {"0", "1", "-1", "0.0", "1.0", "-1.0", "true", "false"}
_SIGN = {word: sign for sign, words in _WORDS.items() for word in words}


def read_table(signatures: Signatures) -> tuple[pd.DataFrame, list[str]]:
    """Read a signature table, and say what is wrong with its cells and names.

    Parameters
    ----------
    signatures
        DataFrame or CSV file, types x (``parent``, ``source``, markers); None for the one that comes with the package.

    Returns
    -------
    Types x (``parent``, ``source``, markers) of texts: ``"+"``, ``"-"`` or ``""`` for each marker, ``""`` for no
    parent; and a sentence for each problem. Of types and markers that are there twice, it has the first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If it is no DataFrame or path.
    ValueError
        If the file is none of text in columns, the index has no names of types, there are no types, no markers or no
        column ``parent``, or signs are numbers.
    """
    table = _texts(signatures)
    first = as_text(table.index.name)
    table.columns = table.columns.map(as_text)
    table.index = table.index.map(as_text).rename(None)
    if len(table) and (first == PARENT or list(table.index) == [str(i) for i in range(len(table))]):
        raise ValueError(
            f"A signature table has the names of the types as its index (of a CSV file: the first column); this has "
            f"{list(table.index)[:3]} there. Set it, as by `table.set_index('type')` or `pd.read_csv(path, "
            "index_col=0)`, and save it without `index=False`."
        )
    if PARENT not in table.columns:
        raise ValueError(
            f"A signature table needs a column {PARENT!r}, empty for types without one; this has "
            f"{list(table.columns)[:10]}. A CSV file must be separated by commas."
        )
    problems = list(_name_problems(table))
    table = table.loc[(table.index != "") & ~table.index.duplicated(), ~table.columns.duplicated()]
    markers = [name for name in table.columns if name not in (PARENT, SOURCE, "")]
    if not len(table) or not markers:
        raise ValueError(
            f"A signature table needs types as rows and markers as columns; this has {len(table)} types and "
            f"{len(markers)} markers."
        )
    parent = table[PARENT].map(as_text)
    source = table[SOURCE].map(as_text) if SOURCE in table.columns else parent.map(lambda _: "")
    found = table[markers].map(lambda value: _SIGN.get(as_text(value).casefold(), "?"))
    wrong = [(name, marker, as_text(table.loc[name, marker])) for name, marker in _where(found == "?")]
    if wrong and all(text.casefold() in _NUMBERS for _, _, text in wrong):
        name, marker, text = wrong[0]
        raise ValueError(
            f"The signature table has numbers as signs, in {len(wrong)} places, as {text!r} of {name!r} for "
            f"{marker!r}: use + for positive and - for negative, and leave empty what may be either."
        )
    problems += [f"{name!r} has {text!r} for {marker!r}; it must be '+', '-' or empty" for name, marker, text in wrong]
    return pd.concat([parent.rename(PARENT), source.rename(SOURCE), found.replace("?", "")], axis=1), problems


def markers_of(table: pd.DataFrame) -> list[str]:
    """Names of the markers of a table that was read."""
    return [name for name in table.columns if name not in (PARENT, SOURCE)]


def _texts(signatures: Signatures) -> pd.DataFrame:
    if isinstance(signatures, pd.DataFrame):
        return signatures.copy()
    if not isinstance(signatures, str | Path | None):
        raise TypeError(
            f"`signatures` is a {type(signatures).__name__}; it must be a DataFrame, the path of a CSV file, or None."
        )
    path = files("nimbus_sd.tl").joinpath("data/signatures.csv") if signatures is None else Path(signatures)
    if signatures is not None:
        columns_of(Path(signatures))
    return read_texts(path)


def _where(mask: pd.DataFrame) -> list[tuple[str, str]]:
    return [(mask.index[i], mask.columns[j]) for i, j in np.argwhere(mask.to_numpy())]


def _name_problems(table: pd.DataFrame) -> Iterator[str]:
    for names, what in ((table.index, "type"), (table.columns, "column")):
        for name in names[names.duplicated()].unique():
            if name:
                yield f"the {what} {name!r} is there twice"
        if (names == "").any():
            yield f"a {what} has no name"
    for name in table.index[table.index != ""].unique():
        try:
            check_name(name, "type")
        except ValueError as error:
            yield str(error).rstrip(".")
    for name in table.index.intersection([UNASSIGNED, AMBIGUOUS]):
        yield f"{name!r} is kept for cells without a type"
