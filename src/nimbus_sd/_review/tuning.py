"""Fine-tuning in a process of its own: what it learns from, how far it is, what came of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import noted_by_region, region_column
from nimbus_sd.spatial import regions_of_table

#: Layer of the tuned model's scores.
TUNED: Final = "nimbus_tuned"
_FEWEST, _REGIONS = 10, 3
_SURE: Final = (0.1, 0.9)


def refusal(adata: AnnData, clicks: Mapping[str, NDArray[np.float32]], store: Path | None) -> str | None:
    """Say why there can be no fine-tuning yet."""
    if store is None:
        return "The data are in memory only; fine-tuning needs a store on disk."
    if find_spec("lightning") is None or find_spec("kornia") is None:
        return "Fine-tuning needs the extra `train`: pip install 'nimbus-sd[train]'."
    if region_column(adata).nunique() < _REGIONS:
        return f"Fine-tuning needs {_REGIONS} regions: to learn from, to stop by, and to judge by."
    if any(noted_by_region(adata, "grow").values()):
        return "The cells were grown for their scores, which fine-tuning cannot do; score grown labels instead."
    n = sum(int((np.isfinite(given) & (given != 0.5)).sum()) for given in clicks.values())
    if n < _FEWEST:
        return f"Fine-tuning needs {_FEWEST} labels of single cells or more; there are {n}."
    return None


class Tuning:
    """One run of fine-tuning in a folder beside the store, which stays until it is dropped.

    Parameters
    ----------
    folder
        Of the run; deleted by `drop`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._process = folder, None

    _process: subprocess.Popen[bytes] | None

    def start(
        self,
        adata: AnnData,
        store: Path,
        table_key: str,
        layer: str,
        clicks: Mapping[str, NDArray[np.float32]],
        shown: Mapping[str, NDArray[np.float32]],
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin: labels are the clicks, and beside them the sure calls of the learned lines as noisy labels.

        ``clicks`` and ``shown`` scores are of all cells, by marker.
        """
        self.drop()
        self.folder.mkdir(parents=True)
        layers = {name: np.full(adata.shape, np.nan, np.float32) for name in (keys.SILVER, keys.GOLD_TRAINING)}
        for marker, given in clicks.items():
            at, scores = adata.var_names.get_loc(marker), shown[marker]
            layers[keys.GOLD_TRAINING][:, at] = given
            sure = np.isfinite(scores) & ((scores <= _SURE[0]) | (scores >= _SURE[1]))
            layers[keys.SILVER][sure, at] = scores[sure] > 0.5
        if keys.GOLD in adata.layers:
            layers[keys.GOLD] = np.asarray(adata.layers[keys.GOLD])
        columns = [*{str(region_column(adata).name), keys.EVALUATION} & set(adata.obs), *_instance(adata)]
        table = AnnData(obs=adata.obs[columns], var=adata.var[[]], layers=layers, obsm=dict(adata.obsm))
        table.uns = {name: adata.uns[name] for name in ("spatialdata_attrs", layer) if name in adata.uns}
        if f"{layer}_normalization" in adata.varm:
            table.varm[f"{layer}_normalization"] = adata.varm[f"{layer}_normalization"]
        table.write_h5ad(self.folder / "labels.h5ad")
        job = {"store": str(store), "table": table_key, "layer": layer, "markers": list(clicks), "recipe": recipe or {}}
        (self.folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        with (self.folder / "output.txt").open("wb") as output:
            command = [sys.executable, "-m", __name__, str(self.folder)]
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603

    def status(self) -> dict[str, Any]:
        """Return state, message, progress (0 to 1), epoch, and once it is done the report."""
        running = self._process is not None and self._process.poll() is None
        answer: dict[str, Any] = {"state": "none", "message": "", "progress": 0.0, "epoch": 0}
        answer |= {"report": None, "layer": None}
        report = self.folder / "report.csv"
        if report.exists() and (self.folder / "scores.h5ad").exists():
            table = pd.read_csv(report).rename(columns={"channel": "marker"})
            rows = table[["marker", "truth", "cells", "f1_before", "f1_after"]].to_dict("records")
            return answer | {"state": "done", "progress": 1.0, "report": rows, "layer": TUNED}
        if running:
            steps, said = _step(self.folder / "run" / "metrics.csv"), self.folder / "stage.json"
            stage = json.loads(said.read_text(encoding="utf-8")) if said.exists() else {"message": "Cutting tiles"}
            part = (
                min(0.9, 0.1 + 0.8 * steps / int(stage.get("steps", 1000)))
                if steps
                else float(stage.get("progress", 0.02))
            )
            return answer | {"state": "running", "message": stage["message"], "progress": part, "epoch": steps}
        if self._process is not None:
            lines = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return answer | {"state": "failed", "message": lines[-1] if lines else "The process was stopped."}
        return answer

    def result(self, adata: AnnData) -> None:
        """Put the tuned model's scores, and how they were made, into the table."""
        made = ad.read_h5ad(self.folder / "scores.h5ad")
        for name in (TUNED, *(name for name in made.uns if str(name).startswith(f"{TUNED}_"))):
            if name in made.uns:
                adata.uns[name] = made.uns[name]
        for name in made.varm:
            adata.varm[name] = made.varm[name].reindex(adata.var_names)
        adata.layers[TUNED] = np.asarray(made.layers[TUNED], np.float32)

    def stop(self) -> None:
        """End the process, and those that it started."""
        if self._process is not None and self._process.poll() is None:
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGTERM)
            self._process.terminate()
            self._process.wait()
        self._process = None

    def drop(self) -> None:
        """Stop, and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _instance(adata: AnnData) -> list[str]:
    return [str(adata.uns.get("spatialdata_attrs", {}).get("instance_key", keys.INSTANCE))]


def _step(metrics: Path) -> int:
    """Read the last step that a run has noted."""
    try:
        table = pd.read_csv(metrics)
    except (OSError, ValueError):
        return 0
    return int(table["step"].max()) if len(table) and "step" in table else 0


def main(folder: Path) -> None:
    """Do what the folder says: cut tiles, fine-tune, score all markers anew."""
    from spatialdata import read_zarr

    import nimbus_sd as ns

    if os.name == "posix":
        os.nice(10)
    warnings.simplefilter("ignore")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    recipe = ns.train.Recipe.fine_tune(**job["recipe"])

    def say(message: str, progress: float) -> None:
        text = json.dumps({"message": message, "progress": progress, "steps": recipe.steps})
        (folder / "stage.json").write_text(text, encoding="utf-8")

    sdata, table = read_zarr(job["store"]), ad.read_h5ad(folder / "labels.h5ad")
    attrs = table.uns["spatialdata_attrs"]
    # Files of tables turn lists into arrays, which SpatialData does not take.
    attrs["region"] = np.atleast_1d(attrs["region"]).tolist()
    sdata.tables[job["table"]] = table
    model = str(table.uns[job["layer"]]["model"])
    # The same cells on the same images, on the same scale.
    regions = regions_of_table(sdata, job["table"], None, None, None, None)
    same: dict[str, Any] = {
        "image_key": [region.image_key for region in regions],
        "labels_key": [region.labels_key for region in regions],
        "pixel_size": {region.image_key: region.pixel_size * region.image_repeat for region in regions},
        "normalization": table.varm[f"{job['layer']}_normalization"],
        "table_key": job["table"],
        "progress": False,
    }
    say("Cutting tiles", 0.02)
    tiles, shares = folder / "tiles.zarr", (0.6, 0.2, 0.2)
    store = ns.train.build_store(
        tiles, sdata, data_set="review", channels=job["markers"], model=model, split=shares, **same
    )
    say("Learning", 0.1)
    path, report = ns.train.fine_tune(store, folder / "run", model=model, recipe=recipe, progress=False)
    say("Scoring all cells", 0.9)
    adata = ns.predict(sdata, key_added=TUNED, model=path, channels=regions[0].channels, **same)
    adata.write_h5ad(folder / "scores.h5ad")
    report.to_csv(folder / "report.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
