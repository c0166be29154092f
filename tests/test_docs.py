"""The code of the documents runs, from top to bottom."""

import re
from pathlib import Path

import pytest
from squidpy_here import squidpy_fits

import nimbus_sd as ns

DOCS = Path(__file__).parents[1] / "docs"


def run_page(name: str, at_least: int) -> dict:
    """Run a page's blocks of code in order, and return the names that they leave."""
    text = (DOCS / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= at_least
    names: dict = {}
    for block in blocks:
        if "import squidpy" in block and not squidpy_fits():
            continue
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(DOCS / name), "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("training.md", 6)
    assert names["path"].is_file() and (tmp_path / "runs/first/last.ckpt").is_file()
    assert names["cells"]["kept"].mean() < 1
    assert {"f1_before", "f1_after"} <= set(names["tuned"].report)
    assert names["scores"].layers["nimbus"].shape == names["adata"].shape


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_clustering(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("clustering.md", 10)
    assert "metacluster_nimbus" in names["adata"].obs and (tmp_path / "tissue.zarr").is_dir()
    assert set(names["suggested"]["type"]) > {"T cell", "B cell", "Epithelial cell"}


def test_every_function_of_clusters_is_in_the_page():
    text = (DOCS / "clustering.md").read_text(encoding="utf-8")
    for name in {*ns.tl.__all__} - {"calibrate", "call_positive"}:
        assert f"tl.{name}" in text, name
