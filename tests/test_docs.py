"""The code of the documents runs, from top to bottom."""

import re
from pathlib import Path

import numpy as np
import pytest
from squidpy_here import squidpy_fits

import nimbus_sd as ns

DOCS = Path(__file__).parents[1] / "docs"


def run(page: str) -> dict:
    """Run the blocks of a page, one after the other; return the names that they set."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    names: dict = {}
    for block in blocks:
        if "import squidpy" in block and not squidpy_fits():
            continue
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(DOCS / page), "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("training.md")
    assert names["path"].is_file() and (tmp_path / "runs/first/last.ckpt").is_file()
    assert names["cells"]["kept"].mean() < 1
    assert {"f1_before", "f1_after"} <= set(names["tuned"].report)
    assert names["scores"].layers["nimbus"].shape == names["adata"].shape


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("labels.md")
    adata, found = names["adata"], names["found"]
    assert found.index[0] == "CD8" and "'B cell' (positive)" in found.loc["CD8", "reason"]
    assert ns.labels.evaluation_regions(adata) == names["regions"]
    judged = np.isfinite(adata.layers["gold_training"]).sum()
    assert judged == len(names["cells"]) == 100
    text = (DOCS / "labels.md").read_text(encoding="utf-8")
    for name in ns.labels.__all__:
        assert f"labels.{name}" in text or f"`{name}`" in text, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_clustering(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("clustering.md")
    assert "metacluster_nimbus" in names["adata"].obs and (tmp_path / "tissue.zarr").is_dir()
    assert set(names["suggested"]["type"]) > {"T cell", "B cell", "Epithelial cell"}


def test_every_function_of_clusters_is_in_the_page():
    text = (DOCS / "clustering.md").read_text(encoding="utf-8")
    for name in {*ns.tl.__all__} - {"calibrate", "call_positive"}:
        assert f"tl.{name}" in text, name
