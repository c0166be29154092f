"""Signatures of cell types: tables read in any spelling, checked, and matched to the channels of a panel."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Literal, TypeAlias

import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import outside_unit_interval
from nimbus_sd._text import columns_of
from nimbus_sd.tl._markers import match_markers, nearest
from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED, check_name
from nimbus_sd.tl.type_tree import PARENT, SOURCE, CellType, build_tree, markers_of, tree_problems

Signatures: TypeAlias = pd.DataFrame | str | Path | None
Missing: TypeAlias = Literal["error", "skip"]

_SIGNS = {
    **dict.fromkeys(("+", "pos", "positive"), "+"),
    **dict.fromkeys(("-", "\N{MINUS SIGN}", "\N{EN DASH}", "neg", "negative"), "-"),
    **dict.fromkeys(("", "any"), ""),
}
_MAX_PROBLEMS = 20


def signatures() -> pd.DataFrame:
    """Return the signatures of 28 immune, epithelial and stromal cell types by 28 markers, each with a source.

    They are human and not specific to a tissue: a starting point, to be cut down and extended for the tissue at hand.
    Each type asks only for what tells it from its siblings.

    Returns
    -------
    DataFrame
        Types x (``parent``, ``source``, markers), all text: ``"+"`` positive, ``"-"`` negative, ``""`` any, and
        ``""`` for the parent of a root.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> table = ns.tl.signatures()
    >>> table.loc["CD8 T cell", ["parent", "CD8", "CD4"]].to_list()
    ['T cell', '+', '-']
    """
    return checked_table(None)


def check_signatures(
    signatures: Signatures, channels: Iterable[str] | None = None, *, missing: Missing = "error"
) -> pd.DataFrame:
    """Check signatures before they are used, and show what :func:`cell_types` makes of them.

    It finds duplicate types and markers, invalid signs, unknown parents, circles of parents, types that contradict an
    ancestor, and types that no marker separates: those that add nothing to their parent, and those that ask for
    everything that a competing type (a sibling, or one of an ancestor) asks for, so that each of their cells is both.

    Parameters
    ----------
    signatures, missing
        As for :func:`cell_types`.
    channels
        Names of a panel's channels, such as ``adata.var_names``, to find the markers in. None leaves them as they are.

    Returns
    -------
    DataFrame
        As of :func:`signatures`; with ``channels``, the types that the panel can distinguish, and the markers under its
        names. A warning names markers that are skipped, and the types that change with them.

    Raises
    ------
    KeyError
        If markers have no channel; the nearest names are given.
    ValueError
        Lists all problems, or the markers that could mean several channels.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> table = ns.tl.signatures().loc[["Immune cell", "T cell", "CD8 T cell"]]
    >>> ns.tl.check_signatures(table, ["PTPRC", "CD3e", "CD8A", "CD4"]).columns.to_list()
    ['parent', 'source', 'PTPRC', 'CD3e', 'CD4', 'CD8A']
    """
    table = checked_table(signatures)
    return table if channels is None else on_panel(table, [str(name) for name in channels], missing)


def checked_table(signatures: Signatures) -> pd.DataFrame:
    """Read a signature table, and raise one ValueError with all problems of one that contradicts itself."""
    table, problems = _read_table(signatures)
    _raise_problems([*problems, *tree_problems(table)], "The signature table cannot be used")
    return table


def on_panel(
    table: pd.DataFrame, channels: Sequence[str], missing: Missing, unscored: Iterable[str] = (), stacklevel: int = 3
) -> pd.DataFrame:
    """Rename the markers of a checked table to channels; drop those without one or unscored, and types that need them.

    ``stacklevel`` is that of the warning; 3 if a public function calls this.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"`missing` is {missing!r}; it must be 'error' or 'skip'.")
    # A column without any sign asks for nothing.
    asked = [marker for marker in markers_of(table) if (table[marker] != "").any()]
    channel_of, lost = match_markers(asked, channels)
    if lost and missing == "error":
        # Of the two dozen markers that a panel may lack, most resemble none of its own: no hint at CD45 for CD14.
        near = [(name, nearest(name, channels, 0.8)) for name in lost]
        hints = [f"{name!r} (near: {', '.join(map(repr, names))})" if names else repr(name) for name, names in near]
        raise KeyError(
            f"The table has no channel for {len(lost)} marker(s): pass missing='skip' to do without them and the types "
            f"that need them, or rename them in the signatures. They are {', '.join(hints)}."
        )
    lost += [marker for marker, channel in channel_of.items() if channel in set(unscored)]
    kept, dropped, wider = _without_markers(table[[PARENT, SOURCE, *asked]], lost)
    if kept.empty:
        raise ValueError(f"Without the marker(s) {lost}, the signatures tell no type apart; the panel has {channels}.")
    if lost:
        message = f"There are no scores of the marker(s) {lost}."
        message += f" Left out, as they need them: {dropped}." if dropped else ""
        message += f" Wider, as these are not asked of them any more: {wider}." if wider else ""
        warnings.warn(message, stacklevel=stacklevel)
    _raise_problems(list(tree_problems(kept)), f"Without the marker(s) {lost}, the signatures cannot be used")
    return kept.rename(columns=channel_of)


