"""What was decided of a table: labels, thresholds, clusters; how steps are done and taken back, what Save writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys, labels, tl
from nimbus_sd._review import clusters, judging, markers
from nimbus_sd._review.tuning import TUNED, Tuning
from nimbus_sd._table import instance_column, layer, outside_unit_interval, region_column

#: Label of each state of the page.
_LABELS: Final = np.array([np.nan, 0, 0.25, 0.5, 0.75, 1], np.float32)
_WORDS: Final = ("no label", "negative", "likely negative", "undetermined", "likely positive", "positive")
_ADAPTED, _CALLS, _METACLUSTERS = "nimbus_adapted", "positive", "metacluster_"


@dataclass
class Step:
    """A step that was done: what it is called, how it is taken back, and what of the page it changes."""

    text: str
    take_back: Callable[[], object]
    marker: str | None = None
    key: str | None = None
    table: bool = False


class Decisions:
    """The decisions of a review, some of which are in the table already."""

    def __init__(self, adata: AnnData, score_layer: str, store: Path | None) -> None:
        self.adata, self.layer, self.annotator = adata, score_layer, ""
        scores = layer(adata, score_layer)
        if outside_unit_interval(scores).any() or not np.isfinite(scores).any():
            raise ValueError(f"Layer {score_layer!r} must hold scores in [0, 1]; it has other values, or none.")
        self._ids = region_column(adata).astype(str).to_numpy(), instance_column(adata).to_numpy()
        self._tuning = Tuning((store or Path("none")).with_name(f"{(store or Path()).name}.tuning"))
        self._read_table()

    def _read_table(self) -> None:
        """Take up what an earlier review, or another tool, left in the table."""
        adata = self.adata
        self.clicks = self._labels_in(keys.GOLD_TRAINING)
        whose = [name.removeprefix("gold_") for name in adata.layers if name and name.startswith("gold_")]
        self.judged = {who: self._labels_in(f"gold_{who}") for who in whose if f"gold_{who}" not in judging.RESERVED}
        self.settled = self._labels_in(judging.SETTLED)
        self.groups = clusters.groupings(adata)
        for key in [key for key in self.groups if f"{_METACLUSTERS}{key}" in adata.uns]:
            saved = tl.Metaclusters.from_json(str(adata.uns[f"{_METACLUSTERS}{key}"]["steps"]))
            if set(saved.mapping) == set(self.groups[key].mapping):
                self.groups[key] = saved
            self.groups.pop(f"{_METACLUSTERS}{key}", None)
        self._kept = TUNED in adata.layers
        self._drawn: set[str] | None = None
        ours = isinstance(adata.uns.get(_CALLS), Mapping) and adata.uns[_CALLS].get("tool") == "call_positive"
        cuts = adata.varm[_CALLS]["threshold"].fillna(0.5) if ours and _CALLS in adata.varm else {}
        self.thresholds = {name: float(cuts[name]) if ours else 0.5 for name in adata.var_names}
        self._lines: dict[str, dict[str, Any]] = {}
        self._ordered = "", np.empty(0, np.float32)

    def _labels_in(self, name: str) -> dict[str, NDArray[np.float32]]:
        if name not in self.adata.layers:
            return {}
        values = layer(self.adata, name)
        return {
            str(marker): values[:, i].astype(np.float32)
            for i, marker in enumerate(self.adata.var_names)
            if np.isfinite(values[:, i]).any()
        }

    def _line(self, name: str) -> dict[str, Any]:
        if name not in self._lines:
            given = self._given(keys.GOLD_TRAINING, name)
            self._lines[name] = markers.learn(self.adata, self.layer, name, given)
        return self._lines[name]

    def scores(self, layer: str, marker: str) -> NDArray[np.float32]:
        """Return the scores of a marker, not moved."""
        if layer not in self.adata.layers:
            raise KeyError(f"There is no layer {layer!r}.")
        return np.asarray(self.adata.layers[layer][:, self._column(marker)], np.float32)

    def _column(self, marker: str) -> int:
        if marker not in self.adata.var_names:
            raise KeyError(f"There is no marker {marker!r}.")
        return int(self.adata.var_names.get_loc(marker))

    def labels(self, layer: str, marker: str) -> NDArray[np.uint8]:
        """Return the state of each cell."""
        return np.nan_to_num(4 * self._given(layer, marker) + 1, nan=0).astype(np.uint8)

    def _given(self, layer: str, marker: str) -> NDArray[np.float32]:
        """Return the labels of a marker, to read."""
        self._column(marker)
        given = self._labels_of(layer).get(marker)
        if layer == keys.GOLD and given is None and keys.GOLD in self.adata.layers:
            return np.asarray(self.adata.layers[keys.GOLD][:, self._column(marker)], np.float32)
        return np.full(self.adata.n_obs, np.nan, np.float32) if given is None else given

    def _labels_of(self, layer: str) -> dict[str, NDArray[np.float32]]:
        if layer == keys.GOLD_TRAINING:
            return self.clicks
        who = checked_name(layer.removeprefix("gold:")) if layer.startswith("gold:") else None
        if who is None and layer != keys.GOLD:
            raise KeyError(f"There are no labels {layer!r}.")
        return self.settled if who is None else self.judged.get(who, {})

    def _group(self, key: str) -> tl.Metaclusters:
        if key not in self.groups:
            raise KeyError(f"There is no grouping {key!r}; there are {list(self.groups)}.")
        return self.groups[key]

    def _row(self, row: int) -> int:
        if not 0 <= row < self.adata.n_obs:
            raise IndexError(f"There is no cell {row}.")
        return row

    def _evaluation(self) -> set[str]:
        """Name the regions for evaluation; found once, as that reads a layer."""
        if self._drawn is None:
            self._drawn = set(labels.evaluation_regions(self.adata))
        return self._drawn

    def _trained(self) -> set[str]:
        found = [np.unique(self._ids[0][np.isfinite(given)]) for given in self.clicks.values()]
        return set(np.concatenate(found).tolist()) if found else set()

    def _apply(self, do: Mapping[str, Any]) -> Step:
        match do:
            case {"do": "label", "marker": str(marker), "layer": str(into), "rows": [*rows], "state": int(state)}:
                return self._label(marker, into, rows, state)
            case {"do": "threshold", "marker": str(marker), "value": int() | float() as value} if 0 <= value <= 1:
                self._column(marker)
                before, self.thresholds[marker] = self.thresholds[marker], float(value)
                return Step(
                    f"threshold of {marker} {value:g}", partial(self.thresholds.update, {marker: before}), marker
                )
            case {"do": "merge" | "split" | "rename" | "recolor", "key": str(key)}:
                old = self._group(key)
                self.groups[key] = clusters.edited(old, do)
                return Step(self.groups[key].history()[-1], partial(self.groups.update, {key: old}), key=key)
            case {"do": "cluster" | "types" | "draw" | "keep" | "drop"}:
                return self._in_table(do)
            case {"do": "annotator", "name": str(name)}:
                who, self.annotator = self.annotator, checked_name(name)
                return Step(f"annotator {name}", lambda: setattr(self, "annotator", who))
        raise ValueError(f"This is no step of a review, or lacks something: {str(dict(do))[:200]}.")

    def _label(self, marker: str, into: str, rows: Sequence[Any], state: int) -> Step:
        self._column(marker)
        if not 0 <= state < len(_LABELS) or not rows or any(type(row) is not int for row in rows):
            raise ValueError("A label needs rows, and a state from 0 to 5.")
        at = np.array([self._row(row) for row in rows])
        by, there = self._labels_of(into), set(self._ids[0][at].tolist())
        evaluation = self._evaluation()
        if into == keys.GOLD_TRAINING and (wrong := there & evaluation):
            raise ValueError(f"{min(wrong)!r} was drawn for evaluation: its cells are judged, not learned from.")
        if into != keys.GOLD_TRAINING and (wrong := there - evaluation):
            raise ValueError(f"{min(wrong)!r} was not drawn for evaluation, so its cells cannot be judged for gold.")
        if into.startswith("gold:"):
            by = self.judged.setdefault(into.removeprefix("gold:"), by)
        if marker not in by:
            by[marker] = np.full(self.adata.n_obs, np.nan, np.float32)
        before = by[marker][at]
        by[marker][at] = _LABELS[state]
        self._lines.pop(marker, None)

        def back() -> None:
            by[marker][at] = before
            self._lines.pop(marker, None)

        cells = "1 cell" if len(at) == 1 else f"{len(at)} cells"
        return Step(f"{marker}: {_WORDS[state]} for {cells}", back, marker)

    def _in_table(self, do: Mapping[str, Any]) -> Step:
        """Do a step that changes the table in memory; what it had before comes back whole."""
        adata, groups, was_kept = self.adata, dict(self.groups), self._kept
        kept = {name: dict(getattr(adata, name)) for name in ("layers", "varm", "uns", "obsm")}
        obs = adata.obs.copy(deep=False)

        def back() -> None:
            adata.obs, self.groups, self._kept, self._drawn = obs, groups, was_kept, None
            for name, entries in kept.items():
                for key in set(getattr(adata, name)) - set(entries):
                    del getattr(adata, name)[key]
                getattr(adata, name).update(entries)

        try:
            match do:
                case {"do": "draw", "n": int(n)}:
                    self._put(keys.GOLD_TRAINING)
                    text, self._drawn = f"drew {', '.join(labels.draw_regions(adata, n))}", None
                case {"do": "cluster"}:
                    text = f"clusters {clusters.cluster(adata, self.layer)}"
                case {"do": "types"}:
                    text = f"types {clusters.name_types(adata, self.layer)}"
                case {"do": "keep" | "drop" as what, "layer": str(name)} if name == TUNED:
                    if what == "keep" and name not in adata.layers:
                        self._tuning.result(adata)
                    elif what == "drop":
                        self._drop(TUNED)
                        self._tuning.drop()
                    self._kept = what == "keep"
                    text = f"{what} the scores of the fine-tuned model"
                case _:
                    raise ValueError(f"This is no step of a review, or lacks something: {str(dict(do))[:200]}.")
        except BaseException:
            back()
            raise
        for key, value in clusters.groupings(adata).items():
            if not key.startswith(_METACLUSTERS) and (key not in groups or key == text.split()[-1]):
                self.groups[key] = value
        return Step(text, back, table=True)

    def _drop(self, name: str) -> None:
        for entries in (self.adata.layers, self.adata.varm, self.adata.uns):
            for key in [key for key in entries if key and (key == name or key == f"{name}_normalization")]:
                del entries[key]

    def _by_cell(self, do: Mapping[str, Any]) -> dict[str, Any]:
        """Name cells by region and id: rows may be others when the log is read again."""
        if do["do"] != "label":
            return dict(do)
        cells: dict[str, list[Any]] = {}
        for row in do["rows"]:
            identity = self._ids[1][row]
            cells.setdefault(self._ids[0][row], []).append(identity.item() if hasattr(identity, "item") else identity)
        return {**{name: value for name, value in do.items() if name != "rows"}, "cells": cells}

    def _write(self) -> list[str]:
        adata, source, wrote = self.adata, self.layer, list[str]()
        if self.clicks:
            self._put(keys.GOLD_TRAINING)
            wrote.append(f"labels in layers[{keys.GOLD_TRAINING!r}]")
        if any(np.isfinite(given).any() and (given != 0.5)[np.isfinite(given)].any() for given in self.clicks.values()):
            tl.adapt(adata, layer=self.layer, key_added=_ADAPTED)
            source = _ADAPTED
            wrote.append(f"scores in layers[{_ADAPTED!r}]")
        tl.call_positive(adata, layer=source, threshold=self.thresholds, key_added=_CALLS, n_boot=0)
        wrote.append(f"calls in layers[{_CALLS!r}]")
        if any(self.judged.values()) or self.settled:
            wrote += [f"judged cells in layers[{name!r}]" for name in judging.write(adata, self.judged, self.settled)]
        for key, value in self.groups.items():
            if value.steps or f"{_METACLUSTERS}{key}" in adata.uns:
                value.apply(adata, key, key_added=f"{_METACLUSTERS}{key}")
                wrote.append(f"metaclusters in obs[{_METACLUSTERS + key!r}]")
        if not self._kept:
            # Of a model that nobody decided on; `tuning` brings them back from its folder.
            self._drop(TUNED)
        return wrote

    def _put(self, name: str) -> None:
        """Put the labels of single cells into the table in memory."""
        if self.clicks:
            values = np.full(self.adata.shape, np.nan, np.float32)
            for marker, given in self.clicks.items():
                values[:, self._column(marker)] = given
            self.adata.layers[name] = values


def checked_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,60}", name):
        raise ValueError(f"The annotator is {name!r}; use letters, digits, '_', '-' and '.' only.")
    judging.layer_of(name)
    return name
