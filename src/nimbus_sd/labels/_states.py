"""What a label can say, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

#: Label of each state; not judged is NaN and has no word.
STATES: Final[Mapping[str, float]] = {
    "positive": 1.0,
    "likely positive": 0.75,
    "undetermined": 0.5,
    "likely negative": 0.25,
    "negative": 0.0,
}
#: State of each label.
WORDS: Final[Mapping[float, str]] = {label: word for word, label in STATES.items()}


def listed(names: Iterable[object], most: int = 8) -> str:
    """Write names one after the other, and how many there are if they are too many."""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")
