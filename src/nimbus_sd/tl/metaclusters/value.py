"""Which cluster is in which metacluster, and the steps that led there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from nimbus_sd.tl.metaclusters.names import check_name, hex_color, next_color
from nimbus_sd.tl.metaclusters.steps import State, Step


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
    steps
        What was done since.
    """

    initial: tuple[tuple[str, str], ...]
    initial_colors: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...] = ()

    @cached_property
    def _state(self) -> State:
        state = State(dict(self.initial), dict(self.initial_colors))
        for step in self.steps:
            step.on(state)
        return state

    @property
    def mapping(self) -> Mapping[str, str]:
        """The metacluster of each cluster."""
        return MappingProxyType(self._state.mapping)

    @property
    def colors(self) -> Mapping[str, str]:
        """The colour of each metacluster, as ``#rrggbb``."""
        return MappingProxyType(self._state.colors)

    @property
    def names(self) -> tuple[str, ...]:
        """The metaclusters, in their order."""
        return tuple(self._state.colors)

    @property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """The clusters of each metacluster."""
        return MappingProxyType({name: tuple(self._state.clusters_of(name)) for name in self.names})

    def after(self, step: Step) -> Metaclusters:
        """Do one more step.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it cannot be done; this value is as it was.
        """
        state = State(dict(self._state.mapping), dict(self._state.colors))
        step.on(state)
        done = Metaclusters(self.initial, self.initial_colors, (*self.steps, step))
        # What `_state` would come to, step by step.
        done.__dict__["_state"] = state
        return done


def start(clusters: Iterable[str] | Mapping[str, str], colors: Mapping[str, str] | None = None) -> Metaclusters:
    """Begin with clusters, each a metacluster of its own or in the one that a mapping gives.

    Parameters
    ----------
    clusters
        Names of clusters; or a mapping from each cluster to its metacluster, such as types that were suggested.
    colors
        Colours of metaclusters, as matplotlib knows them; others get one each, always the same ones.

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
    pairs = list(clusters.items()) if isinstance(clusters, Mapping) else [(name, name) for name in clusters]
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
        shown[name] = given.get(name) or next_color([*shown.values(), *given.values()])
    return Metaclusters(tuple(pairs), tuple(shown.items()))
