"""Checks of settings, so that a wrong one is refused where it is given."""

from __future__ import annotations

from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Final

import numpy as np

_KINDS: Final[dict[str, tuple[Any, str]]] = {
    "int": (Integral, "a whole number"),
    "int | None": ((Integral, type(None)), "a whole number, or None"),
    "float": (Real, "a number"),
    "float | None": ((Real, type(None)), "a number, or None"),
}


def check(name: str, value: object, right: bool, what: str) -> None:
    """Raise a ValueError if a value is not right."""
    if not right:
        raise ValueError(f"{name} is {value!r}; it must be {what}.")


def check_numbers(settings: Any) -> None:
    """Raise a ValueError if a field of a dataclass is no number of its kind; make those of numpy Python's own."""
    for one in fields(settings):
        if one.type in _KINDS:
            (kind, what), value = _KINDS[one.type], getattr(settings, one.name)
            check(one.name, value, isinstance(value, kind) and not isinstance(value, bool), what)
            if isinstance(value, np.generic):
                object.__setattr__(settings, one.name, value.item())


def is_pair(value: object) -> bool:
    """Whether a value is two numbers."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(one, int | float) for one in value)


def seed_of(rng: object) -> int:
    """Return the seed of a run, by which it can be repeated and goes on where it was stopped."""
    right = isinstance(rng, int | np.integer) and not isinstance(rng, bool) and 0 <= rng < 2**63
    check("rng", rng, bool(right), "a whole number from 0 to 2**63 - 1, for a run goes on by its seed; no generator")
    return int(rng)  # type: ignore[call-overload]
