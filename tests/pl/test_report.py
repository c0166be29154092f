"""The report: one file that needs nothing else, and says what is in the table."""

import base64
import re
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata.transformations import Identity, Scale

import nimbus_sd as ns

pytestmark = pytest.mark.filterwarnings("ignore:Look at the image", "ignore:Glyph")


@pytest.fixture
def scored(sdata):
    """The two fields of view with scores, means and a history."""
    adata = sdata.tables["table"]
    adata.layers["integrated_expression"] = np.arange(16, dtype=np.float32).reshape(8, 2)
    adata.obsm["spatial"] = np.array([[5.0, 15], [5, 5], [25, 15], [15, 5]] * 2)
    adata.uns["nimbus"] = {"model": "<b>mine</b>", "settings": {"tta": False}}
    adata.varm["nimbus_normalization"] = pd.DataFrame({"factor": [99.0, 12345.0]}, index=adata.var_names)
    return sdata


@pytest.fixture
def write(tmp_path, assert_same):
    """Write a report and return its text; the table stays as it was."""

    def write(adata: AnnData, *arguments, **what) -> str:
        before = adata.copy()
        path = ns.pl.report(adata, tmp_path / "run.html", *arguments, **what)
        assert path == tmp_path / "run.html" and list(tmp_path.iterdir()) == [path]
        assert_same(adata, before)
        return path.read_text("utf-8")

    return write


@pytest.fixture
def figures(monkeypatch) -> list:
    """The figures of a report, which are not drawn."""
    drawn = []

    def keep(figure, caption: str) -> str:
        drawn.append(figure)
        plt.close(figure)
        return ""

    monkeypatch.setattr(import_module("nimbus_sd.pl.report"), "picture", keep)
    return drawn


def row_of(text: str, channel: str) -> list[str]:
    """Cells of a channel's row in the first table."""
    (row,) = [line for line in text.split("<tr>") if f"<th>{channel}</th>" in line]
    return re.findall(r"<td[^>]*>(.*?)</td>", row)


def columns_of(text: str) -> list[str]:
    return re.findall(r"<th[^>]*>(.*?)</th>", text.split("<thead>")[1].split("</thead>")[0])[1:]


def test_it_is_one_file_with_its_pictures(scored, write):
    text = write(scored["table"], scored, truth="gold")
    pictures = re.findall(r"<figure>.*?</figure>", text, re.S)
    assert len(pictures) == text.count("<img") >= 8
    for picture in pictures:
        kind, data = re.search('src="([^"]+)"', picture)[1].split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
        assert len(re.search("<figcaption>(.*?)</figcaption>", picture)[1]) > 20
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "F1 of scores at 0.5, and of integrated expression at Otsu" in text
    assert "Score of at least 0.5 though the mean is low: dim cells, or mistakes. Relative means" in text
    adata = scored["table"]
    adata.layers["integrated_expression"] = adata.layers["nimbus"] * 100
    assert "has a relative mean above 0.5: nothing to show." in write(adata, scored)
    # Expression may be the layer.
    text = write(adata, scored, layer="integrated_expression", truth="gold")
    assert "holds other values than scores" in text and "about the same score" not in text
    assert "F1 of integrated expression at Otsu" in text and "share undecided" not in text


def test_it_says_what_the_table_holds(scored, write):
    adata = scored["table"]
    settings = {"sha256": "0123456789abcdef" * 8, "wrote": np.array(["X", "obs/area"]), "pixel": 0.1 + 0.2}
    adata.uns["nimbus"] |= settings
    text = write(adata)
    assert "8 cells of 2 regions, 2 channels" in text
    values = dict(zip(columns_of(text), row_of(text, "CD3"), strict=True))
    # Half of the scored cells of CD3 in the first field of view and all of the second: (2 + 4) of 7; 0.25 and 0.5 are
    # undecided.
    assert [values[name] for name in ("share positive", "share undecided (0.25-0.75)")] == ["0.857", "0.286"]
    assert values["normalisation factor"] == "12,345"
    # Names from outside are text, not markup.
    assert "<b>mine" not in text and "&lt;b&gt;mine" in text
    assert "Examples" not in text and "Against the labels" in text
    for name, value in {"settings tta": "False", **settings, "wrote": "X, obs/area", "pixel": "0.3"}.items():
        assert re.search(rf"<th>{name}</th>\s*<td>{value}</td>", text)
    assert "it is not known which images the model was trained on" in text
    adata.uns["nimbus"] |= {"model_description": "<i>for</i> tests", "ranges": {"dynamic": {"low": 0.1, "high": 0.9}}}
    text = write(adata)
    assert "The images were compared with those that the model was trained on" in text
    start = text.split("<h2>")[0]
    assert start.index("</h1>") < start.index("&lt;i&gt;for&lt;/i&gt; tests")
    assert text.count("for&lt;/i&gt; tests") == 1


