"""The report: one file that needs nothing else, and says what is in the table."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns
from nimbus_sd.pl import _evidence, _sections


@pytest.fixture
def scored(sdata):
    """The two fields of view with scores, means and a history."""
    adata = sdata.tables["table"]
    adata.layers["integrated_expression"] = np.arange(16, dtype=np.float32).reshape(8, 2)
    adata.obsm["spatial"] = np.array([[5.0, 15], [5, 5], [25, 15], [15, 5]] * 2)
    adata.uns["nimbus"] = {"model": "<b>mine</b>", "settings": {"tta": False}}
    adata.varm["nimbus_normalization"] = pd.DataFrame({"factor": [99.0, 12345.0]}, index=adata.var_names)
    return sdata


def test_it_is_one_file_with_its_pictures(scored, tmp_path):
    path = ns.pl.report(scored.tables["table"], tmp_path / "run.html", scored)
    text = path.read_text("utf-8")
    pictures = re.findall(r'src="([^"]+)"', text)
    assert len(pictures) >= 6
    for picture in pictures:
        assert picture.startswith("data:image/png;base64,")
        assert base64.b64decode(picture.split(",")[1]).startswith(b"\x89PNG")
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert [p.name for p in tmp_path.iterdir()] == ["run.html"]


def test_it_says_what_the_table_holds(scored, tmp_path):
    adata = scored.tables["table"]
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert "8 cells of 2 regions, 2 channels" in text
    # Half of the scored cells of CD3 in the first field of view and all of the second: (2 + 4) of 7.
    (row,) = [line for line in text.split("<tr>") if "<th>CD3</th>" in line]
    assert "0.857" in row and "12,345" in row
    # Names from outside are text, not markup.
    assert "<b>mine" not in text and "&lt;b&gt;mine" in text
    assert "settings tta" in text
    assert "Examples" not in text and "Against the labels" in text


@pytest.mark.filterwarnings("ignore:Look at the image", "ignore:Glyph")
def test_hostile_names_are_text(scored, tmp_path):
    names = ["<script>alert(1)</script>", r"$\frac{a$"]
    adata = scored.tables["table"]
    adata.var_names = adata.varm["nimbus_normalization"].index = names
    for image in scored.images:
        scored.set_channel_names(image, names)
    adata.obs["region"] = adata.obs["region"].cat.rename_categories({"b_cells": "<b>$_{$</b>"})
    text = ns.pl.report(adata, tmp_path / "run.html", scored).read_text("utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text and r"<th>$\frac{a$</th>" in text
    ns.pl.image(scored, names[1], "a_cells").figure.canvas.draw()
    ns.pl.score_shape(adata, channel=names[1]).figure.canvas.draw()


def assert_equal(one: AnnData, other: AnnData) -> None:
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    np.testing.assert_array_equal(one.X, other.X)
    for slot in ("layers", "obsm", "varm"):
        ours, theirs = getattr(one, slot), getattr(other, slot)
        assert set(ours) == set(theirs)
        for key in ours:
            np.testing.assert_array_equal(np.asarray(ours[key]), np.asarray(theirs[key]))
    assert repr(one.uns) == repr(other.uns)


@pytest.mark.filterwarnings("ignore:Look at the image")
def test_the_table_stays_as_it_was(scored, tmp_path):
    adata = scored.tables["table"]
    adata.var["vendor"] = ["one", "two"]
    before = adata.copy()
    ns.pl.report(adata, tmp_path / "run.html", scored)
    assert_equal(adata, before)
    for stored in (False, True):
        if stored:
            ns.tl.call_positive(adata)
        before = adata.copy()
        ns.pl.report(adata, tmp_path / "run.html", truth="gold")
        assert_equal(adata, before)


def row_of(text: str, channel: str) -> list[str]:
    """Cells of a channel's row in the first table."""
    (row,) = [line for line in text.split("<tr>") if f"<th>{channel}</th>" in line]
    return re.findall(r"<td[^>]*>(.*?)</td>", row)


def columns_of(text: str) -> list[str]:
    return re.findall(r"<th[^>]*>(.*?)</th>", text.split("<thead>")[1].split("</thead>")[0])[1:]


