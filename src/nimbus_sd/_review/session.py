"""What is being reviewed: what the page reads, the steps since the last Save, their log, and Save."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import get_channel_names

import nimbus_sd
from nimbus_sd import keys
from nimbus_sd._review import clusters, judging, markers
from nimbus_sd._review.decisions import Decisions, Step, checked_name
from nimbus_sd._review.log import Log
from nimbus_sd._review.markers import told
from nimbus_sd._review.tiles import TILE, Tiles
from nimbus_sd._review.tuning import TUNED, refusal
from nimbus_sd.io import save_table
from nimbus_sd.spatial import check_spatialdata, not_found, regions_of_table, rows_of

_NOTED: Final = "review"
_NOWHERE: Final = 65535


class PageTaken(Exception):
    """Another page writes."""


class Session(Decisions):
    """The state of a review. Reads come from several threads, changes from one at a time."""

    def __init__(self, sdata: SpatialData, table_key: str, score_layer: str, annotator: str | None) -> None:
        check_spatialdata(sdata)
        if table_key not in sdata.tables:
            raise not_found("table", [table_key], sdata.tables)
        self.sdata, self.table_key = sdata, table_key
        self.store = None if sdata.path is None else Path(sdata.path)
        super().__init__(sdata.tables[table_key], score_layer, self.store)
        self.notices: list[str] = []
        with told(self.notices):
            self._find_regions()
            self._flags = markers.flags(self.adata, score_layer)
        self.page: str | None = None
        self._steps: list[Step] = []
        self.readonly = None if self.store is None else _closed(self.store, table_key)
        path = None if self.store is None else self.store.with_name(f"{self.store.name}.review.jsonl")
        try:
            self.log = Log(path, reading=self.readonly is not None)
        except BlockingIOError:
            raise
        except OSError as error:
            self.readonly, self.log = f"{path} cannot be written to ({error.strerror})", Log(path, reading=True)
        self.notices += self.log.notices
        if self.readonly:
            self.notices.append(f"{self.readonly}, so nothing that is done here is kept.")
        elif path is None:
            self.notices.append("The data are in memory only: steps are kept until Save puts them into the table.")
        try:
            self.annotator = checked_name(annotator or self.log.annotator or _user())
            self._replay()
        except BaseException:
            self.log.close()
            raise

    def _find_regions(self) -> None:
        """Find the regions, all channels of their images, and where each cell is."""
        regions, n = regions_of_table(self.sdata, self.table_key, None, None, None, None), self.adata.n_obs
        names = {tuple(map(str, get_channel_names(self.sdata.images[region.image_key]))) for region in regions}
        if len(names) == 1:
            # Such as a nuclear stain that was not scored.
            order, (every,) = regions[0].channels, names
            order = [*order, *(name for name in every if name not in order)]
            with told([]):
                regions = [r.with_all_channels() for r in regions]
            for region in regions:
                region.channels[:] = order
        self.regions, self.channels = regions, regions[0].channels
        if keys.SPATIAL not in self.adata.obsm:
            raise ValueError(
                f"The table has no obsm[{keys.SPATIAL!r}], the places of cells: `nimbus_sd.predict` adds them."
            )
        spatial = np.asarray(self.adata.obsm[keys.SPATIAL])
        area = self.adata.obs[keys.AREA].to_numpy(float) if keys.AREA in self.adata.obs else np.full(n, 80.0)
        self.xy, self.radius = np.full((n, 2), np.nan, np.float32), np.full(n, np.nan, np.float32)
        self.region_of, numbers, outside = np.full(n, _NOWHERE, np.uint16), [], 0
        for number, region in enumerate(regions):
            rows, ids = rows_of(self.adata, region)
            rows, ids = rows[ids > 0], ids[ids > 0]
            numbers.append((ids, rows))
            self.region_of[rows], self.xy[rows] = number, spatial[rows, :2] * region.image_repeat
            self.radius[rows] = np.sqrt(area[rows] / np.pi) / region.pixel_size
            outside += int((~((self.xy[rows] >= 0) & (self.xy[rows] <= region.shape[::-1]))).any(axis=1).sum())
        if outside:
            self.notices.append(
                f"obsm[{keys.SPATIAL!r}] places {outside} cells outside their image, so they are not seen."
            )
        self._tiles = Tiles(self.sdata, regions, numbers, self.xy, self.radius)

    # What the page reads.

    def start(self) -> dict[str, Any]:
        """Return all that the page needs to open."""
        evaluation, trained = self._evaluation(), self._trained()
        regions = [
            {"name": region.labels_key, "image": region.image_key, "um_per_px": region.pixel_size}
            | {"height": region.shape[0], "width": region.shape[1], "cells": (self.region_of == i).sum()}
            | {"levels": self._tiles.levels(i), "evaluation": region.labels_key in evaluation}
            | {"trained": region.labels_key in trained, "home": self._tiles.home(i)}
            for i, region in enumerate(self.regions)
        ]
        described = [self.marker(str(name)) for name in self.adata.var_names]
        described.sort(key=lambda marker: -1 if marker["doubt"] is None else marker["doubt"], reverse=True)
        shown = [name for name in (self.layer, TUNED) if name in self.adata.layers]
        return {
            **{"store": str(self.store or "in memory"), "version": nimbus_sd.__version__, "readonly": self.readonly},
            **{"annotator": self.annotator, "notices": self.notices, "n_cells": self.adata.n_obs, "tile": TILE},
            **{"layers": list(dict.fromkeys(shown)), "layer": self.layer, "channels": self.channels},
            **{"regions": regions, "markers": described, "groupings": self._groupings(), "page": self.page},
            **self._standing(),
        }

    def marker(self, name: str) -> dict[str, Any]:
        """Describe a marker, moved by what it learned."""
        line = self._line(name)
        if self._ordered[0] != name:
            # Of the last one only: it is clicked on again and again.
            self._ordered = name, np.sort(self.scores(self.layer, name))
        seen = markers.describe(self._ordered[1], self.thresholds[name], line["slope"], line["offset"])
        place = self.channels.index(name) if name in self.channels else None
        return {
            "name": name,
            "channel": place,
            "flag": self._flags[name],
            "threshold": self.thresholds[name],
            **seen,
            **line,
        }

    def cells(self) -> list[NDArray]:
        """Return x, y, region and radius of all cells."""
        return [self.xy[:, 0], self.xy[:, 1], self.region_of, self.radius]

    def groups_of(self, key: str) -> NDArray[np.uint16]:
        """Return the number of each cell's group."""
        return clusters.codes(self.adata, key, self._group(key))

    def cell(self, row: int, marker: str) -> dict[str, Any]:
        """Tell of one cell."""
        row, line, column = self._row(row), self._line(marker), self._column(marker)
        score = self.scores(self.layer, marker)[row : row + 1]
        intensity = self.adata.layers.get(keys.INTEGRATED)
        names = {key: [None, *value.names][int(self.groups_of(key)[row])] for key, value in self.groups.items()}
        answer = {"row": row, "id": self._ids[1][row], "region": self.region_of[row], "score": score[0]}
        answer |= {"x": self.xy[row, 0], "y": self.xy[row, 1], "label": self.labels(keys.GOLD_TRAINING, marker)[row]}
        answer["area"] = self.adata.obs[keys.AREA].iloc[row] if keys.AREA in self.adata.obs else None
        answer["shown"] = markers.shown(score, line["slope"], line["offset"])[0]
        answer["intensity"] = None if intensity is None else intensity[row, column]
        return answer | {"groups": {key: name for key, name in names.items() if name is not None}}

    def next(self, marker: str, layer: str, after: Sequence[int]) -> dict[str, Any]:
        """Propose the cell to look at next."""
        after, given = [self._row(row) for row in after], self._given(keys.GOLD_TRAINING, marker)
        with told([]):
            row, why = markers.next_doubtful(self.adata, layer or self.layer, marker, self._line(marker), given, after)
        return {"row": row, "reason": why}

    def contrast(self, region: int, channel: int) -> dict[str, float]:
        """Return where a channel is black and white."""
        return self._tiles.contrast(self._channel(channel))

    def _channel(self, channel: int) -> int:
        if not 0 <= channel < len(self.channels):
            raise IndexError(f"There is no channel {channel}.")
        return channel

    def image_tile(self, region: int, channel: int, level: int, row: int, col: int) -> NDArray[np.uint8]:
        """Return a tile of a channel."""
        return self._tiles.image_tile(region, self._channel(channel), level, row, col)

    def cell_tile(self, region: int, level: int, row: int, col: int) -> NDArray[np.uint32]:
        """Return a tile of cells."""
        return self._tiles.cell_tile(region, level, row, col)

    def crop(self, row: int, channels: Sequence[int], um: float) -> bytes:
        """Return a picture of a cell."""
        if self.region_of[self._row(row)] == _NOWHERE:
            raise ValueError(f"Cell {row} is in no region that is shown.")
        return self._tiles.crop(row, int(self.region_of[row]), [self._channel(channel) for channel in channels], um)

    def clusters(self, key: str) -> dict[str, Any]:
        """Return a grouping's heat map."""
        return clusters.heat_map(self.adata, key, self._group(key), self.layer)

    def examples(self, key: str, name: str) -> dict[str, Any]:
        """Return typical and doubtful cells of a group."""
        return clusters.examples(self.adata, key, self._group(key), self.layer, name)

    def judging(self) -> dict[str, Any]:
        """Return what was judged for evaluation."""
        return judging.summary(self.adata, self.judged, self._trained())

    def tuning(self) -> dict[str, Any]:
        """Return how far fine-tuning is."""
        status = self._tuning.status()
        if status["state"] == "none" and (why := refusal(self.adata, self.clicks, self.store)):
            return {**status, "state": "refused", "message": why}
        if status["state"] == "done" and TUNED not in self.adata.layers:
            self._tuning.result(self.adata)
        return status

    # What the page does.

    def tune(self, page: str, action: str) -> dict[str, Any]:
        """Start or stop fine-tuning."""
        self._check_page(page)
        if action == "stop":
            self._tuning.stop()
        elif action != "start":
            raise ValueError(f"Fine-tuning can start and stop, not {action!r}.")
        elif self.store is None or (why := refusal(self.adata, self.clicks, self.store)):
            raise ValueError(why if self.store else "The data are in memory only; fine-tuning needs a store on disk.")
        else:
            lines = {name: (line["slope"], line["offset"]) for name in self.clicks if (line := self._line(name))}
            shown = {name: markers.shown(self.scores(self.layer, name), *line) for name, line in lines.items()}
            self._drop(TUNED)
            self._tuning.start(self.adata, self.store, self.table_key, self.layer, self.clicks, shown)
        return self.tuning()

    def take_page(self, take_over: bool) -> dict[str, Any]:
        """Let one page write."""
        if self.page and not take_over:
            raise PageTaken("Another page has this review; it can be taken over.")
        self.page = uuid4().hex
        return {"page": self.page}

    def _check_page(self, page: str) -> None:
        if page != self.page:
            raise PageTaken("Another page has taken over this review.")

    def do(self, page: str, do: Mapping[str, Any]) -> dict[str, Any]:
        """Do a step, keep it, and return what it changed; one that cannot be kept is taken back."""
        self._check_page(page)
        notices: list[str] = []
        with told(notices):
            step = self._apply(do)
        try:
            self.log.add(self.annotator, self._by_cell(do))
        except BaseException:
            step.take_back()
            raise
        self._steps.append(step)
        return {**self._changed(step), "notices": notices}

    def undo(self, page: str) -> dict[str, Any]:
        """Take the last step back."""
        self._check_page(page)
        if not self._steps:
            raise ValueError("There is nothing to undo since the last Save.")
        self.log.undo()
        step = self._steps.pop()
        step.take_back()
        return {**self._changed(step), "notices": []}

    def _standing(self) -> dict[str, Any]:
        return {"undo": self._steps[-1].text if self._steps else None, "unsaved": len(self._steps)}

    def _changed(self, step: Step) -> dict[str, Any]:
        changed = {**self._standing(), "marker": self.marker(step.marker) if step.marker else None}
        if step.key or step.table:
            changed["groupings"] = self._groupings()
        return changed | ({"clusters": self.clusters(step.key)} if step.key in self.groups else {})

    def _groupings(self) -> list[dict[str, Any]]:
        return [clusters.described(key, value) for key, value in list(self.groups.items())]

    # Log and Save.

    def _replay(self) -> None:
        """Do again what the log has and the table has not."""
        noted = self.adata.uns.get(_NOTED)
        if isinstance(noted, Mapping) and str(noted.get("log")) == self.log.name:
            self.log.forget(int(noted["saved"]))
        lost, rows = 0, None
        annotator, steps, self.log.steps = self.annotator, self.log.steps, []
        for step in steps:
            do = dict(step["do"])
            if do["do"] == "label":
                rows = (
                    pd.Series(np.arange(self.adata.n_obs), pd.MultiIndex.from_arrays(self._ids))
                    if rows is None
                    else rows
                )
                cells = [(region, cell) for region, ids in do.pop("cells").items() for cell in ids]
                do["rows"] = rows.reindex(cells).dropna().astype(int).tolist()
                lost += len(cells) - len(do["rows"])
                if not do["rows"]:
                    continue
            try:
                with told([]):
                    self._steps.append(self._apply(do))
            except (ValueError, KeyError, TypeError, OSError) as error:
                what = f"Step {step['n']} of the log ({do['do']}) could not be done again"
                self.notices.append(f"{what}: {error.args[0] if error.args else error}")
            else:
                self.log.steps.append(step)
        self.annotator = annotator
        if lost:
            self.notices.append(f"The log labels {lost} cells that this table does not have; they were left out.")
        if self._steps:
            self.notices.append(f"{len(self._steps)} steps that were not saved were taken up again from the log.")

    def save(self, page: str) -> dict[str, Any]:
        """Write everything into the table, and the table into its store."""
        self._check_page(page)
        if self.readonly:
            raise ValueError(f"{self.readonly}, so nothing can be saved.")
        warned: list[str] = []
        with told(warned):
            wrote = self._write()
            if self.store is not None:
                self.adata.uns[_NOTED] = {"log": self.log.name, "saved": self.log.last}
                save_table(self.sdata, self.table_key)
        self.log.saved()
        self._steps.clear()
        return {"saved": [*wrote, *warned], "unsaved": 0}

    def close(self) -> str:
        """End; say what was not saved."""
        self._tuning.stop()
        self.log.close()
        kept = "not kept" if self.readonly or self.store is None else f"kept in {self.log.path}"
        return f"{len(self._steps)} steps are not saved; they are {kept}." if self._steps else "All steps are saved."


def _closed(store: Path, table_key: str) -> str | None:
    """Say what cannot be written to."""
    places = [store.parent, store, store / "tables", store / "tables" / table_key]
    closed = [place for place in places if place.exists() and not os.access(place, os.W_OK)]
    return f"{closed[0]} cannot be written to" if closed else None


def _user() -> str:
    """Name the user of this machine as an annotator may be named."""
    name = os.environ.get("USER") or os.environ.get("USERNAME") or ""
    return re.sub(r"[^\w.-]+", "-", name)[:60] or "me"