def _without_markers(table: pd.DataFrame, lost: Sequence[str]) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Drop markers and the types that cannot do without; return the table, and names of dropped and of wider types.

    Dropped are types that add a lost positive marker or have no other rule. Their subtypes move up and keep the rules
    that are left. Wider are types that lose a rule of their own or of a dropped parent.
    """
    kept, wider = table.drop(columns=list(lost)), []
    dropped: dict[str, CellType] = {}
    for cell_type in build_tree(table):
        added, parents = list(cell_type.added), list(cell_type.parents)
        needed = any(positive and marker in lost for marker, positive in added)
        if needed or all(marker in lost for marker, _ in added):
            dropped[cell_type.name] = cell_type
            continue
        while parents and parents[-1] in dropped:
            added += dropped[parents.pop()].added
        kept.loc[cell_type.name, PARENT] = parents[-1] if parents else ""
        for marker, positive in added:
            if marker not in lost:
                kept.loc[cell_type.name, marker] = "+" if positive else "-"
        if any(marker in lost for marker, _ in added):
            wider.append(cell_type.name)
    return kept.drop(index=list(dropped)), list(dropped), wider


def scored_tree(table: pd.DataFrame, scores: NDArray, channels: Sequence[str], layer: str) -> list[CellType]:
    """Return the types that the channels with scores can distinguish; to be called by a public function."""
    if outside_unit_interval(scores).any():
        raise ValueError(f"Layer {layer!r} has values outside [0, 1]; cell types are for scores or calls.")
    asked = markers_of(table)
    return build_tree(on_panel(table, asked, "skip", set(asked) - set(channels), stacklevel=4))


def _read_table(signatures: Signatures) -> tuple[pd.DataFrame, list[str]]:
    """Read a table, without duplicates, of ``"+"``, ``"-"`` and ``""``; list the problems of its cells and names."""
    table = _raw_table(signatures)
    corner = _text(table.index.name)
    table = table.set_axis(table.columns.map(_text), axis=1).set_axis(table.index.map(_text)).rename_axis(index=None)
    if len(table) and (corner == PARENT or list(table.index) == [str(i) for i in range(len(table))]):
        raise ValueError(
            "A signature table has the names of the types as its index (of a CSV file: the first column); this has "
            f"{list(table.index)[:3]}. Set it by `table.set_index('type')` or `pd.read_csv(path, index_col=0)`."
        )
    if PARENT not in table.columns:
        raise ValueError(
            f"A signature table needs a column {PARENT!r}, empty for types without one; this has "
            f"{list(table.columns)[:10]}. A CSV file must be separated by commas."
        )
    problems = list(_name_problems(table))
    table = table.loc[(table.index != "") & ~table.index.duplicated(), ~table.columns.duplicated()].map(_text)
    markers = [name for name in markers_of(table) if name]
    if not len(table) or not markers:
        raise ValueError(
            f"A signature table needs types and markers; this has {len(table)} and {len(markers)} of them."
        )
    signs = table[markers].map(lambda text: _SIGNS.get(text.casefold(), "?"))
    for (name, marker), text in table[markers].where(signs == "?").stack().dropna().items():
        problems.append(f"{name!r} has {text!r} for {marker!r}; it must be '+', '-' or empty")
    return table.reindex(columns=[PARENT, SOURCE], fill_value="").join(signs.replace("?", "")), problems


def _raw_table(signatures: Signatures) -> pd.DataFrame:
    if isinstance(signatures, pd.DataFrame):
        return signatures
    if not isinstance(signatures, str | Path | None):
        raise TypeError(f"`signatures` is a {type(signatures).__name__}; it must be a DataFrame, a path, or None.")
    if signatures is not None:
        columns_of(Path(signatures))
    path = files("nimbus_sd.tl").joinpath("data/signatures.csv") if signatures is None else Path(signatures)
    # Without a header, because pandas renames the second of two equal columns.
    text = StringIO(path.read_bytes().decode("utf-8-sig"))
    rows = pd.read_csv(text, header=None, dtype=str, keep_default_na=False)
    table = rows.iloc[1:, 1:].set_axis(rows.iloc[0, 1:].to_list(), axis=1)
    return table.set_axis(pd.Index(rows.iloc[1:, 0], name=rows.iloc[0, 0]))


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value).strip()


def _name_problems(table: pd.DataFrame) -> Iterator[str]:
    for names, what in ((table.index, "type"), (table.columns, "column")):
        yield from (f"the {what} {name!r} is there twice" for name in names[names.duplicated()].unique() if name)
        if (names == "").any():
            yield f"a {what} has no name"
    for name in table.index[table.index != ""].unique():
        try:
            check_name(name, "type")
        except ValueError as error:
            yield str(error).rstrip(".")
    for name in table.index.intersection([UNASSIGNED, AMBIGUOUS]):
        yield f"{name!r} is kept for cells without a type"


def _raise_problems(problems: Sequence[str], what: str) -> None:
    if problems:
        listed = "; ".join(f"({i}) {problem}" for i, problem in enumerate(problems[:_MAX_PROBLEMS], 1))
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise ValueError(f"{what}: {listed}{more}.")
