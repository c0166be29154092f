"""From probabilities to a type for each cell, and the reason in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED
from nimbus_sd.tl._signature_tree import CellType, Rule, rule_text
from nimbus_sd.tl._type_probability import Floats, blocks, none_of, type_probabilities

#: Codes of cells without a type; those of others count the types.
NO_TYPE, SEVERAL = -1, -2


@dataclass(frozen=True)
class Called:
    """Some cells with their types.

    Attributes
    ----------
    cells
        Which of the cells these are.
    probabilities
        Types x cells, from `type_probabilities`.
    code
        Position of each cell's type, or `NO_TYPE`, `SEVERAL`.
    probability
        That what the code says is so.
    reason
        What decided, one text for each cell.
    """

    cells: slice
    probabilities: Floats
    code: NDArray[np.int16]
    probability: Floats
    reason: NDArray[np.object_]


def call_types(
    scores: Floats, channels: Sequence[str], tree: Sequence[CellType], min_probability: float
) -> Iterator[Called]:
    """Give each cell the deepest type that is more probable than a limit of at least 0.5.

    Parameters
    ----------
    scores
        Cells x channels, in [0, 1].
    channels
        Their names.
    tree
        Types, subtypes after their parent.
    min_probability
        The limit, in [0.5, 1).
    """
    texts = np.array([one.signature for one in tree], object)
    position = {one.name: i for i, one in enumerate(tree)}
    for cells, follows in blocks(scores, channels):
        probabilities = np.stack(list(type_probabilities(tree, follows)))
        code = np.full(probabilities.shape[1], NO_TYPE, np.int16)
        probability = np.zeros(len(code), np.float32)
        for i, one in enumerate(tree):
            # Above one half, at most one of a type's subtypes is possible, so their order does not matter.
            deeper = (code == position.get(one.parent, NO_TYPE)) & (probabilities[i] > min_probability)
            code[deeper] = i
            probability[deeper] = probabilities[i, deeper]
        reason = texts[np.maximum(code, 0)]
        if (without := np.flatnonzero(code == NO_TYPE)).size:
            rest = {rule: values[without] for rule, values in follows.items()}
            roots = [one for one in tree if not one.parents]
            none = none_of([frozenset(one.rules) for one in roots], rest)
            code[without] = np.where(none < 0.5, SEVERAL, NO_TYPE)
            probability[without] = np.maximum(none, 1 - none)
            reason[without] = np.where(none < 0.5, _candidates(roots, rest), _nearest(tree, rest))
        yield Called(cells, probabilities, code, probability, reason)


def type_names(tree: Sequence[CellType]) -> list[str]:
    """Names in the order of the codes, so that negative codes find theirs from the end."""
    return [*(one.name for one in tree), AMBIGUOUS, UNASSIGNED]


def _candidates(roots: Sequence[CellType], follows: Mapping[Rule, Floats]) -> NDArray[np.object_]:
    """Name the root that fits best, and the second where it is at least half as probable."""
    fits = np.stack([np.prod([follows[rule] for rule in one.rules], axis=0) for one in roots])
    first = fits.argmax(axis=0)
    best = fits.max(axis=0)
    np.put_along_axis(fits, first[None], -1, axis=0)
    second = np.where(fits.max(axis=0) >= best / 2, fits.argmax(axis=0), -1)
    text = [f"{one.name} ({one.signature})" for one in roots]
    pairs, which = np.unique(first * len(roots) + np.where(second < 0, first, second), return_inverse=True)
    named = [
        f"{text[a]} or {text[b]}" if a != b else f"perhaps {text[a]}"
        for a, b in (divmod(int(pair), len(roots)) for pair in pairs)
    ]
    return np.array(named, object)[which]


def _nearest(tree: Sequence[CellType], follows: Mapping[Rule, Floats]) -> NDArray[np.object_]:
    """Name the type whose rules disagree least with the scores, and the rule that disagrees most."""
    positive = {rule for one in tree for rule in one.rules if rule[1]}
    distance = [sum(1 - follows[rule] for rule in one.rules) for one in tree]
    # Of two types that miss as much, the one of which more positive markers are there says more.
    there = [sum((follows[rule] for rule in one.rules if rule[1]), np.float32(0)) for one in tree]
    closest = np.stack([far - near / 2 for far, near in zip(distance, there, strict=True)]).argmin(axis=0)
    reason = np.empty(len(closest), object)
    for i in np.unique(closest):
        mine = np.flatnonzero(closest == i)
        values = np.stack([follows[rule][mine] for rule in tree[i].rules])
        opposite = [rule_text((marker, not sign)) for marker, sign in tree[i].rules]
        unsure = [f"{marker} is unsure" for marker, _ in tree[i].rules]
        said = [[f"nearest is {tree[i].name}, but {what}" for what in row] for row in (opposite, unsure)]
        reason[mine] = np.array(said, object)[(values.min(axis=0) >= 0.5).astype(int), values.argmin(axis=0)]
    blank = np.all([follows[rule] < 0.5 for rule in positive], axis=0) if positive else np.zeros(len(closest), bool)
    reason[blank] = "no marker is positive"
    return reason