@pytest.mark.filterwarnings("ignore:Look at the image")
def test_stored_calls_are_shown(scored, tmp_path):
    adata = scored.tables["table"]
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert "The table holds no calls of this layer; cells with a score of at least 0.5" in text
    assert columns_of(text)[:2] == ["share positive", "share undecided (0.25-0.75)"]
    ns.tl.call_positive(adata, threshold={"DAPI": 0.05, "CD3": 0.95})
    adata.varm["positive"]["high"] = [0.125, 0.975]
    adata.var["positive_flag"] = pd.Categorical(["", "blurred & dim"])
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert "The calls are those stored in the table" in text
    assert columns_of(text)[:4] == ["threshold", "low", "high", "share positive"]
    # One of seven scored cells is at 1, all have a score of 0.1 for DAPI.
    assert row_of(text, "CD3")[:4] == ["0.950", "0.950", "0.975", "0.143"] and "blurred &amp; dim" in text
    assert row_of(text, "DAPI")[:4] == ["0.050", "0.050", "0.125", "1.000"]
    # The metrics are of these calls: of six positive cells one is called.
    text = ns.pl.report(adata, tmp_path / "run.html", truth="gold").read_text("utf-8")
    assert row_of(text, "CD3")[columns_of(text).index("recall")] == "0.167"
    assert "F1 of scores at the stored thresholds, and of integrated expression at Otsu" in text


@pytest.mark.filterwarnings("ignore:Look at the image")
def test_calls_of_another_layer_are_not_shown(scored, tmp_path):
    adata = scored.tables["table"]
    adata.layers["other"] = adata.layers["nimbus"] / 2
    ns.tl.call_positive(adata, layer="other")
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert "The table holds no calls of this layer" in text and "threshold" not in columns_of(text)


def test_undecided_scores_are_counted_with_the_bounds(scored, tmp_path):
    text = ns.pl.report(scored.tables["table"], tmp_path / "run.html").read_text("utf-8")
    # 0.25 and 0.5 of 0.25, 1, 0.5 and four of 0.9.
    assert row_of(text, "CD3")[columns_of(text).index("share undecided (0.25-0.75)")] == "0.286"


def test_it_says_which_model_and_whether_images_were_compared(scored, tmp_path):
    adata = scored.tables["table"]
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert "it is not known which images the model was trained on" in text
    adata.uns["nimbus"] |= {"model_description": "<i>for</i> tests", "ranges": {"dynamic": {"low": 0.1, "high": 0.9}}}
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert "The images were compared with those that the model was trained on" in text
    start = text.split("<h2>")[0]
    assert start.index("</h1>") < start.index("&lt;i&gt;for&lt;/i&gt; tests")
    assert text.count("for&lt;/i&gt; tests") == 1


def test_settings_are_text_that_wraps(scored, tmp_path):
    adata = scored.tables["table"]
    adata.uns["nimbus"] |= {"sha256": "0123456789abcdef" * 4, "wrote": np.array(["X", "obs/area"]), "pixel": 0.1 + 0.2}
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert '<th>wrote</th><td class="text">X, obs/area</td>' in text
    assert '<th>pixel</th><td class="text">0.3</td>' in text
    assert re.search(r"td\.text \{[^}]*overflow-wrap: anywhere", text)


def test_each_picture_has_a_caption(scored, tmp_path):
    text = ns.pl.report(scored.tables["table"], tmp_path / "run.html", scored, truth="gold").read_text("utf-8")
    figures = re.findall(r"<figure>.*?</figure>", text, re.S)
    assert len(figures) == text.count("<img") >= 8
    assert all(len(re.search("<figcaption>(.*?)</figcaption>", figure)[1]) > 20 for figure in figures)
    assert any("F1 of scores at 0.5, and of integrated expression at Otsu" in figure for figure in figures)


def test_the_lowest_histogram_of_each_column_has_numbers(tmp_path, monkeypatch):
    scores = np.random.default_rng(0).random((30, 8), np.float32)
    adata = AnnData(
        obs=pd.DataFrame(index=[f"c{i}" for i in range(30)]),
        var=pd.DataFrame(index=[f"CD{i}" for i in range(8)]),
        layers={"nimbus": scores, "integrated_expression": scores * 100},
    )
    figures = []
    monkeypatch.setattr(_sections, "picture", lambda figure, caption: figures.append(figure) or "")
    ns.pl.report(adata, tmp_path / "run.html")
    pooled, by_score, by_expression = figures
    assert [ax.get_xlabel() for ax in pooled.axes] == ["scores", "arcsinh(integrated expression / c)"]
    for figure, numbered in ((by_score, range(2, 8)), (by_expression, range(8))):
        shown = [i for i, ax in enumerate(figure.axes[:8]) if ax.xaxis.get_tick_params()["labelbottom"]]
        assert shown == list(numbered)


