"""``nimbus-sd report``: the file it writes from a store, and one clear line where something is wrong."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from spatialdata import read_zarr
from typer.testing import CliRunner

import nimbus_sd as ns
from nimbus_sd.cli import app


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(*arguments: object) -> str:
    code, out, messages = call(*arguments)
    assert (code, out) == (2, ""), messages
    assert messages.count("\n") == 1 and messages.startswith("Error: "), messages
    return messages


@pytest.fixture(scope="module")
def store(tissue, make_sdata, small, tmp_path_factory) -> Path:
    """A store with scores of two channels, and as labels which cells are brighter than the median."""
    path = tmp_path_factory.mktemp("report") / "tissue.zarr"
    sdata = make_sdata(*tissue((90, 80), 2, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = ns.predict(sdata, model=small, table_key="cells", key_added="mine", pixel_size=0.5, progress=False)
        mean = adata.layers["integrated_expression"]
        adata.layers["gold"] = (mean > np.median(mean, axis=0)).astype(np.float32)
        sdata.write(path)
    return path


def test_it_writes_one_file_about_the_table(store, tmp_path):
    out = tmp_path / "run.html"
    code, said, messages = call(store, "--out", out, "--layer", "mine", "--table-key", "cells")
    assert code == 0, messages
    assert said == f"Wrote {out}.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.html"]
    text = out.read_text("utf-8")
    n = read_zarr(store)["cells"].n_obs
    assert f"{n} cells of 1 region" in text and "<th>CD3</th>" in text
    # With the images, so with crops; and with the labels that the table has.
    assert "Examples" in text and "Against the labels" in text


def test_a_file_that_is_there_is_kept_unless_told_otherwise(store, tmp_path):
    out = tmp_path / "run.html"
    out.write_text("mine")
    options = [store, "--out", out, "--layer", "mine", "--table", "cells"]
    assert "exists already; pass --overwrite" in refused(*options)
    assert out.read_text() == "mine"
    assert call(*options, "--overwrite")[0] == 0
    assert out.read_text("utf-8").startswith("<!")


@pytest.mark.parametrize(
    "options, said",
    [
        ([], "has no table 'table'; there is: 'cells'. Pass its name with --table-key"),
        (["--table-key", "cell"], "has no table 'cell'; there is: 'cells'"),
        (["--table-key", "cells"], "'nimbus'"),
        (["--out", "run.pdf"], "must end in .html"),
        (["--out", "no/such/run.html"], "no folder no/such"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(store, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(store, "--out", "run.html", *options)
    assert not list(tmp_path.iterdir())


def test_something_else_than_a_store(tmp_path):
    out = tmp_path / "run.html"
    assert "There is no " in refused(tmp_path / "nowhere.zarr", "--out", out)
    (tmp_path / "empty.zarr").mkdir()
    assert "cannot be read as a SpatialData store" in refused(tmp_path / "empty.zarr", "--out", out)
    assert not out.exists()
