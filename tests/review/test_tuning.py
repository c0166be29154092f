"""Fine-tuning from the page, in a process of its own."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

import nimbus_sd as ns
from nimbus_sd._review import tuning
from nimbus_sd.simulate import Detector, Marker

pytest.importorskip("lightning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    panel = {"CD3": (Marker("membrane", 0.4), Detector(gain=200)), "CD8": (Marker("membrane", 0.3), Detector(gain=200))}
    types = {"T": (1.0, ("CD3", "CD8")), "other": (2.0, ())}
    sdata = ns.simulate.simulate(panel, types, n_regions=4, shape=(128, 128), rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ns.predict(sdata, progress=False)
    path = tmp_path_factory.mktemp("tuning") / "four.zarr"
    sdata.write(path)
    return sdata, path


def _clicks(adata):
    truth = np.array(adata.layers["gold"][:, 0], np.float32)
    return {"CD3": np.where(np.arange(adata.n_obs) % 5 == 0, truth, np.nan).astype(np.float32)}


def test_a_run_reports_on_regions_held_out_and_gives_scores(store, tmp_path):
    sdata, path = store
    adata = sdata.tables["table"].copy()
    clicks, shown = _clicks(adata), {"CD3": np.asarray(adata.layers["nimbus"][:, 0])}
    del adata.layers["gold"]
    assert tuning.refusal(adata, clicks, path) is None
    run = tuning.Tuning(tmp_path / "run")
    assert run.status()["state"] == "none"
    run.start(adata, path, "table", "nimbus", clicks, shown, {"robust_steps": 4, "validate_every": 2, "batch_size": 2})
    seen = set()
    while (status := run.status())["state"] == "running":
        seen.add(status["message"])
        time.sleep(0.2)
    assert status["state"] == "done", (tmp_path / "run" / "output.txt").read_text()
    assert {row["marker"] for row in status["report"]} == {"CD3", "mean"} and "Learning" in seen
    run.result(adata)
    assert adata.layers["nimbus_tuned"].shape == adata.shape and np.isfinite(adata.layers["nimbus_tuned"]).all()
    assert adata.uns["nimbus_tuned"]["sha256"] != adata.uns["nimbus"]["sha256"] or np.allclose(
        adata.layers["nimbus_tuned"], adata.layers["nimbus"], atol=1e-3
    )
    # Another page finds it as it was left.
    assert tuning.Tuning(tmp_path / "run").status()["state"] == "done"
    run.drop()
    assert not (tmp_path / "run").exists() and run.status()["state"] == "none"


def test_a_run_is_stopped_and_what_fails_is_told(store, tmp_path):
    sdata, path = store
    adata = sdata.tables["table"]
    run = tuning.Tuning(tmp_path / "run")
    args = _clicks(adata), {"CD3": np.asarray(adata.layers["nimbus"][:, 0])}
    run.start(adata, path, "table", "nimbus", *args)
    process = run._process
    run.stop()
    assert process.poll() is not None and run.status()["state"] == "none"
    run.start(adata, tmp_path / "gone.zarr", "table", "nimbus", *args)
    run._process.wait(120)
    assert run.status()["state"] == "failed" and run.status()["message"]


def test_refusals(store):
    sdata, path = store
    adata = sdata.tables["table"]
    assert "in memory" in tuning.refusal(adata, _clicks(adata), None)
    assert "10 labels" in tuning.refusal(adata, {}, path)
    assert "3 regions" in tuning.refusal(adata[adata.obs["region"] == "fov1_labels"], _clicks(adata), path)
