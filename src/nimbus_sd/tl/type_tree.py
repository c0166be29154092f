"""Cell types as a tree: signs inherited from parents, contradictions between types, and probabilities of types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import permutations, product
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PARENT, SOURCE = "parent", "source"

#: A marker and whether it must be positive.
Rule: TypeAlias = "tuple[str, bool]"

#: Cells at a time: arrays of this length stay in the processor's cache.
_CELLS = 1 << 15


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
        return " ".join(map(rule_text, self.rules))


def rule_text(rule: Rule) -> str:
    """Write a rule as ``"CD3+"``."""
    return f"{rule[0]}{'+' if rule[1] else '-'}"


def markers_of(table: pd.DataFrame) -> list[str]:
    """Names of the marker columns of a signature table."""
    return [name for name in table.columns if name not in (PARENT, SOURCE)]


def build_tree(table: pd.DataFrame) -> list[CellType]:
    """List the types of a signature table, subtypes after their parent; those that no root leads to are left out."""
    signs = table[markers_of(table)]
    tree: list[CellType] = []

    def grow(parents: tuple[str, ...], inherited: tuple[Rule, ...]) -> None:
        for name, row in signs[table[PARENT] == (parents[-1] if parents else "")].iterrows():
            asked = [(str(marker), sign == "+") for wanted in "+-" for marker, sign in row.items() if sign == wanted]
            added = tuple(rule for rule in asked if rule not in inherited)
            tree.append(CellType(str(name), parents, inherited + added, added))
            grow((*parents, str(name)), inherited + added)

    grow((), ())
    return tree


def tree_problems(table: pd.DataFrame) -> Iterator[str]:
    """Describe what contradicts itself in a signature table, one sentence for each problem."""
    for name, parent in table[PARENT].items():
        if parent and parent not in table.index:
            near = get_close_matches(parent, list(map(str, table.index)), n=1)
            yield f"{name!r} has the unknown parent {parent!r}" + (f" (is it {near[0]!r}?)" if near else "")
    rooted = table.assign(**{PARENT: table[PARENT].where(table[PARENT].isin(table.index), "")})
    reached = [cell_type.name for cell_type in build_tree(rooted)]
    if circle := [name for name in table.index if name not in reached]:
        yield f"following the parents of {circle} leads in a circle"
    tree = build_tree(table)
    by_name = {cell_type.name: cell_type for cell_type in tree}
    for cell_type in tree:
        for (marker, positive), ancestor in product(cell_type.added, cell_type.parents):
            if (marker, not positive) in by_name[ancestor].added:
                this, that = rule_text((marker, positive)), rule_text((marker, not positive))
                yield f"{cell_type.name!r} is {this}, but its ancestor {ancestor!r} is {that}"
        if not cell_type.added:
            parent = f"its parent {cell_type.parent!r}" if cell_type.parent else "others"
            yield f"no marker separates {cell_type.name!r} from {parent}"
    reported: set[frozenset[str]] = set()
    for first, second in permutations(tree, 2):
        pair = frozenset((first.name, second.name))
        if not _compete(first, second) or not second.added or not set(second.rules) <= set(first.rules):
            continue
        # Subtypes of a type with this problem have it as well; naming the type is enough.
        inherited = first.parent != second.parent and set(second.rules) <= set(by_name[first.parent].rules)
        if not inherited and pair not in reported:
            reported.add(pair)
            yield (
                f"no marker separates {first.name!r} ({first.signature}) from {second.name!r} ({second.signature}): "
                f"each cell of the first is one of the second; make it a subtype, or give {second.name!r} a negative "
                "marker"
            )


def _compete(first: CellType, second: CellType) -> bool:
    """Whether the second is a sibling of the first or of one of its ancestors, so that a cell cannot be both."""
    in_line = second.name in (*first.parents, first.name)
    return not in_line and second.parents == first.parents[: len(second.parents)]


def blocks(scores: NDArray, channels: Sequence[str]) -> Iterator[tuple[slice, Mapping[Rule, NDArray]]]:
    """Yield consecutive cells of a (cells, channels) matrix, with the probability that they follow each rule."""
    for start in range(0, len(scores), _CELLS):
        cells = slice(start, start + _CELLS)
        positive = dict(zip(channels, np.ascontiguousarray(scores[cells].T), strict=True))
        yield (
            cells,
            {(name, sign): row if sign else 1 - row for name, row in positive.items() for sign in (True, False)},
        )


def type_probabilities(tree: Sequence[CellType], follows: Mapping[Rule, NDArray]) -> NDArray[np.float32]:
    """Return the probability, (types, cells), that a cell follows a type's rules and those of no competing type.

    At most one of two competing types holds, and a subtype only where its parent does. So the probabilities of the
    roots, of none and of several of them add up to 1, and those of subtypes to at most their parent's.
    """
    fits = {"": np.ones_like(next(iter(follows.values())))}
    probabilities = []
    for cell_type in tree:
        fit = fits[cell_type.parent]
        for rule in cell_type.added:
            fit = fit * follows[rule]
        fits[cell_type.name] = fit
        opposite = {(marker, not positive) for marker, positive in cell_type.rules}
        rivals = [other for other in tree if _compete(cell_type, other) and opposite.isdisjoint(other.rules)]
        # What both types ask for is given already, and must not count twice.
        patterns = [frozenset(other.rules) - frozenset(cell_type.rules) for other in rivals]
        probabilities.append(fit * none_of(patterns, follows))
    return np.stack(probabilities)


def none_of(patterns: Iterable[frozenset[Rule]], follows: Mapping[Rule, NDArray]) -> NDArray:
    """Return the probability that a cell follows none of some sets of rules.

    Exact for independent markers, however the patterns overlap: it is expanded over one marker after the other, first
    those of the shortest pattern, and each intermediate set of patterns is evaluated once.
    """
    certain = np.ones_like(next(iter(follows.values())))
    answers: dict[frozenset[frozenset[Rule]], NDArray] = {frozenset(): certain}

    def answer(question: frozenset[frozenset[Rule]]) -> NDArray:
        if frozenset() in question:
            return np.zeros_like(certain)
        if question not in answers:
            uses = Counter(marker for pattern in question for marker, _ in pattern)
            shortest = min(question, key=lambda pattern: (len(pattern), sorted(pattern)))
            marker = max(sorted(marker for marker, _ in shortest), key=lambda name: uses[name])
            positive, negative = (
                answer(frozenset(part - {(marker, sign)} for part in question if (marker, not sign) not in part))
                for sign in (True, False)
            )
            answers[question] = positive * follows[marker, True] + negative * follows[marker, False]
        return answers[question]

    return answer(frozenset(patterns))
