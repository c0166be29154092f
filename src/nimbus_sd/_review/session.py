"""What is being reviewed: the table, what was done to it since it was saved, and how that is taken back."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import get_channel_names

import nimbus_sd
from nimbus_sd import keys, labels, tl
from nimbus_sd._review.log import Log
from nimbus_sd._table import clusters_of, instance_column, layer, outside_unit_interval, region_column
from nimbus_sd.io import restore, save_table
from nimbus_sd.spatial import check_spatialdata, not_found, regions_of_table, rows_of

_VALUES = np.array([np.nan, 0, 0.25, 0.5, 0.75, 1], np.float32)
_WORDS = ("none", "negative", "likely negative", "undetermined", "likely positive", "positive")
_NOWHERE = 65535


class PageTaken(Exception):
    """Another page writes."""


@dataclass
class Step:
    """A step that can be taken back: what it is called, how, and what of the page it changes."""

    text: str
    take_back: Callable[[], None]
    marker: str | None = None
    groupings: bool = False
    clusters: str | None = None


class Session:
    """The state of a review. Reads come from several threads, changes one at a time."""

    def __init__(self, sdata: SpatialData, table_key: str, score_layer: str, annotator: str | None) -> None:
        check_spatialdata(sdata)
        if table_key not in sdata.tables:
            raise not_found("table", [table_key], sdata.tables)
        self.sdata, self.table_key, self.layer = sdata, table_key, score_layer
        self.adata = sdata.tables[table_key]
        self.notices: list[str] = []
        if not self.adata.n_obs:
            raise ValueError(f"Table {table_key!r} has no cells to review.")
        if outside_unit_interval(layer(self.adata, score_layer)).any():
            raise ValueError(f"Layer {score_layer!r} has values outside [0, 1]; only scores can be reviewed.")
        with self._noticed():
            self.regions = regions_of_table(sdata, table_key, None, None, None, None)
        self.channels = self.regions[0].channels
        self.place()
        self.store = None if sdata.path is None else Path(sdata.path)
        self.readonly: str | None = None
        self.annotator = annotator or "me"
        self.page: str | None = None
        self.unsaved = 0

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
        self.notices += dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning)

    def place(self) -> None:
        """Find where cells are in their regions."""
        n = self.adata.n_obs
        self.xy, self.radius = np.full((n, 2), np.nan, np.float32), np.full(n, np.nan, np.float32)
        self.region_of = np.full(n, _NOWHERE, np.uint16)
        spatial, area = self.adata.obsm[keys.SPATIAL], self.adata.obs[keys.AREA].to_numpy()
        for number, region in enumerate(self.regions):
            rows, _ = rows_of(self.adata, region)
            self.region_of[rows] = number
            self.xy[rows] = np.asarray(spatial)[rows, :2] * region.image_repeat
            self.radius[rows] = np.sqrt(area[rows] / np.pi) / region.pixel_size

    def start(self) -> dict[str, Any]:
        return {
            "store": str(self.store or "in memory"), "version": nimbus_sd.__version__, "readonly": self.readonly,
            "annotator": self.annotator, "notices": self.notices, "n_cells": self.adata.n_obs,
            "layers": [self.layer], "layer": self.layer, "channels": self.channels, "tile": 512,
            "regions": [
                {"name": r.labels_key, "image": r.image_key, "height": r.shape[0], "width": r.shape[1],
                 "um_per_px": r.pixel_size, "cells": int((self.region_of == i).sum()),
                 "levels": max(1, int(np.ceil(np.log2(max(r.shape) / 512))) + 1), "evaluation": False, "trained": False}
                for i, r in enumerate(self.regions)
            ],
            "markers": [self.marker(name) for name in self.adata.var_names],
            "groupings": [
                {"key": key, "names": list(clusters_of(self.adata, key).categories), "colors": [], "editable": True}
                for key in self.adata.obs if isinstance(self.adata.obs[key].dtype, pd.CategoricalDtype)
            ],
            "page": self.page, "undo": None, "unsaved": self.unsaved,
        }

    def marker(self, name: str) -> dict[str, Any]:
        s = self.scores(self.layer, name)
        s = s[np.isfinite(s)]
        return {"name": name, "channel": self.channels.index(name) if name in self.channels else None,
                "share": (s >= 0.5).mean() if len(s) else None, "doubt": ((s > 0.25) & (s < 0.75)).mean() if len(s) else None,
                "flag": "", "histogram": np.histogram(s, 40, (0, 1))[0], "threshold": 0.5, "slope": 1.0, "offset": 0.0,
                "labels": 0, "positives": 0, "learned": ""}

    def cells(self) -> list[NDArray]:
        return [self.xy[:, 0], self.xy[:, 1], self.region_of, self.radius]

    def scores(self, layer: str, marker: str) -> NDArray:
        return self.adata.layers[layer][:, self.adata.var_names.get_loc(marker)].astype(np.float32)

    def labels(self, layer: str, marker: str) -> NDArray:
        return np.zeros(self.adata.n_obs, np.uint8)

    def groups(self, key: str) -> NDArray:
        return (clusters_of(self.adata, key).codes + 1).astype(np.uint16)

    def cell(self, row: int, marker: str) -> dict[str, Any]:
        score = self.scores(self.layer, marker)[row]
        return {"row": row, "id": instance_column(self.adata).iloc[row], "region": self.region_of[row], "x": self.xy[row, 0],
                "y": self.xy[row, 1], "area": self.adata.obs["area"].iloc[row], "score": score, "shown": score,
                "intensity": None, "label": 0, "groups": {}}

    def next(self, marker: str, layer: str, after: Sequence[int]) -> dict[str, Any]:
        return {"row": None, "reason": "not yet"}

    def contrast(self, region: int, channel: int) -> dict[str, Any]:
        return {"top": 1, "low": 0, "high": 1}

    def _tile(self, region: int, level: int, row: int, col: int) -> tuple[int, int]:
        h, w = self.regions[region].shape
        return min(512, -(-h // 2**level) - 512 * row), min(512, -(-w // 2**level) - 512 * col)

    def image_tile(self, region: int, channel: int, level: int, row: int, col: int) -> NDArray:
        return np.zeros(self._tile(region, level, row, col), np.uint8)

    def cell_tile(self, region: int, level: int, row: int, col: int) -> NDArray:
        return np.zeros(self._tile(region, level, row, col), np.uint32)

    def crop(self, row: int, channels: Sequence[int], um: float) -> bytes:
        raise ValueError("no crops yet")

    def clusters(self, key: str) -> dict[str, Any]:
        raise ValueError("no clusters yet")

    def examples(self, key: str, name: str) -> dict[str, Any]:
        return {"typical": [], "doubtful": []}

    def judging(self) -> dict[str, Any]:
        return {"regions": [], "free": [], "agreement": [], "disputed": [], "refused": None}

    def tuning(self) -> dict[str, Any]:
        return {"state": "none", "message": "", "progress": 0, "epoch": 0, "report": None, "layer": None}

    def tune(self, page: str, action: str) -> dict[str, Any]:
        return self.tuning()

    def take_page(self, take_over: bool) -> dict[str, Any]:
        if self.page and not take_over:
            raise PageTaken("Another page has this review.")
        self.page = uuid4().hex
        return {"page": self.page}

    def do(self, page: str, do: Mapping[str, Any]) -> dict[str, Any]:
        self.unsaved += 1
        return {"undo": do["do"], "unsaved": self.unsaved, "marker": None, "notices": []}

    def undo(self, page: str) -> dict[str, Any]:
        return {"undo": None, "unsaved": 0, "marker": None, "notices": []}

    def save(self, page: str) -> dict[str, Any]:
        return {"saved": [], "unsaved": 0}

    def close(self) -> str:
        return ""
