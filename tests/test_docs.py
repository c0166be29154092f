"""The code of the documents runs, from top to bottom."""

import re
from pathlib import Path

import numpy as np
import pytest
import spatialdata
import tifffile
import torch
from squidpy_here import squidpy_fits

import nimbus_sd as ns
from nimbus_sd.models import UNet
from nimbus_sd.simulate import Detector, Marker, simulate

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def run(path: Path, **names) -> dict:
    """Run the Python of a document from top to bottom, with these names given; return its names."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if "import squidpy" in block and not squidpy_fits():
            continue
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(path), "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(DOCS / "training.md")
    assert names["path"].is_file() and (tmp_path / "runs/first/last.ckpt").is_file()
    assert names["cells"]["kept"].mean() < 1
    assert {"f1_before", "f1_after"} <= set(names["report"])
    assert names["scores"].layers["nimbus"].shape == names["adata"].shape


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(DOCS / "labels.md")
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
def test_qupath(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(DOCS / "qupath.md")
    adata, (region,) = names["adata"], names["regions"]
    inside = (adata.obs["region"] == region).to_numpy()
    # Both markers of the matrix, all cells of the region and no others; Anna's one correction is there.
    assert np.isfinite(adata.to_df("gold")[["CD3", "CD20"]]).all(axis=1).equals(adata.obs["region"] == region)
    assert (adata.layers["anna"][inside] == 0.5).sum() == 1
    columns = adata.var_names.get_indexer(["CD3", "CD20"])
    assert (adata.layers["ben"][np.ix_(inside, columns)] == names["truth"][np.ix_(inside, columns)]).all()
    assert len(names["disputed"]) and (names["disputed"]["label"] == 0.5).all()
    assert tifffile.TiffFile("fov2.ome.tif").is_ome and region == "fov2_labels"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_clustering(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(DOCS / "clustering.md")
    assert "metacluster_nimbus" in names["adata"].obs and (tmp_path / "tissue.zarr").is_dir()
    assert set(names["suggested"]["type"]) > {"T cell", "B cell", "Epithelial cell"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_first_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata = run(ROOT / page)["adata"]
    assert {"nimbus", "positive"} <= set(adata.layers) and "flowsom_nimbus" in adata.obs


@pytest.fixture
def tissue():
    """Image and labels of the four markers that pages name; no table."""
    panel = {name: (Marker("membrane", 0.3), Detector()) for name in ("CD3", "CD8", "CD20", "CD68")}
    sdata = simulate(panel, {name: (1, (name,)) for name in panel}, n_regions=1, shape=(128, 128), rng=0)
    del sdata.tables["table"]
    return sdata


@pytest.mark.filterwarnings("ignore")
def test_own_model(tissue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(UNet(4, 3).state_dict(), "finetuned.pt")
    names = run(DOCS / "own_model.md", sdata=tissue)
    card, compact = ns.models.load("tonsil.safetensors").card, ns.models.load("compact").card
    # Nothing is left that tells of the model it came from but what the network needs.
    told = ("name", "description", "trained_on", "source", "figures", "ranges", "revision")
    assert not [key for key in told if getattr(card, key) == getattr(compact, key)]
    assert names["adata"].uns["nimbus"]["model"] == "finetuned"


@pytest.mark.filterwarnings("ignore")
def test_whole_slides(tissue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tissue.write("slide.zarr")
    run(DOCS / "whole_slides.md")
    table = spatialdata.read_zarr("slide.zarr").tables["table"]
    assert list(table.var_names) == ["CD3", "CD8", "CD20", "CD68"] and np.isfinite(table.layers["nimbus"]).all()


@pytest.mark.parametrize("room", [name for name in ns.__all__ if name != "predict"])
def test_every_public_name_is_in_the_api(room):
    page = (DOCS / "api" / f"{room}.md").read_text(encoding="utf-8")
    assert f"\n{room}\n" in (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    for name in getattr(ns, room).__all__:
        assert re.search(rf"^   {name}$|`{name}`|\.{name}$", page, re.MULTILINE), name


def test_pictures_and_files_named_in_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)|`((?:docs|tutorials|benchmarks)/[\w./]*\w)`", text)
    paths = [path for pair in named for path in pair if path and not path.startswith("docs/_build")]
    assert len(paths) > 4 and not [path for path in paths if not (ROOT / path).exists()]


def test_the_card_of_the_published_model_is_that_of_the_package():
    page = (DOCS / "nimbus_card.md").read_text(encoding="utf-8")
    card = ns.models.PUBLISHED
    figures = [f"{card.figures[f'gold_standard_{name}']:.3f}" for name in ("precision", "recall", "specificity", "f1")]
    assert f"| {' | '.join(figures)} |" in page
    network = f"{card.root_filters} root filters, depth {card.depth}"
    told = (network, f"{card.pixel_size:g} um", f"{100 * card.quantile:g} %", card.rule, card.license, card.source)
    assert not [text for text in told if text not in page]


def test_versions_of_hooks_are_the_tested_ones():
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    hooks = re.findall(
        r"additional_dependencies: \[(.+)\]", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    )
    assert hooks and set(hooks) <= set(tested)


def test_every_function_of_clusters_is_in_the_page():
    text = (DOCS / "clustering.md").read_text(encoding="utf-8")
    for name in {*ns.tl.__all__} - {"adapt", "calibrate", "call_positive"}:
        assert f"tl.{name}" in text, name


def test_the_tree_of_the_design_is_that_of_the_package():
    page = (DOCS / "design.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```\nsrc/nimbus_sd/\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    named, room = set(), Path()
    for line in tree.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        if indent == 0:
            named.add(ROOT / name)
        elif name.endswith("/"):
            room = ROOT / "src/nimbus_sd" / name
        else:
            named.add((room if indent > 2 else ROOT / "src/nimbus_sd") / name)
    assert not sorted(path for path in named if not path.exists())
    public = {path for path in (ROOT / "src/nimbus_sd").rglob("*.py") if not path.name.startswith("_")}
    assert not sorted(public - named)
    for path in re.findall(r"`(\w+/\w+\.py|\w+\.py)`", page):
        assert (ROOT / "src/nimbus_sd" / path).exists() or (ROOT / path).exists(), path
