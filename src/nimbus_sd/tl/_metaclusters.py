"""Metaclusters by hand: merge, split, rename and colour clusters, step by step, on a value that never changes."""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nimbus_sd._disk import replacing
from nimbus_sd._table import clusters_of
from nimbus_sd._text import without_formulas
from nimbus_sd.tl._metaclusters_files import HEADER, Step, as_path, hex_color, next_color, parse_csv, parse_json
from nimbus_sd.tl._results import GREYS, check_key_added, check_name, log_overwritten

logger = logging.getLogger("nimbus_sd")

_TOOL = "metaclusters.apply"


@dataclass(frozen=True)
class Metaclusters:
    """An immutable mapping from clusters to metaclusters, as a start and the steps since.

    Made by :meth:`start`, :meth:`from_table` or :meth:`load`. Methods that edit return a new value, which remembers the
    step, so that decisions can be undone, saved, reviewed (:meth:`history`) and replayed on another clustering. Two
    values are equal if they have the same start and steps. Names must not have line breaks or blanks at their ends.

    Attributes
    ----------
    initial
        Pairs of cluster and metacluster at the start.
    initial_colors
        Pairs of metacluster and colour (``#rrggbb``) at the start, in the metaclusters' order.
    cells
        Pairs of cluster and its number of cells in the table of :meth:`from_table`; else empty.
    steps
        What was done since.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> value = ns.tl.Metaclusters.start(["0", "1", "2", "3"]).merge(["0", "2"], into="T cell").rename("3", "B cell")
    >>> dict(value.mapping)
    {'0': 'T cell', '1': '1', '2': 'T cell', '3': 'B cell'}
    >>> value.undo().names
    ('T cell', '1', '3')
    >>> value.history()
    ["merge '0', '2' into 'T cell'", "rename '3' to 'B cell'"]
    """

    initial: tuple[tuple[str, str], ...]
    initial_colors: tuple[tuple[str, str], ...]
    cells: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    steps: tuple[Step, ...] = field(default=(), init=False)
    # What the steps have come to.
    _mapping: dict[str, str] = field(init=False, repr=False, compare=False)
    _colors: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.__dict__.update(_mapping=dict(self.initial), _colors=dict(self.initial_colors))

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
        return MappingProxyType({name: self._clusters(name) for name in self._colors})

    @classmethod
    def start(
        cls,
        clusters: Iterable[str | int] | Mapping[str | int, str] | pd.Series,
        colors: Mapping[str, str] | None = None,
    ) -> Metaclusters:
        """Begin with clusters.

        ``clusters`` are names, each a metacluster of its own, or a mapping or Series from each cluster to its
        metacluster; whole numbers are taken as text. ``colors`` are those of metaclusters, as matplotlib knows them;
        the others get default ones, the same each time. Those named ``"ambiguous"`` and ``"unassigned"`` are grey.
        """
        if isinstance(clusters, Mapping | pd.Series):
            pairs = list(clusters.items())
        else:
            pairs = [(cluster, _as_text(cluster)) for cluster in _as_tuple(clusters, "clusters")]
        mapping: dict[str, str] = {}
        for cluster, name in pairs:
            cluster = check_name(_as_text(cluster), "cluster")
            if cluster in mapping:
                raise ValueError(f"The cluster {cluster!r} is there twice; each must be named once.")
            mapping[cluster] = check_name(name)
        if not mapping:
            raise ValueError("`clusters` is empty; there must be at least one.")
        given = {name: hex_color(color) for name, color in (colors or {}).items()}
        ordered: dict[str, str] = {}
        for name in dict.fromkeys(mapping.values()):
            ordered[name] = given.get(name) or GREYS.get(name) or next_color([*ordered.values(), *given.values()])
        if unknown := [name for name in given if name not in ordered]:
            raise KeyError(f"`colors` names {unknown}, which are no metaclusters; these are {list(ordered)}.")
        return cls(tuple(mapping.items()), tuple(ordered.items()))

    @classmethod
    def from_table(cls, adata: AnnData, groupby: str, metaclusters: str | None = None) -> Metaclusters:
        """Begin with the clusters in ``obs[groupby]``; colours in ``uns`` are kept.

        ``metaclusters`` is a column of ``obs`` with the metacluster of each cell, the same for all cells of a cluster;
        None makes each cluster one.
        """
        named = groupby if metaclusters is None else metaclusters
        clusters, groups = clusters_of(adata, groupby), clusters_of(adata, named)
        pairs = pd.DataFrame({"cluster": clusters, "group": groups}).dropna().drop_duplicates().sort_values("cluster")
        if pairs.empty:
            raise ValueError(f"No cell has a cluster in both obs[{groupby!r}] and obs[{named!r}].")
        if several := sorted(set(pairs["cluster"][pairs["cluster"].duplicated()])):
            raise ValueError(f"Cluster(s) {several} of obs[{groupby!r}] are in several groups of obs[{named!r}].")
        mapping = dict(zip(pairs["cluster"], pairs["group"], strict=True))
        categories = pd.Categorical(adata.obs[named]).categories.astype(str)
        colors = adata.uns.get(f"{named}_colors", ())
        kept = dict(zip(categories, map(str, colors), strict=True)) if len(colors) == len(categories) else {}
        begun = cls.start(mapping, {name: color for name, color in kept.items() if name in mapping.values()})
        return cls(begun.initial, begun.initial_colors, tuple(clusters.value_counts().to_dict().items()))

    @classmethod
    def from_json(cls, text: str) -> Metaclusters:
        """Read what :meth:`to_json` wrote, doing every step again; an error says which cannot be done."""
        start, colors, cells, steps = parse_json(text)
        begun = cls.start(start, colors)
        # The order of colours is that of the metaclusters, which the order of clusters need not be.
        ordered = {**colors, **dict(begun.initial_colors)}
        return _redo(steps, cls(begun.initial, tuple(ordered.items()), tuple(cells.items())))

    @classmethod
    def load(cls, path: str | Path) -> Metaclusters:
        """Read a file that :meth:`save` wrote: ``.json`` with all steps, or ``.csv`` as a start.

        A CSV file may also be your own, with the columns ``cluster``, ``metacluster`` and, if wanted, ``color``.
        """
        path = as_path(path)
        # Spreadsheets put a byte order mark in front.
        return cls.from_json(path.read_text("utf-8-sig")) if path.suffix == ".json" else cls.start(*parse_csv(path))

    def merge(self, metaclusters: Sequence[str], into: str) -> Metaclusters:
        """Make one metacluster of two or more.

        ``into`` is a new name, or one of them. The result takes the place of the first of them, and the colour of the
        one of that name, else of the one named first.
        """
        merged = _as_tuple(metaclusters, "metaclusters")
        if len(set(merged)) < max(2, len(merged)):
            raise ValueError(f"`metaclusters` is {list(merged)}; a merge needs two or more different ones.")
        clusters = [cluster for name in merged for cluster in self._clusters(name)]
        _check_new(into, set(self.names) - set(merged))
        color = self._colors[into if into in merged else merged[0]]
        colors = dict((into, color) if name in merged else (name, kept) for name, kept in self._colors.items())
        return self._after("merge", dict.fromkeys(clusters, into), colors, metaclusters=merged, into=into)

    def split(self, metacluster: str, clusters: Sequence[str], into: str) -> Metaclusters:
        """Take some clusters, not all, out of a metacluster and make a new one of them.

        The new one, named ``into``, comes last and gets a colour that is not taken.
        """
        taken, members = _as_tuple(clusters, "clusters"), self._clusters(metacluster)
        if unknown := [cluster for cluster in taken if cluster not in members]:
            raise KeyError(f"Metacluster {metacluster!r} has no cluster(s) {unknown}; it has {list(members)}.")
        if not 0 < len(set(taken)) < len(members):
            given = f"`clusters` is {list(taken)}, and {metacluster!r} has {list(members)}"
            raise ValueError(f"{given}; a split takes out at least one and leaves at least one.")
        _check_new(into, self.names)
        colors = {**self._colors, into: next_color(self._colors.values())}
        mapping = dict.fromkeys(taken, into)
        return self._after("split", mapping, colors, metacluster=metacluster, clusters=taken, into=into)

    def rename(self, metacluster: str, name: str) -> Metaclusters:
        """Give a metacluster another name, which no other has."""
        clusters = self._clusters(metacluster)
        _check_new(name, set(self.names) - {metacluster})
        colors = {name if old == metacluster else old: color for old, color in self._colors.items()}
        return self._after("rename", dict.fromkeys(clusters, name), colors, metacluster=metacluster, name=name)

    def recolor(self, metacluster: str, color: str) -> Metaclusters:
        """Give a metacluster another colour, any that matplotlib knows: ``"tab:blue"``, ``"#1f77b4"``."""
        self._clusters(metacluster)
        color = hex_color(color)
        return self._after("recolor", {}, {**self._colors, metacluster: color}, metacluster=metacluster, color=color)

    def undo(self) -> Metaclusters:
        """Take back the last step."""
        if not self.steps:
            raise ValueError("There is no step to undo: the metaclusters are as they were at the start.")
        return _redo(self.steps[:-1], Metaclusters(self.initial, self.initial_colors, self.cells))

    def replay(self, onto: Metaclusters) -> Metaclusters:
        """Do these steps after those of another value, such as a clustering of more cells with the same names."""
        return _redo(self.steps, onto)

    def history(self) -> list[str]:
        """Describe what was done, one line for each step."""
        return list(map(str, self.steps))

    def apply(self, adata: AnnData, groupby: str, *, key_added: str = "metacluster_nimbus") -> None:
        """Write the metacluster of each cell to a table.

        Parameters
        ----------
        adata
            The table.
        groupby
            Column of ``obs`` with the clusters; not all of them need to have cells here. Warns if they have other
            numbers of cells than in the table of :meth:`from_table`, and so may be other ones of the same names.
        key_added
            Name of the result.

        Returns
        -------
        None
            Sets in ``adata``:

            - ``obs[key_added]``: categorical, the largest metacluster first, missing for cells without a cluster
            - ``uns[f"{key_added}_colors"]``: their colours, where scanpy looks for them
            - ``uns[key_added]``: ``tool``, ``params``, and ``steps``, a text for :meth:`from_json`

        Examples
        --------
        >>> import nimbus_sd as ns
        >>> adata = ns.datasets.example().tables["table"]
        >>> value = ns.tl.Metaclusters.from_table(adata, "cell_type")
        >>> value.merge(["CD4 T cell", "CD8 T cell"], into="T cell").apply(adata, "cell_type")
        >>> adata.obs["metacluster_nimbus"].cat.categories.to_list()
        ['T cell', 'epithelium', 'B cell', 'other', 'macrophage']
        """
        clusters = clusters_of(adata, groupby)
        earlier = check_key_added(adata, key_added, _TOOL, [("obs", key_added), ("uns", f"{key_added}_colors")])
        if key_added == groupby:
            raise ValueError(f"`groupby` and `key_added` are both {groupby!r}; the clusters would be lost.")
        if unknown := sorted(set(clusters.categories) - set(self._mapping)):
            raise KeyError(f"obs[{groupby!r}] has cluster(s) {unknown}; these metaclusters know {list(self._mapping)}.")
        before, now = Counter(dict(self.cells)), Counter(clusters.value_counts().to_dict())
        changed = [name for name in before | now if before[name] != now[name]]
        if before and changed:
            name = changed[0]
            other = f"obs[{groupby!r}] is not the clustering that these metaclusters were made from"
            cells = (
                f"{len(changed)} cluster(s) have other numbers of cells, {name!r} had {before[name]}, now {now[name]}"
            )
            warnings.warn(f"{other}: {cells}. If cells were clustered again, begin with `from_table`.", stacklevel=2)
        names = pd.Series(clusters, adata.obs_names, dtype=object).map(self._mapping)
        sizes = names.value_counts()
        # Those of one size in the order of the metaclusters, so that the same table gives the same order.
        order = sorted((name for name in self.names if name in sizes), key=lambda name: -sizes[name])
        adata.obs[key_added] = pd.Categorical(names, categories=order)
        adata.uns[f"{key_added}_colors"] = np.array([self._colors[name] for name in order], dtype=object)
        adata.uns[key_added] = {"tool": _TOOL, "params": {"groupby": groupby}, "steps": self.to_json()}
        log_overwritten(earlier, _TOOL)
        logger.info("added obs[%r]: %d metaclusters of %d clusters", key_added, len(order), len(now))

    def to_frame(self) -> pd.DataFrame:
        """List the clusters: columns ``cluster``, ``metacluster``, ``color`` (of the metacluster, ``#rrggbb``)."""
        rows = [(cluster, name, self._colors[name]) for cluster, name in self._mapping.items()]
        return pd.DataFrame(rows, columns=["cluster", "metacluster", "color"])

    def to_json(self) -> str:
        """Write the start and all steps as JSON, readable and the same each time."""
        content = {**HEADER, "start": dict(self.initial), "colors": dict(self.initial_colors)}
        content |= {"cells": dict(self.cells)} if self.cells else {}
        content |= {"steps": [{"do": step.do, **dict(step.given)} for step in self.steps]}
        return json.dumps(content, ensure_ascii=False, indent=1)

    def save(self, path: str | Path) -> None:
        """Write to a file: ``.json`` with all steps, ``.csv`` the mapping as :meth:`to_frame` lists it."""
        path = as_path(path)
        csv = path.suffix == ".csv"
        text = without_formulas(self.to_frame()).to_csv(index=False, lineterminator="\n") if csv else self.to_json()
        with replacing(path) as (file,):
            file.write_bytes(text.encode())

    def _clusters(self, metacluster: str) -> tuple[str, ...]:
        if metacluster not in self._colors:
            raise KeyError(f"There is no metacluster {metacluster!r}; there are {list(self.names)}.")
        return tuple(cluster for cluster, name in self._mapping.items() if name == metacluster)

    def _after(self, do: str, mapping: dict[str, str], colors: dict[str, str], **given: str | tuple) -> Metaclusters:
        """Return the value after one more step: the clusters that changed, and all colours."""
        edited = copy(self)
        step = Step(do, tuple(given.items()))
        edited.__dict__.update(steps=(*self.steps, step), _mapping={**self._mapping, **mapping}, _colors=colors)
        return edited


def _redo(steps: Iterable[Step], value: Metaclusters) -> Metaclusters:
    """Do steps one after the other; an error says which one cannot be done."""
    for number, step in enumerate(steps, 1):
        try:
            value = getattr(value, step.do)(**dict(step.given))
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"Step {number} ({step}) cannot be done. {error.args[0]}") from error
    return value


def _as_text(name: Any) -> Any:
    return str(name) if isinstance(name, int | np.integer) and not isinstance(name, bool) else name


def _as_tuple(names: Iterable[Any], argument: str) -> tuple[Any, ...]:
    if isinstance(names, str):
        raise TypeError(f"`{argument}` is the text {names!r}; it must be a list of names: [{names!r}].")
    return tuple(names)


def _check_new(name: str, taken: Collection[str]) -> None:
    if check_name(name) in taken:
        raise ValueError(f"There is a metacluster {name!r} already; merge them, or choose another name.")
