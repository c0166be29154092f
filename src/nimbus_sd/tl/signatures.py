"""Signatures of cell types: tables read in any spelling, checked as a tree, and matched to a panel's channels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import permutations, product
from pathlib import Path
from typing import Literal, TypeAlias

import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import outside_unit_interval
from nimbus_sd._text import as_text, columns_of, read_texts
from nimbus_sd.tl._markers import match_markers, nearest
from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED, check_name

Signatures: TypeAlias = pd.DataFrame | str | Path | None
Missing: TypeAlias = Literal["error", "skip"]
#: A marker and whether it must be positive.
Rule: TypeAlias = "tuple[str, bool]"

_PARENT, _SOURCE = "parent", "source"

_SIGNS = {
    **dict.fromkeys(("+", "pos", "positive"), "+"),
    **dict.fromkeys(("-", "\N{MINUS SIGN}", "\N{EN DASH}", "neg", "negative"), "-"),
    **dict.fromkeys(("", "any"), ""),
}
_MAX_PROBLEMS = 20


@dataclass(frozen=True)
class CellType:
    """A cell type: its ancestors from the root down, the rules of its cells, and those that its parent lacks."""

    name: str
    parents: tuple[str, ...]
    rules: tuple[Rule, ...]
    added: tuple[Rule, ...]

    @property
    def parent(self) -> str:
        """The parent's name, empty for a root."""
        return self.parents[-1] if self.parents else ""

    @property
    def signature(self) -> str:
        """The rules as text: ``"CD45+ CD3+ CD20-"``."""
        return " ".join(map(_rule_text, self.rules))

    def competes_with(self, other: CellType) -> bool:
        """Whether the other is a sibling of this type or of one of its ancestors, so that a cell cannot be both."""
        in_line = other.name in (*self.parents, self.name)
        return not in_line and other.parents == self.parents[: len(other.parents)]


def _rule_text(rule: Rule) -> str:
    """Write a rule as ``"CD3+"``."""
    return f"{rule[0]}{'+' if rule[1] else '-'}"


def markers_of(table: pd.DataFrame) -> list[str]:
    """Names of the marker columns of a signature table."""
    return [name for name in table.columns if name not in (_PARENT, _SOURCE)]


