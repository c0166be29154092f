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

pytestmark = pytest.mark.filterwarnings("ignore")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the Python of a document from top to bottom, in an empty folder, with names given; return its names."""
    monkeypatch.chdir(tmp_path)

    def run(page, **names):
        text = read(page)
        for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if "import squidpy" in block and not squidpy_fits():
                continue
            line = text[: text.index(block)].count("\n")
            exec(compile("\n" * line + block, page, "exec"), names)
        return names

    return run


@pytest.mark.slow
def test_training(run):
    names = run("docs/training.md")
    assert names["path"].is_file() and Path("runs/first/last.ckpt").is_file()
    assert names["cells"]["kept"].mean() < 1
    assert {"f1_before", "f1_after"} <= set(names["report"])
    assert names["scores"].layers["nimbus"].shape == names["adata"].shape


@pytest.mark.slow
def test_labels(run):
    names = run("docs/labels.md")
    adata, found = names["adata"], names["found"]
    assert found.index[0] == "CD8" and "'B cell' (positive)" in found.loc["CD8", "reason"]
    assert ns.labels.evaluation_regions(adata) == names["regions"]
    judged = np.isfinite(adata.layers["gold_training"]).sum()
    assert judged == len(names["cells"]) == 100


@pytest.mark.slow
def test_masks(run):
    names = run("docs/masks.md")
    adata, sdata = names["adata"], ns.datasets.example()
    assert (names["grown"].obs["area"] >= adata.obs["area"]).all() and set(names["cores"]) == set(
        names["slide"].obs["region"]
    )
    # Most of what the recipe finds are the cells of the tissue: more than half of both together is in both.
    found, truth = names["found"].ravel(), sdata["fov2_labels"].to_numpy().ravel()
    (a, b), both = np.unique([found, truth], axis=1, return_counts=True)[0:2]
    same = (a > 0) & (b > 0) & (both > (np.bincount(found)[a] + np.bincount(truth)[b]) / 3)
    assert same.sum() > 0.75 * len(np.unique(truth))
    # What needs other packages is at least Python.
    for block in re.findall(r"^```py\n(.*?)^```", read("docs/masks.md"), re.DOTALL | re.MULTILINE):
        compile(block, "docs/masks.md", "exec")


@pytest.mark.slow
def test_qupath(run):
    names = run("docs/qupath.md")
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
def test_clustering(run):
    names = run("docs/clustering.md")
    assert "metacluster_nimbus" in names["adata"].obs and Path("tissue.zarr").is_dir()
    assert set(names["suggested"]["type"]) > {"T cell", "B cell", "Epithelial cell"}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_first_page(page, run):
    adata = run(page)["adata"]
    assert {"nimbus", "positive"} <= set(adata.layers) and "flowsom_nimbus" in adata.obs


@pytest.fixture
def slide():
    """Image and labels of the four markers that pages name; no table."""
    panel = {name: (Marker("membrane", 0.3), Detector()) for name in ("CD3", "CD8", "CD20", "CD68")}
    sdata = simulate(panel, {name: (1, (name,)) for name in panel}, n_regions=1, shape=(128, 128), rng=0)
    del sdata.tables["table"]
    return sdata


def test_own_model(slide, run, tmp_path):
    torch.save(UNet(4, 3).state_dict(), tmp_path / "finetuned.pt")
    names = run("docs/own_model.md", sdata=slide)
    card, compact = ns.models.load("tonsil.safetensors").card, ns.models.load("compact").card
    # Nothing is left that tells of the model it came from but what the network needs.
    fields = ("name", "description", "trained_on", "source", "figures", "ranges", "revision")
    assert not [name for name in fields if getattr(card, name) == getattr(compact, name)]
    assert names["adata"].uns["nimbus"]["model"] == "finetuned"


def test_whole_slides(slide, run, tmp_path):
    slide.write(tmp_path / "slide.zarr")
    run("docs/whole_slides.md")
    table = spatialdata.read_zarr("slide.zarr").tables["table"]
    assert list(table.var_names) == ["CD3", "CD8", "CD20", "CD68"] and np.isfinite(table.layers["nimbus"]).all()


def test_the_error_for_no_mask_names_a_page(slide):
    slide.labels.clear()
    with pytest.raises(ValueError, match=r'labels \(none\)\. Find .*: see ".+" in') as error:
        ns.predict(slide)
    assert f"# {str(error.value).split(chr(34))[1]}\n" in read("docs/masks.md") and "\nmasks\n" in read("docs/index.md")


@pytest.mark.parametrize("room", [name for name in ns.__all__ if name not in ("predict", "review")])
def test_every_public_name_is_in_the_api(room):
    page = read(f"docs/api/{room}.md")
    assert f"\n{room}\n" in read("docs/api/index.md")
    for name in getattr(ns, room).__all__:
        assert re.search(rf"^   {name}$|`{name}`|\.{name}$", page, re.MULTILINE), name


def test_pictures_and_files_named_in_the_readme_exist():
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)|`((?:docs|tutorials|benchmarks)/[\w./]*\w)`", read("README.md"))
    paths = [path for pair in named for path in pair if path and not path.startswith("docs/_build")]
    assert len(paths) > 4 and not [path for path in paths if not (ROOT / path).exists()]


def test_the_card_of_the_published_model_is_that_of_the_package():
    page, card = read("docs/nimbus_card.md"), ns.models.PUBLISHED
    figures = [f"{card.figures[f'gold_standard_{name}']:.3f}" for name in ("precision", "recall", "specificity", "f1")]
    network = f"{card.root_filters} root filters, depth {card.depth}"
    stated = (network, f"{card.pixel_size:g} um", f"{100 * card.quantile:g} %", card.rule, card.license, card.source)
    assert not [text for text in (f"| {' | '.join(figures)} |", *stated) if text not in page]


def test_versions_of_hooks_are_the_tested_ones():
    hooks = re.findall(r"additional_dependencies: \[(.+)\]", read(".pre-commit-config.yaml"))
    assert hooks and set(hooks) <= set(read("constraints.txt").splitlines())


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
