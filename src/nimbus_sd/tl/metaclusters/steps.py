"""The four things that can be done to metaclusters, each as a value that can be written down and done again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from nimbus_sd.tl.metaclusters.names import check_new, hex_color, next_color


@dataclass
class State:
    """What steps work on: cluster to metacluster, and metacluster to colour, both in a fixed order."""

    mapping: dict[str, str]
    colors: dict[str, str]

    def clusters_of(self, metacluster: str) -> list[str]:
        """Clusters of a metacluster that exists."""
        if metacluster not in self.colors:
            raise KeyError(f"There is no metacluster {metacluster!r}; there are {list(self.colors)}.")
        return [cluster for cluster, one in self.mapping.items() if one == metacluster]


@dataclass(frozen=True)
class Merge:
    """Make one metacluster of several; it keeps the place of the first, and the colour of the one it is named after."""

    do: ClassVar[str] = "merge"
    metaclusters: tuple[str, ...]
    into: str

    def on(self, state: State) -> None:
        """Change a state."""
        if len(set(self.metaclusters)) < 2 or len(set(self.metaclusters)) < len(self.metaclusters):
            raise ValueError(f"`metaclusters` is {list(self.metaclusters)}; a merge needs two or more different ones.")
        clusters = [cluster for name in self.metaclusters for cluster in state.clusters_of(name)]
        check_new(self.into, set(state.colors) - set(self.metaclusters), "include it in the merge, or")
        color = state.colors[self.into if self.into in self.metaclusters else self.metaclusters[0]]
        first = next(name for name in state.colors if name in self.metaclusters)
        state.colors = {
            self.into if name == first else name: color if name == first else one
            for name, one in state.colors.items()
            if name == first or name not in self.metaclusters
        }
        state.mapping.update(dict.fromkeys(clusters, self.into))

    def __str__(self) -> str:
        return f"merge {_list(self.metaclusters)} into {self.into!r}"


@dataclass(frozen=True)
class Split:
    """Take some clusters out of a metacluster and make a new one of them, which comes last."""

    do: ClassVar[str] = "split"
    metacluster: str
    clusters: tuple[str, ...]
    into: str

    def on(self, state: State) -> None:
        """Change a state."""
        there = state.clusters_of(self.metacluster)
        if unknown := [cluster for cluster in self.clusters if cluster not in there]:
            raise KeyError(f"Metacluster {self.metacluster!r} has no cluster(s) {unknown}; it has {there}.")
        if not 0 < len(set(self.clusters)) < len(there):
            raise ValueError(
                f"`clusters` names {len(set(self.clusters))} of the {len(there)} clusters of {self.metacluster!r}; a "
                "split takes out at least one and leaves at least one."
            )
        check_new(self.into, state.colors, "choose another name, and merge them then, or")
        state.mapping.update(dict.fromkeys(self.clusters, self.into))
        state.colors[self.into] = next_color(state.colors.values())

    def __str__(self) -> str:
        return f"split {_list(self.clusters)} from {self.metacluster!r} as {self.into!r}"


@dataclass(frozen=True)
class Rename:
    """Give a metacluster another name."""

    do: ClassVar[str] = "rename"
    metacluster: str
    name: str

    def on(self, state: State) -> None:
        """Change a state."""
        clusters = state.clusters_of(self.metacluster)
        check_new(self.name, set(state.colors) - {self.metacluster}, "merge them, or")
        state.colors = {self.name if one == self.metacluster else one: color for one, color in state.colors.items()}
        state.mapping.update(dict.fromkeys(clusters, self.name))

    def __str__(self) -> str:
        return f"rename {self.metacluster!r} to {self.name!r}"


@dataclass(frozen=True)
class Recolor:
    """Give a metacluster another colour."""

    do: ClassVar[str] = "recolor"
    metacluster: str
    color: str

    def on(self, state: State) -> None:
        """Change a state."""
        state.clusters_of(self.metacluster)
        state.colors[self.metacluster] = hex_color(self.color)

    def __str__(self) -> str:
        return f"color {self.metacluster!r} {self.color}"


Step: TypeAlias = "Merge | Split | Rename | Recolor"
STEPS: dict[str, type[Step]] = {kind.do: kind for kind in (Merge, Split, Rename, Recolor)}


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