def signatures() -> pd.DataFrame:
    """Return the signatures of 28 immune, epithelial and stromal cell types by 28 markers, each with a source.

    They are human and not specific to a tissue: a starting point, to be cut down and extended for the tissue at hand.

    Returns
    -------
    DataFrame
        Types x (``parent``, ``source``, markers), all text: ``"+"`` positive, ``"-"`` negative, ``""`` any (or none).

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
    ancestor, and types that no marker separates from their parent, a sibling, or one of an ancestor.

    Parameters
    ----------
    signatures, missing
        As for :func:`cell_types`.
    channels
        Names of a panel's channels, such as ``adata.var_names``. None leaves the markers as they are.

    Returns
    -------
    DataFrame
        As of :func:`signatures`; with ``channels``, the types that the panel can distinguish, and the markers under its
        names. Warns of markers that are skipped, and of the types that change with them.

    Raises
    ------
    KeyError
        If markers have no channel.
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
    _raise_problems([*problems, *_tree_problems(table)], "The signature table cannot be used")
    return table


def on_panel(
    table: pd.DataFrame, channels: Sequence[str], missing: Missing, unscored: Iterable[str] = (), stacklevel: int = 3
) -> pd.DataFrame:
    """Rename a checked table's markers to channels; drop those without one or unscored, and types that need them."""
    if missing not in ("error", "skip"):
        raise ValueError(f"`missing` is {missing!r}; it must be 'error' or 'skip'.")
    # A column without any sign asks for nothing.
    asked = [marker for marker in markers_of(table) if (table[marker] != "").any()]
    channel_of, lost = match_markers(asked, channels)
    if lost and missing == "error":
        # Of the two dozen markers that a panel may lack, most resemble none of its own: no hint at CD45 for CD14.
        near = [(name, nearest(name, channels, 0.8)) for name in lost]
        hints = [f"{name!r} (near: {', '.join(map(repr, names))})" if names else repr(name) for name, names in near]
        advice = "rename them in the signatures, or pass missing='skip' to do without them and types that need them"
        raise KeyError(f"The table has no channel for {len(lost)} marker(s) {', '.join(hints)}: {advice}.")
    lost += [marker for marker, channel in channel_of.items() if channel in set(unscored)]
    kept, dropped, wider = _without_markers(table[[_PARENT, _SOURCE, *asked]], lost)
    # What is left of a type must not be part of another, such as SMA+ without PanCK+.
    while vague := next((b.name for a, b in _alike(build_tree(kept)) if set(a.rules) > set(b.rules)), None):
        gone = [kind.name for kind in build_tree(kept) if vague in (*kind.parents, kind.name)]
        kept, dropped, wider = kept.drop(index=gone), [*dropped, *gone], [kind for kind in wider if kind not in gone]
    if kept.empty:
        raise ValueError(f"Without the marker(s) {lost}, the signatures tell no type apart; the panel has {channels}.")
    if lost:
        message = f"There are no scores of the marker(s) {lost}."
        message += f" Left out, as they need them: {dropped}." if dropped else ""
        message += f" Wider, as these are not asked of them any more: {wider}." if wider else ""
        warnings.warn(message, stacklevel=stacklevel)
    _raise_problems(list(_tree_problems(kept)), f"Without the marker(s) {lost}, the signatures cannot be used")
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
        if any(positive and marker in lost for marker, positive in added) or all(rule[0] in lost for rule in added):
            dropped[cell_type.name] = cell_type
            continue
        while parents and parents[-1] in dropped:
            added += dropped[parents.pop()].added
        kept.loc[cell_type.name, _PARENT] = parents[-1] if parents else ""
        left = [rule for rule in added if rule[0] not in lost]
        for marker, positive in left:
            kept.loc[cell_type.name, marker] = "+" if positive else "-"
        wider += [cell_type.name] if len(left) < len(added) else []
    return kept.drop(index=list(dropped)), list(dropped), wider


def type_tree(table: pd.DataFrame, scores: NDArray, channels: Sequence[str], layer: str) -> list[CellType]:
    """Return the types that the channels with scores can distinguish; to be called by a public function."""
    if outside_unit_interval(scores).any():
        raise ValueError(f"Layer {layer!r} has values outside [0, 1]; cell types are for scores or calls.")
    asked = markers_of(table)
    return build_tree(on_panel(table, asked, "skip", set(asked) - set(channels), stacklevel=4))


def build_tree(table: pd.DataFrame) -> list[CellType]:
    """List the types of a signature table, subtypes after their parent; those that no root leads to are left out."""
    signs = table[markers_of(table)]
    tree: list[CellType] = []

    def grow(parents: tuple[str, ...], inherited: tuple[Rule, ...]) -> None:
        for name, row in signs[table[_PARENT] == (parents[-1] if parents else "")].iterrows():
            asked = [(str(marker), sign == "+") for wanted in "+-" for marker, sign in row.items() if sign == wanted]
            added = tuple(rule for rule in asked if rule not in inherited)
            tree.append(CellType(str(name), parents, inherited + added, added))
            grow((*parents, str(name)), inherited + added)

    grow((), ())
    return tree


