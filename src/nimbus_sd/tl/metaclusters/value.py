"""Which cluster is in which metacluster, and the steps that led there."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from nimbus_sd.tl._clusters import GREYS

# Okabe and Ito's colours for all kinds of colour vision, then Tol's muted ones, without black and near-doubles.
_PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
    "#332288", "#88ccee", "#117733", "#999933", "#ddcc77", "#882255", "#aa4499",
)  # fmt: skip
_GOLDEN = 0.618034


@dataclass(frozen=True)
class Step:
    """What was done once: the name of an editing function, and what it was given beside the value."""

    do: str
    given: tuple[tuple[str, str | tuple[str, ...]], ...]


@dataclass(frozen=True)
class Metaclusters:
    """An immutable mapping from clusters to metaclusters, as a start and the steps since.

    Made by :func:`start`, :func:`from_table` or :func:`load`. Two are equal if they have the same start and steps.

    Attributes
    ----------
    initial
        Pairs of cluster and metacluster at the start.
    initial_colors
        Pairs of metacluster and colour (``#rrggbb``) at the start, in the metaclusters' order.
    cells
        Pairs of cluster and its number of cells in the table that they were made from; empty if from none.
    steps
        What was done since.
    """

    initial: tuple[tuple[str, str], ...]
    initial_colors: tuple[tuple[str, str], ...]
    cells: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    steps: tuple[Step, ...] = field(default=(), init=False)
    # What the steps have come to.
    _mapping: dict[str, str] = field(init=False, repr=False, compare=False)
    _colors: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._set(_mapping=dict(self.initial), _colors=dict(self.initial_colors))

    @property
    def mapping(self) -> Mapping[str, str]:
        """The metacluster of each cluster."""
        return MappingProxyType(self._mapping)

    @property
    def colors(self) -> Mapping[str, str]:
        """The colour of each metacluster, as ``#rrggbb``."""
        return MappingProxyType(self._colors)

    @property
    def names(self) -> tuple[str, ...]:
        """The metaclusters, in their order."""
        return tuple(self._colors)

    @property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """The clusters of each metacluster."""
        found: dict[str, list[str]] = {name: [] for name in self.names}
        for cluster, name in self._mapping.items():
            found[name].append(cluster)
        return MappingProxyType({name: tuple(clusters) for name, clusters in found.items()})

    def after(self, step: Step, mapping: Mapping[str, str], colors: Mapping[str, str]) -> Metaclusters:
        """Return what is so after one more step: the clusters that changed, and all colours."""
        done = copy(self)
        done._set(steps=(*self.steps, step), _mapping={**self._mapping, **mapping}, _colors=dict(colors))
        return done

    def _set(self, **fields: object) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)


def start(
    clusters: Iterable[str | int] | Mapping[str | int, str] | pd.Series, colors: Mapping[str, str] | None = None
) -> Metaclusters:
    """Begin with clusters, each a metacluster of its own or in the one that a mapping gives.

    Parameters
    ----------
    clusters
        Names of clusters; or a mapping or Series from each cluster to its metacluster, such as types that were
        suggested. Clusters that are whole numbers are taken as text.
    colors
        Colours of metaclusters, as matplotlib knows them; others get one each, always the same ones. Those named
        ``"ambiguous"`` and ``"unassigned"`` are grey.

    Returns
    -------
    Metaclusters
        Without steps.

    Raises
    ------
    KeyError
        If ``colors`` names a metacluster that does not exist.
    TypeError, ValueError
        If a name is no text or cannot be written to disk, a cluster is there twice, there are none, or a colour is
        none.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ns.tl.metaclusters.start({"0": "B cell", "1": "T cell", "2": "B cell"}).names
    ('B cell', 'T cell')
    """
    if isinstance(clusters, str):
        raise TypeError(f"`clusters` is the text {clusters!r}; it must be a list of names, or a mapping.")
    if isinstance(clusters, Mapping | pd.Series):
        pairs = [(_text(name), one) for name, one in clusters.items()]
    else:
        pairs = [(_text(name), _text(name)) for name in clusters]
    if not pairs:
        raise ValueError("`clusters` is empty; there must be at least one.")
    seen: set[str] = set()
    for cluster, metacluster in pairs:
        check_name(cluster, "cluster")
        check_name(metacluster)
        if cluster in seen:
            raise ValueError(f"The cluster {cluster!r} is there twice; each must be named once.")
        seen.add(cluster)
    names = dict.fromkeys(metacluster for _, metacluster in pairs)
    given = {name: hex_color(color) for name, color in (colors or {}).items()}
    if unknown := [name for name in given if name not in names]:
        raise KeyError(f"`colors` names {unknown}, which are no metaclusters; these are {list(names)}.")
    shown: dict[str, str] = {}
    for name in names:
        shown[name] = given.get(name) or GREYS.get(name) or next_color([*shown.values(), *given.values()])
    return Metaclusters(tuple(pairs), tuple(shown.items()))


def _text(name: Any) -> Any:
    return str(name) if isinstance(name, int | np.integer) and not isinstance(name, bool) else name


def check_name(name: object, what: str = "metacluster") -> str:
    """Return a name that can be written to every format, and read as it is.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If it is empty, begins or ends with a blank, or has a line break or another character that cannot be written.
    """
    if not isinstance(name, str):
        raise TypeError(f"The name of a {what} is {name!r}, a {type(name).__name__}; it must be a text: {str(name)!r}.")
    if not name or name != name.strip():
        raise ValueError(f"The name of a {what} is {name!r}; it must not be empty, nor begin or end with a blank.")
    # Cc has the zero byte, which HDF5 cannot hold, and line breaks; Cs what no file can: halves of a character.
    if bad := sorted({letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}):
        raise ValueError(
            f"The name of a {what} is {name!r}, in which {', '.join(map(ascii, bad))} cannot be written to disk or on "
            "one line; leave it out."
        )
    return name


def hex_color(color: str) -> str:
    """Write a colour, in any way that matplotlib knows, as ``#rrggbb``.

    Raises
    ------
    ValueError
        If matplotlib does not know it.
    """
    from matplotlib.colors import is_color_like, to_hex

    if not is_color_like(color):
        raise ValueError(f"`color` is {color!r}, which is no color; pass a name such as 'tab:blue', or '#rrggbb'.")
    return to_hex(color)


def next_color(taken: Iterable[str]) -> str:
    """Return the first colour that is not taken: of a palette, and then around the colour wheel."""
    used = set(taken)
    return next(color for color in map(_color, count()) if color not in used)


@cache
def _color(i: int) -> str:
    from matplotlib.colors import hsv_to_rgb, to_hex

    if i < len(_PALETTE):
        return _PALETTE[i]
    # Steps of the golden ratio never come back to the same hue, and lightness varies beside it.
    return to_hex(tuple(hsv_to_rgb((i * _GOLDEN % 1, (0.9, 0.5, 0.7)[i % 3], (0.8, 0.95, 0.5)[i // 3 % 3]))))
