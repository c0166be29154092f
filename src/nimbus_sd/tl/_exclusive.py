"""Pairs of markers that one cell hardly ever has both of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from nimbus_sd.tl._markers import canonical, nearest

# Lineages of which a mature cell has one. Thymocytes have both CD4 and CD8, and tumour cells may gain or lose any of
# these: a pair is a reason to look, no proof.
_PAIRS = (
    ("CD3", "CD20"),
    ("CD3", "CD19"),
    ("CD3", "CD68"),
    ("CD3", "CD31"),
    ("CD20", "CD68"),
    ("CD20", "CD31"),
    ("CD4", "CD8"),
    ("Kappa", "Lambda"),
    ("PanCK", "CD45"),
    ("PanCK", "CD3"),
    ("PanCK", "CD20"),
    ("PanCK", "CD68"),
    ("PanCK", "CD31"),
)


def exclusive_pairs(
    channels: Sequence[str], wanted: Sequence[Sequence[str]] | Sequence[str] | None
) -> list[tuple[str, str]]:
    """Give the pairs that a user names, or those known ones of which the table has both markers.

    Parameters
    ----------
    channels
        Names in the table.
    wanted
        Pairs of them, or one pair; None for those known.

    Raises
    ------
    KeyError
        If a marker does not exist.
    ValueError
        If a pair is not one of two different markers.
    """
    if wanted is None:
        named: dict[str, list[str]] = {}
        for name in channels:
            named.setdefault(canonical(name), []).append(name)
        known = [(named.get(canonical(a), []), named.get(canonical(b), [])) for a, b in _PAIRS]
        return [pair for first, second in known for pair in product(first, second)]
    given: list[Sequence[str]] = [wanted] if isinstance(wanted, str) else list(wanted)
    if len(given) == 2 and all(isinstance(name, str) for name in given):
        given = [[str(name) for name in given]]
    pairs = []
    for pair in given:
        names = [pair] if isinstance(pair, str) else [str(name) for name in pair]
        if len(set(names)) != 2 or len(names) != 2:
            raise ValueError(f"`exclusive` has {pair!r}; each entry must be two different markers, as ('CD3', 'CD20').")
        if missing := [name for name in names if name not in channels]:
            near = [match for name in missing for match in nearest(name, channels)]
            raise KeyError(
                f"`exclusive` names {', '.join(map(repr, missing))}, which the table does not have; it has "
                f"{list(channels)}." + (f" Did you mean {', '.join(map(repr, near))}?" if near else "")
            )
        pairs.append((names[0], names[1]))
    return pairs
