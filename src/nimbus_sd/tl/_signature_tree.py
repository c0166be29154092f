"""Signatures as a tree of cell types: what is asked of a cell, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import permutations
from typing import TypeAlias

import pandas as pd

from nimbus_sd.tl._signature_table import PARENT, markers_of

#: A marker and whether it must be positive.
Rule: TypeAlias = "tuple[str, bool]"


@dataclass(frozen=True)
class CellType:
    """A cell type of the tree.

    Attributes
    ----------
    name
        Its name.
    parents
        Its ancestors, from the root to its parent.
    rules
        What its ancestors ask, then what it adds, each with the positive markers first.
    added
        What it adds.
    """

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
        """The rules as one reads them: ``"CD45+ CD3+ CD20-"``."""
        return " ".join(map(rule_text, self.rules))


def rule_text(rule: Rule) -> str:
    """Write a rule as ``"CD3+"``."""
    return f"{rule[0]}{'+' if rule[1] else '-'}"


def build_tree(table: pd.DataFrame) -> list[CellType]:
    """Order types so that subtypes follow their parent, and hand down what parents ask.

    Types whose parents lead to no root are left out; `tree_problems` names them.
    """
    children: dict[str, list[str]] = {}
    for name, parent in table[PARENT].items():
        children.setdefault(str(parent), []).append(str(name))
    own = {str(name): _own_rules(row) for name, row in table[markers_of(table)].iterrows()}
    tree: list[CellType] = []

    def grow(parents: tuple[str, ...], inherited: tuple[Rule, ...]) -> None:
        for name in children.get(parents[-1] if parents else "", []):
            added = tuple(rule for rule in own[name] if rule not in inherited)
            tree.append(CellType(name, parents, inherited + added, added))
            grow((*parents, name), inherited + added)

    grow((), ())
    return tree


def tree_problems(table: pd.DataFrame) -> Iterator[str]:
    """Say what makes a table contradict itself, one sentence for each problem."""
    tree = build_tree(table)
    for name, parent in table[PARENT].items():
        if parent and parent not in table.index:
            near = get_close_matches(parent, [str(one) for one in table.index], n=1)
            yield f"{name!r} has the unknown parent {parent!r}" + (f" (is it {near[0]!r}?)" if near else "")
    if circle := [str(name) for name in table.index if _leads_in_a_circle(str(name), table[PARENT])]:
        yield f"following the parents of {circle} leads in a circle"
    by_name = {one.name: one for one in tree}
    for one in tree:
        for marker, positive in one.added:
            for ancestor in (by_name[name] for name in one.parents):
                if (marker, not positive) in ancestor.added:
                    yield (
                        f"{one.name!r} is {rule_text((marker, positive))}, but its ancestor {ancestor.name!r} is "
                        f"{rule_text((marker, not positive))}"
                    )
        if not one.added:
            yield f"no marker separates {one.name!r} from " + (f"its parent {one.parent!r}" if one.parent else "others")
    said: set[frozenset[str]] = set()
    for one, other in permutations(tree, 2):
        if not compete(one, other) or not other.added or not set(other.rules) <= set(one.rules):
            continue
        # Subtypes of a type with this problem have it, too; to name the type is enough.
        inherited = one.parent != other.parent and set(other.rules) <= set(by_name[one.parent].rules)
        pair = frozenset((one.name, other.name))
        if not inherited and pair not in said:
            said.add(pair)
            yield _unseparated(one, other)


def compete(one: CellType, other: CellType) -> bool:
    """Whether the other is a sibling of this type or of one of its ancestors, so that a cell may be only one of them.

    Siblings of ancestors count, for a cell of this type is of its ancestors, too.
    """
    in_line = other.name == one.name or other.name in one.parents
    return not in_line and other.parents == one.parents[: len(other.parents)]


def contradict(one: Sequence[Rule], other: Sequence[Rule]) -> bool:
    """Whether no cell can follow both."""
    return any((marker, not positive) in other for marker, positive in one)


def _own_rules(row: pd.Series) -> tuple[Rule, ...]:
    return tuple((str(marker), sign == "+") for wanted in "+-" for marker, sign in row.items() if sign == wanted)


def _leads_in_a_circle(name: str, parents: pd.Series) -> bool:
    seen = set()
    while name in parents.index and name not in seen:
        seen.add(name)
        name = parents[name]
    return name in seen


def _unseparated(one: CellType, other: CellType) -> str:
    if set(one.rules) == set(other.rules):
        return f"no marker separates {one.name!r} from {other.name!r}: both are {one.signature}"
    return (
        f"no marker separates {one.name!r} ({one.signature}) from {other.name!r} ({other.signature}): each cell of "
        f"the first is one of the second; make it a subtype, or give {other.name!r} a negative marker"
    )