def test_expression_may_be_the_layer(scored, tmp_path, no_warning):
    path = ns.pl.report(
        scored.tables["table"], tmp_path / "run.html", scored, layer="integrated_expression", truth="gold"
    )
    text = path.read_text("utf-8")
    assert "holds other values than scores" in text and "about the same score" not in text
    assert "F1 of integrated expression at Otsu" in text and "share undecided" not in text


def test_the_table_may_call_its_columns_as_it_likes(scored, tmp_path):
    table = scored.tables["table"].copy()
    table.obs = table.obs.rename(columns={"region": "fov", "instance_id": "label"})
    table.uns["spatialdata_attrs"] = {"region": ["a_cells", "b_cells"], "region_key": "fov", "instance_key": "label"}
    scored.tables["table"] = table
    text = ns.pl.report(table, tmp_path / "run.html", scored).read_text("utf-8")
    assert "8 cells of 2 regions" in text and "The middle of region a_cells" in text


def test_examples_are_around_the_middle_of_labels_finer_than_the_image(make_sdata, annotate, tmp_path, monkeypatch):
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Identity, Scale

    labels = np.zeros((800, 800), np.int64)
    labels[700:720, 700:720] = 1
    half = Scale([0.5, 0.5], axes=("y", "x"))
    table = annotate([1], ["a_cells"], ("CD3",), nimbus=np.ones((1, 1), np.float32))
    table.obsm["spatial"] = np.array([[355.0, 355.0]])
    sdata = SpatialData(
        images={"a": Image2DModel.parse(np.ones((1, 400, 400)), c_coords=["CD3"], transformations={"a": Identity()})},
        labels={"a_cells": Labels2DModel.parse(labels, dims=("y", "x"), transformations={"a": half})},
        tables={"table": table},
    )
    pages = []
    monkeypatch.setattr(_evidence, "picture", lambda figure, caption: pages.append(figure) or "")
    ns.pl.report(table, tmp_path / "run.html", sdata)
    # All of the cell, in the crop of 300 pixels that ends at the image's edge.
    assert (np.asarray(pages[0].axes[2].images[0].get_array().filled(0)) == 1).sum() == 400


def test_it_says_where_scores_and_means_agree(scored, tmp_path):
    adata = scored.tables["table"]
    adata.layers["integrated_expression"] = adata.layers["nimbus"] * 100
    text = ns.pl.report(adata, tmp_path / "run.html", scored).read_text("utf-8")
    assert "No cell called negative for DAPI, CD3 has a relative mean above 0.5: nothing to show." in text
    assert "Score of at least 0.5 though the mean is low: dim cells, or mistakes. Relative means" in text


def test_channels_and_folder_are_checked(scored, tmp_path):
    with pytest.raises(KeyError, match=r"no column \['CD4'\]; there are \['DAPI', 'CD3'\]"):
        ns.pl.report(scored.tables["table"], tmp_path / "run.html", channels=["CD4"])
    with pytest.raises(FileNotFoundError, match=r"folder '.*nowhere' does not exist"):
        ns.pl.report(scored.tables["table"], tmp_path / "nowhere" / "run.html")
    assert not list(tmp_path.iterdir())


def test_without_labels_or_history_it_leaves_them_out(tmp_path):
    adata = AnnData(
        obs=pd.DataFrame(index=[f"c{i}" for i in range(30)]),
        var=pd.DataFrame(index=["CD3"]),
        layers={"nimbus": np.linspace(0, 1, 30, dtype=np.float32)[:, None]},
    )
    text = ns.pl.report(adata, tmp_path / "run.html").read_text("utf-8")
    assert "Against the labels" not in text and "Not recorded" in text and "30 cells of 1 region," in text


def test_a_layer_that_is_not_there_leaves_no_file(scored, tmp_path):
    with pytest.raises(KeyError, match="no layer 'other'"):
        ns.pl.report(scored.tables["table"], tmp_path / "run.html", layer="other")
    assert not list(tmp_path.iterdir())


def test_a_table_of_another_spatialdata_is_named(scored, tmp_path):
    with pytest.raises(ValueError, match=r"none of the tables in `sdata`, which has \['table'\]"):
        ns.pl.report(scored.tables["table"].copy(), tmp_path / "run.html", scored)
    assert not list(tmp_path.iterdir())