def test_hostile_names_are_text(scored, write):
    names = ["<script>alert(1)</script>", r"$\frac{a$"]
    adata = scored["table"]
    adata.var_names = adata.varm["nimbus_normalization"].index = names
    for image in scored.images:
        scored.set_channel_names(image, names)
    adata.obs["region"] = adata.obs["region"].cat.rename_categories({"b_cells": "<b>$_{$</b>"})
    text = write(adata, scored)
    assert "<script" not in text and "&lt;script&gt;" in text and r"<th>$\frac{a$</th>" in text
    ns.pl.image(scored, names[1], "a_cells").figure.canvas.draw()
    ns.pl.score_shape(adata, channel=names[1]).figure.canvas.draw()


def test_stored_calls_are_shown(scored, write, figures):
    adata = scored["table"]
    none = "The table holds no calls of this layer"
    assert f"{none}; cells with a score of at least 0.5" in write(adata)
    ns.tl.call_positive(adata, threshold={"DAPI": 0.05, "CD3": 0.95})
    adata.varm["positive"]["high"] = [0.125, 0.975]
    adata.var["positive_flag"] = pd.Categorical(["", "blurred & dim"])
    text = write(adata, truth="gold")
    assert "The calls are those stored in the table" in text and "blurred &amp; dim" in text
    assert columns_of(text)[:4] == ["threshold", "low", "high", "share positive"]
    # One of seven scored cells is at 1, all have a score of 0.1 for DAPI.
    assert row_of(text, "CD3")[:4] == ["0.950", "0.950", "0.975", "0.143"]
    assert row_of(text, "DAPI")[:4] == ["0.050", "0.050", "0.125", "1.000"]
    # The metrics are of these calls: of six positive cells one is called.
    assert row_of(text, "CD3")[columns_of(text).index("recall")] == "0.167"
    # Calls of another layer are not shown, whatever the layer is called.
    adata.layers["other"] = adata.layers["nimbus"] / 2
    ns.tl.call_positive(adata, layer="other")
    text = write(adata)
    assert none in text and "threshold" not in columns_of(text)
    adata.layers["positive"] = adata.layers["nimbus"]
    assert none in write(adata, layer="positive")


def test_distributions_are_of_all_channels_and_each(annotate, write, figures):
    scores = np.random.default_rng(0).random((30, 8), np.float32)
    names = [f"CD{i}" for i in range(8)]
    adata = annotate(range(30), ["a"] * 30, names, nimbus=scores, integrated_expression=scores * 100)
    text = write(adata)
    # Without labels or history they are left out.
    assert "Against the labels" not in text and "Not recorded" in text and "30 cells of 1 region," in text
    pooled, by_score, by_expression = figures
    assert [ax.get_xlabel() for ax in pooled.axes] == ["scores", "arcsinh(integrated expression / c)"]
    for figure in (by_score, by_expression):
        assert [ax.get_title() for ax in figure.axes] == names


def test_examples_are_around_the_middle(write, figures, make_sdata, annotate):
    # Labels may be finer than the image.
    labels = np.zeros((800, 800), np.int64)
    labels[700:720, 700:720] = 1
    places = {"a": {"a": Identity()}, "a_cells": {"a": Scale([0.5, 0.5], axes=("y", "x"))}}
    sdata = make_sdata({"a": np.ones((1, 400, 400))}, {"a_cells": labels}, ("CD3",), transformations=places)
    table = annotate([1], ["a_cells"], ("CD3",), nimbus=np.ones((1, 1), np.float32))
    table.obsm["spatial"] = np.array([[355.0, 355.0]])
    sdata.tables["table"] = table
    assert "Examples" in write(table, sdata)
    # All of the cell, in the crop of 300 pixels that ends at the image's edge.
    assert (np.asarray(figures[-1].axes[2].images[0].get_array().filled(0)) == 1).sum() == 400


def test_what_is_wrong_leaves_no_file(scored, tmp_path):
    for what, error, words in (
        ({"channels": ["CD4"]}, KeyError, r"no channel 'CD4'; there are \['DAPI', 'CD3'\]"),
        ({"path": Path("nowhere/run.html")}, FileNotFoundError, r"folder 'nowhere' does not exist"),
        ({"layer": "other"}, KeyError, "no layer 'other'"),
        ({"truth": "other"}, KeyError, "no layer 'other'"),
        ({"sdata": scored}, ValueError, r"none of the tables in `sdata`, which has \['table'\]"),
    ):
        with pytest.raises(error, match=words):
            ns.pl.report(scored["table"].copy(), **{"path": tmp_path / "run.html", **what})
        assert not list(tmp_path.iterdir())
