"""The report: one file that needs nothing else, and says what is in the table."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns


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


def test_the_table_stays_as_it_was(scored, tmp_path):
    adata = scored.tables["table"]
    before = adata.copy()
    ns.pl.report(adata, tmp_path / "run.html", scored)
    assert set(adata.layers) == set(before.layers) and set(adata.varm) == set(before.varm)
    assert list(adata.var) == list(before.var) and adata.uns.keys() == before.uns.keys()


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
