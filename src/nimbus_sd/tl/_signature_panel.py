"""Signatures for a panel: checked, named as its channels, without the markers that it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import pandas as pd

from nimbus_sd.tl._markers import match_markers, nearest
from nimbus_sd.tl._signature_table import PARENT, Signatures, markers_of, read_table
from nimbus_sd.tl._signature_tree import Rule, build_tree, tree_problems

_MOST_TOLD = 20

Missing: TypeAlias = Literal["error", "skip"]


def checked_table(signatures: Signatures) -> pd.DataFrame:
    """Read a signature table and refuse one that contradicts itself, with all that is wrong in one error."""
    table, problems = read_table(signatures)
    _refuse([*problems, *tree_problems(table)], "The signature table cannot be used")
    return table


def on_panel(
    table: pd.DataFrame, channels: Sequence[str], missing: Missing, empty: Iterable[str] = (), stacklevel: int = 3
) -> pd.DataFrame:
    """Rename the markers to channels; leave out those that are missing, and the types that are lost with them.

    Parameters
    ----------
    table
        From `checked_table`.
    channels
        Names of the panel's channels.
    missing
        ``"error"`` refuses markers that no channel is of, ``"skip"`` leaves them out.
    empty
        Channels without any score, left out too.
    stacklevel
        For the warning.

    Returns
    -------
    The table as far as it can be told with these channels.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"`missing` is {missing!r}; it must be 'error' or 'skip'.")
    # A column without any sign asks for nothing.
    asked = [marker for marker in markers_of(table) if (table[marker] != "").any()]
    found, lost = match_markers(asked, channels)
    if lost and missing == "error":
        hints = [repr(name) + _near(name, channels) for name in lost]
        raise KeyError(
            f"The table has no channel for {len(lost)} marker(s): pass missing='skip' to do without them and the types "
            f"that need them, or rename them in the signatures. They are {', '.join(hints)}."
        )
    lost += [marker for marker, channel in found.items() if channel in set(empty)]
    kept, gone = _without(table[[*table.columns.difference(markers_of(table), sort=False), *asked]], lost)
    if kept.empty:
        raise ValueError(f"Without the marker(s) {lost}, the signatures tell no type apart; the panel has {channels}.")
    if lost:
        looser = _wider(table, kept, lost)
        left_out = f" Left out, as they need them: {gone}." if gone else ""
        wider = f" Wider, as these are not asked of them any more: {looser}." if looser else ""
        message = f"There are no scores of the marker(s) {lost}.{left_out}{wider}"
        warnings.warn(message, UserWarning, stacklevel=stacklevel)
    _refuse(list(tree_problems(kept)), f"Without the marker(s) {lost}, the signatures cannot be used")
    return kept.rename(columns=found)


def _without(table: pd.DataFrame, lost: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Drop markers, and types whose own positive marker is among them or that have no rule left.

    The subtypes of such a type move to its parent and keep its other rules.
    """
    kept = table.drop(columns=list(lost))
    gone = []
    handed_down: dict[str, list[Rule]] = {}
    for one in build_tree(table):
        left = [rule for rule in one.added if rule[0] not in lost]
        needed = any(positive and marker in lost for marker, positive in one.added)
        down = handed_down.pop(one.name, [])
        if left and not needed:
            for marker, positive in down:
                kept.loc[one.name, marker] = "+" if positive else "-"
            continue
        gone.append(one.name)
        for child in kept.index[kept[PARENT] == one.name]:
            kept.loc[child, PARENT] = kept.loc[one.name, PARENT]
            handed_down[child] = down + left
        kept = kept.drop(index=one.name)
    return kept, gone


def _wider(table: pd.DataFrame, kept: pd.DataFrame, lost: Sequence[str]) -> list[str]:
    """Name types that lose a rule of their own or of a parent that is left out; their subtypes do as they do."""
    rules = {one.name: set(one.rules) for one in build_tree(table)}
    own = {name: rules[name] - rules.get(parent, set()) for name, parent in kept[PARENT].items()}
    return [name for name, asked in own.items() if any(marker in lost for marker, _ in asked)]


def _near(name: str, channels: Sequence[str]) -> str:
    # Of the two dozen markers that a panel may lack, most are none of its others: no hints for CD14 and CD45.
    near = nearest(name, channels, 0.8)
    return f" (near: {', '.join(map(repr, near))})" if near else ""


def _refuse(problems: Sequence[str], what: str) -> None:
    if problems:
        told = "; ".join(f"({i}) {one}" for i, one in enumerate(problems[:_MOST_TOLD], 1))
        more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
        raise ValueError(f"{what}: {told}{more}.")
