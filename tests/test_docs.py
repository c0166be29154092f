"""The code of the documents runs, from top to bottom."""

import re
from pathlib import Path

import pytest
from squidpy_here import squidpy_fits

import nimbus_sd as ns

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_clustering(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "clustering.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    names: dict = {}
    for block in blocks:
        if "import squidpy" in block and not squidpy_fits():
            continue
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(DOCS / "clustering.md"), "exec"), names)
    assert "metacluster_nimbus" in names["adata"].obs and (tmp_path / "tissue.zarr").is_dir()
    assert set(names["suggested"]["type"]) > {"T cell", "B cell", "Epithelial cell"}


def test_every_function_of_clusters_is_in_the_page():
    text = (DOCS / "clustering.md").read_text(encoding="utf-8")
    for name in {*ns.tl.__all__} - {"calibrate", "call_positive"}:
        assert f"tl.{name}" in text, name