def _tree_problems(table: pd.DataFrame) -> Iterator[str]:
    """Describe what contradicts itself in a signature table, one sentence for each problem."""
    for name, parent in table[_PARENT].items():
        if parent and parent not in table.index:
            near = get_close_matches(parent, list(map(str, table.index)), n=1)
            yield f"{name!r} has the unknown parent {parent!r}" + (f" (is it {near[0]!r}?)" if near else "")
    rooted = table.assign(**{_PARENT: table[_PARENT].where(table[_PARENT].isin(table.index), "")})
    reached = [cell_type.name for cell_type in build_tree(rooted)]
    if circle := [name for name in table.index if name not in reached]:
        yield f"following the parents of {circle} leads in a circle"
    tree = build_tree(table)
    by_name = {cell_type.name: cell_type for cell_type in tree}
    for cell_type in tree:
        for (marker, positive), ancestor in product(cell_type.added, cell_type.parents):
            if (marker, not positive) in by_name[ancestor].added:
                this, that = _rule_text((marker, positive)), _rule_text((marker, not positive))
                yield f"{cell_type.name!r} is {this}, but its ancestor {ancestor!r} is {that}"
        if not cell_type.added:
            parent = f"its parent {cell_type.parent!r}" if cell_type.parent else "others"
            yield f"no marker separates {cell_type.name!r} from {parent}"
    for first, second in _alike(tree):
        pair = f"{first.name!r} ({first.signature}) from {second.name!r} ({second.signature})"
        yield f"no marker separates {pair}: make the first a subtype, or give the second a negative marker"


def _alike(tree: Sequence[CellType]) -> Iterator[tuple[CellType, CellType]]:
    """Find pairs of competing types of which the first follows all rules of the second, each pair once."""
    by_name = {cell_type.name: cell_type for cell_type in tree}
    reported: list[set[str]] = []
    for first, second in permutations(tree, 2):
        asked, names = set(second.rules), {first.name, second.name}
        if not first.competes_with(second) or not second.added or not asked <= set(first.rules):
            continue
        # Subtypes of a type with this problem have it as well; naming the type is enough.
        inherited = first.parent != second.parent and asked <= set(by_name[first.parent].rules)
        if not inherited and names not in reported:
            reported.append(names)
            yield first, second


def _read_table(signatures: Signatures) -> tuple[pd.DataFrame, list[str]]:
    """Read a table, without duplicates, of ``"+"``, ``"-"`` and ``""``; list the problems of its cells and names."""
    table = _raw_table(signatures)
    corner = as_text(table.index.name)
    table = table.set_axis(map(as_text, table.columns), axis=1).set_axis(map(as_text, table.index))
    if len(table) and (corner == _PARENT or list(table.index) == [str(i) for i in range(len(table))]):
        rule = "A signature table has the types as its index (of a CSV file, the first column)"
        raise ValueError(f"{rule}; this has {list(table.index)[:3]}. Use `table.set_index('type')`.")
    if _PARENT not in table.columns:
        raise ValueError(f"A signature table needs a column {_PARENT!r}; this has {list(table.columns)[:10]}.")
    problems = list(_name_problems(table))
    table = table.loc[(table.index != "") & ~table.index.duplicated(), ~table.columns.duplicated()].map(as_text)
    markers = [name for name in markers_of(table) if name]
    if not len(table) or not markers:
        raise ValueError(f"A signature table needs types and markers; this has {len(table)} and {len(markers)}.")
    signs = table[markers].map(lambda text: _SIGNS.get(text.casefold(), "?"))
    for (name, marker), text in table[markers].where(signs == "?").stack().dropna().items():
        problems.append(f"{name!r} has {text!r} for {marker!r}; it must be '+', '-' or empty")
    return table.reindex(columns=[_PARENT, _SOURCE], fill_value="").join(signs.replace("?", "")), problems


def _raw_table(signatures: Signatures) -> pd.DataFrame:
    if isinstance(signatures, pd.DataFrame):
        return signatures
    if not isinstance(signatures, str | Path | None):
        raise TypeError(f"`signatures` is a {type(signatures).__name__}; it must be a DataFrame, a path, or None.")
    path = Path(__file__).with_name("data") / "signatures.csv" if signatures is None else Path(signatures)
    columns_of(path)
    return read_texts(path)


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
