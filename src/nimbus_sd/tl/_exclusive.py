"""Pairs of markers that one cell hardly ever has both of."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import product

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
# As compared: lower case, letters and digits only.
_SYNONYMS = {
    "CD3": ("cd3", "cd3e", "cd3d", "cd3epsilon"),
    "CD4": ("cd4",),
    "CD8": ("cd8", "cd8a", "cd8alpha"),
    "CD19": ("cd19",),
    "CD20": ("cd20", "ms4a1"),
    "CD31": ("cd31", "pecam1"),
    "CD45": ("cd45", "ptprc"),
    "CD68": ("cd68",),
    "Kappa": ("kappa", "kappalightchain", "igkappa", "igk"),
    "Lambda": ("lambda", "lambdalightchain", "iglambda", "igl"),
    "PanCK": ("panck", "pancytokeratin", "pankeratin", "cytokeratin", "keratin", "ck", "epithelialkeratin"),
}


def exclusive_pairs(channels: Sequence[str], wanted: Sequence[Sequence[str]] | None) -> list[tuple[str, str]]:
    """Give the pairs that a user names, or those known ones of which the table has both markers.

    Parameters
    ----------
    channels
        Names in the table.
    wanted
        Pairs of them; None for those known.

    Raises
    ------
    KeyError
        If a marker does not exist.
    ValueError
        If a pair is not one of two different markers.
    """
    if wanted is None:
        named = {
            marker: [name for name in channels if _plain(name) in synonyms] for marker, synonyms in _SYNONYMS.items()
        }
        return [pair for a, b in _PAIRS for pair in product(named[a], named[b])]
    pairs = []
    for pair in wanted:
        names = [pair] if isinstance(pair, str) else [str(name) for name in pair]
        if len(set(names)) != 2 or len(names) != 2:
            raise ValueError(f"`exclusive` has {pair!r}; each entry must be two different markers, as ('CD3', 'CD20').")
        if missing := [name for name in names if name not in channels]:
            near = [match for name in missing for match in get_close_matches(name, channels)]
            raise KeyError(
                f"`exclusive` names {', '.join(map(repr, missing))}, which the table does not have; it has "
                f"{list(channels)}." + (f" Did you mean {', '.join(map(repr, near))}?" if near else "")
            )
        pairs.append((names[0], names[1]))
    return pairs


def _plain(name: str) -> str:
    return "".join(letter for letter in str(name).lower() if letter.isalnum())
