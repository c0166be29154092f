"""How probable each cell type is, if the scores are probabilities of independent markers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.tl._signature_tree import CellType, Rule, compete, contradict

Floats: TypeAlias = "NDArray[np.float32]"
#: Rules that a cell may follow, all of them together.
Pattern: TypeAlias = "frozenset[Rule]"

#: Cells at a time: arrays of this length stay in the processor's cache.
_CELLS = 1 << 15


def blocks(scores: Floats, channels: Sequence[str]) -> Iterator[tuple[slice, Mapping[Rule, Floats]]]:
    """Yield some cells at a time, and for each rule the probability that they follow it.

    Parameters
    ----------
    scores
        Cells x channels, in [0, 1].
    channels
        Their names.
    """
    for start in range(0, len(scores), _CELLS):
        cells = slice(start, min(start + _CELLS, len(scores)))
        positive = np.ascontiguousarray(scores[cells].T)
        yield (
            cells,
            {(name, True): row for name, row in zip(channels, positive, strict=True)}
            | {(name, False): 1 - row for name, row in zip(channels, positive, strict=True)},
        )


def type_probabilities(tree: Sequence[CellType], follows: Mapping[Rule, Floats]) -> Iterator[Floats]:
    """Yield for each type the probability that a cell follows its rules, and those of no competing type.

    Parameters
    ----------
    tree
        The types, subtypes after their parent.
    follows
        From `blocks`.

    Notes
    -----
    Of two competing types, at most one holds by this definition, and a subtype holds only where its parent does. So
    the probabilities of the roots, of none of them and of several of them at once add up to 1, and those of subtypes
    to their parent's or less.
    """
    fits: dict[str, Floats] = {}
    for one in tree:
        probability = fits[one.parent] if one.parent else np.ones_like(next(iter(follows.values())))
        for rule in one.added:
            probability = probability * follows[rule]
        fits[one.name] = probability
        competing = [other for other in tree if compete(one, other) and not contradict(one.rules, other.rules)]
        # What the types share is given already, so it does not count twice.
        beyond = [frozenset(other.rules) - frozenset(one.rules) for other in competing]
        yield probability * none_of(beyond, follows) if beyond else probability


def none_of(patterns: Iterable[Pattern], follows: Mapping[Rule, Floats]) -> Floats:
    """Probability that a cell follows none of some patterns.

    Exact for independent markers, however the patterns overlap: it is expanded over one marker after the other, first
    those of the shortest pattern, and every sub-question is answered once.
    """
    one = np.ones_like(next(iter(follows.values())))
    answers: dict[frozenset[Pattern], Floats] = {frozenset(): one}

    def answer(question: frozenset[Pattern]) -> Floats:
        if frozenset() in question:
            return np.zeros_like(one)
        if question not in answers:
            uses = Counter(marker for pattern in question for marker, _ in pattern)
            shortest = min(question, key=lambda pattern: (len(pattern), sorted(pattern)))
            marker = max(sorted(marker for marker, _ in shortest), key=lambda name: uses[name])
            positive, negative = (answer(_given(question, (marker, sign))) for sign in (True, False))
            answers[question] = positive * follows[marker, True] + negative * follows[marker, False]
        return answers[question]

    return answer(frozenset(patterns))


def _given(question: frozenset[Pattern], rule: Rule) -> frozenset[Pattern]:
    """Return what is left of patterns once a marker's sign is known."""
    marker, positive = rule
    return frozenset(pattern - {rule} for pattern in question if (marker, not positive) not in pattern)
