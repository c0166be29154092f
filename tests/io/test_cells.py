"""Cells as flat files: which columns, with what names, and what a spreadsheet makes of them."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns

NAN = np.nan


@pytest.fixture
def adata():
    """Three cells, two of which have the same name; a channel and a type that look like formulas."""
    obs = pd.DataFrame({"cell_type": pd.Categorical(["=B", "T", "T"]), "y": [7, 8, 9]}, index=["a", "b", "b"])
    scores = np.array([[0.25, 1], [NAN, 0], [0.5, 0.75]], np.float32)
    layers = {"nimbus": scores, "positive": (scores >= 0.5).astype(np.float32)}
    var = pd.DataFrame(index=["=CD3", "CD8"])
    return AnnData(obs=obs, var=var, layers=layers, obsm={"spatial": np.array([[1.5, 2], [3, 4], [5, 6]])})


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_columns(adata, tmp_path, ending):
    if ending == "xlsx":
        pytest.importorskip("openpyxl")
    path = tmp_path / f"cells.{ending}"
    ns.io.write_cells(adata, path, layers=["nimbus", "positive"])
    found = (pd.read_csv if ending == "csv" else pd.read_excel)(path, index_col=0)
    names = ["cell_type", "y", "x", "y_spatial", "'=CD3", "CD8", "'=CD3_positive", "CD8_positive"]
    assert list(found) == names and found.index.to_list() == ["a", "b", "b"] and found.index.name == "cell"
    assert found["cell_type"].to_list() == ["'=B", "T", "T"]
    np.testing.assert_array_equal(found[names[1:4]], [[7, 1.5, 2], [8, 3, 4], [9, 5, 6]])
    np.testing.assert_array_equal(found[names[4:]], [[0.25, 1, 0, 1], [NAN, 0, 0, 0], [0.5, 0.75, 1, 1]])
    ns.io.write_cells(adata, path, layers="positive", channels="CD8", obs="cell_type", overwrite=True)
    assert list((pd.read_csv if ending == "csv" else pd.read_excel)(path, index_col=0)) == [names[0], "x", "y", "CD8"]


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("cells.tsv", {}, ValueError, "must end in .csv or .xlsx"),
        ("new.csv", {"channels": "CD4"}, KeyError, "No channel 'CD4'"),
        ("new.csv", {"layers": "gold"}, KeyError, "no layer 'gold'"),
        ("new.csv", {"obs": ["area"]}, KeyError, "no column 'area'"),
        ("there.csv", {}, FileExistsError, "pass `overwrite=True`"),
    ],
)
def test_what_is_refused_writes_nothing(adata, tmp_path, name, settings, error, message):
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(error, match=message):
        ns.io.write_cells(adata, tmp_path / name, **settings)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_sheet_is_too_small(tmp_path):
    pytest.importorskip("openpyxl")
    with pytest.raises(ValueError, match="too large"):
        ns.io.write_cells(AnnData(obs=pd.DataFrame(index=map(str, range(2**20)))), tmp_path / "cells.xlsx")
