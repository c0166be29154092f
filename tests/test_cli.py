"""The command line: what it writes, what it leaves alone, and one clear line where something is wrong."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import rmtree

import anndata as ad
import numpy as np
import pandas as pd
import psutil
import pytest
import tifffile
from command_line import call, done, raising, refused
from spatialdata import SpatialData, read_zarr

import nimbus_sd

CHANNELS = ["DAPI", "CD3", "CD20"]
NIMBUS_SD = Path(sys.executable).with_name("nimbus-sd")


def files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def tiffs(tissue, tmp_path_factory) -> Path:
    """An image of 0.5 um per pixel with its mask, and a mask that is too small."""
    folder = tmp_path_factory.mktemp("tiffs")
    image, labels = tissue((64, 72), 3)
    metadata = {"axes": "CYX", "Channel": {"Name": CHANNELS}}
    metadata |= {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    tifffile.imwrite(folder / "tumour.ome.tif", image, metadata=metadata)
    tifffile.imwrite(folder / "mask.tif", labels)
    tifffile.imwrite(folder / "small_mask.tif", labels[:50])
    return folder


@pytest.fixture(scope="module")
def converted(tiffs) -> Path:
    store = tiffs / "plain.zarr"
    out, messages = done("convert", tiffs / "tumour.ome.tif", tiffs / "mask.tif", "--out", store)
    n = len(np.unique(tifffile.imread(tiffs / "mask.tif"))) - 1
    found = f"tumour: 3 channels ({', '.join(CHANNELS)}), {n} cells, 0.5 um per pixel (OME-XML)."
    assert (out, messages) == (
        f"{found}\nWrote 1 image(s) to {store}. Score them with: nimbus-sd predict {store}\n",
        "",
    )
    return store


@pytest.fixture(scope="module")
def scored(converted, small) -> Path:
    store = Path(shutil.copytree(converted, converted.with_name("scored.zarr")))
    out, _ = done("predict", store, "--model", small, "--no-progress")
    n = len(np.unique(read_zarr(store)["tumour_labels"])) - 1
    assert out == f"Wrote {n} cells x 3 channels to table 'table' of {store}.\n"
    return store


@pytest.fixture
def store(converted, tmp_path) -> Path:
    """A store without a table that a test may change."""
    return Path(shutil.copytree(converted, tmp_path / "tissue.zarr"))


@pytest.fixture
def scored_store(scored, tmp_path) -> Path:
    """A store with a table that a test may change."""
    return Path(shutil.copytree(scored, tmp_path / "scored.zarr"))


def score(store: Path, model: Path, *options: object) -> tuple[object, ...]:
    """Arguments of ``predict``."""
    return "predict", store, "--model", model, "--no-progress", *options


def replace_table(sdata: SpatialData, name: str = "table") -> None:
    sdata.delete_element_from_disk("table")
    sdata.write_element(name)


def test_convert_keeps_pixels_names_and_pixel_size(converted, tiffs):
    sdata = read_zarr(converted)
    np.testing.assert_array_equal(sdata["tumour"], tifffile.imread(tiffs / "tumour.ome.tif"))
    np.testing.assert_array_equal(sdata["tumour_labels"], tifffile.imread(tiffs / "mask.tif"))
    assert list(sdata["tumour"].coords["c"].values) == CHANNELS
    assert sorted(sdata.coordinate_systems) == ["tumour", "tumour_um"]


def test_convert_takes_channel_names_and_which_mask_is_meant(tissue, tmp_path):
    image, labels = tissue((32, 40), 2)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", image, photometric="minisblack")
    for kind, mask in (("cell", labels), ("nucleus", labels * 0)):
        tifffile.imwrite(tmp_path / "masks" / f"a_{kind}.tif", mask)
    source = ["convert", tmp_path / "images", tmp_path / "masks", "--out", tmp_path / "x.zarr"]
    assert "mask_pattern" in refused(*source)
    done(*source, "--mask-pattern", "{fov}_cell.tif", "--channel", "CD3", "--channel", "CD8")
    sdata = read_zarr(tmp_path / "x.zarr")
    assert list(sdata["a"].coords["c"].values) == ["CD3", "CD8"]
    np.testing.assert_array_equal(sdata["a_labels"], labels)


def test_convert_takes_a_scene_a_plane_and_a_file_of_names(tissue, tmp_path):
    image, labels = tissue((32, 40), 2)
    with tifffile.TiffWriter(tmp_path / "x.ome.tif", ome=True) as writer:
        for name, array in (("scene 1", image[:, ::-1]), ("scene 2", image)):
            writer.write(array, photometric="minisblack", metadata={"axes": "CYX", "Name": name})
    np.save(tmp_path / "mask.npy", np.stack([labels * 0, labels]))
    (tmp_path / "markers.csv").write_text("cycle,marker_name\n1,CD3\n2,CD3\n")
    command = ["convert", tmp_path / "x.ome.tif", tmp_path / "mask.npy", "--out", tmp_path / "x.zarr"]
    assert "--series" in refused(*command)
    command += ["--series", "scene 2"]
    assert "--mask-plane" in refused(*command)
    command += ["--mask-plane", "1", "--channels", tmp_path / "markers.csv"]
    assert "--make-unique" in refused(*command)
    out, _ = done(*command, "--make-unique")
    assert "2 channels (CD3, CD3-1)" in out and "pixel size not known (--pixel-size)" in out
    sdata = read_zarr(tmp_path / "x.zarr")
    np.testing.assert_array_equal(sdata["x"], image)
    np.testing.assert_array_equal(sdata["x_labels"], labels)


@pytest.mark.parametrize(
    ("image", "mask", "out", "said"),
    [
        ("tumour.ome.tif", "small_mask.tif", "x.zarr", ("64 x 72", "50 x 72")),
        ("tumour.ome.tif", "mask.tif", "plain.zarr", ("exists already",)),
        ("tumour.ome.tif", "mask.tif", "new/store", ("must end in .zarr",)),
        ("nowhere.tif", "mask.tif", "x.zarr", ("nowhere.tif does not exist",)),
        ("notes.tif", "mask.tif", "x.zarr", ("notes.tif cannot be read",)),
    ],
)
def test_convert_refuses(tiffs, converted, image, mask, out, said):
    (tiffs / "notes.tif").write_text("no picture")
    before = files(tiffs)
    message = refused("convert", tiffs / image, tiffs / mask, "--out", tiffs / out)
    assert all(text in message for text in said), message
    assert files(tiffs) == before and not (tiffs / "new").exists()


def test_convert_leaves_nothing_behind_where_writing_fails(tiffs, tmp_path, monkeypatch):
    write, out = SpatialData.write, tmp_path / "new" / "x.zarr"

    def half(self, path, *args, **kwargs):
        write(self, path, *args, **kwargs)
        raise OSError("No space left on device")

    command = ("convert", tiffs / "tumour.ome.tif", tiffs / "mask.tif", "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(SpatialData, "write", half)
        assert "No space left" in refused(*command)
    assert not list(out.parent.iterdir())
    done(*command)
    assert [path.name for path in out.parent.iterdir()] == ["x.zarr"]


def test_predict_takes_all_options(store, small, tmp_path):
    factors = pd.DataFrame({"factor": [90.0, 120.0, 100.0]}, index=pd.Index(["CD20", "DAPI", "CD3"], name="channel"))
    factors.to_csv(tmp_path / "factors.csv")
    options = ["--image", "tumour", "--labels", "tumour_labels", "--channel", "CD20", "--channel", "DAPI", "--no-tta"]
    options += ["--normalization", tmp_path / "factors.csv", "--tile-size", 16, "--batch-size", 1]
    options += ["--precision", "float32", "--checkpoint", tmp_path / "checkpoint"]
    # Without a table, --overwrite has nothing to do.
    done(*score(store, small, *options, "--table", "cells", "--key", "mine", "--overwrite"))
    sdata = read_zarr(store)
    assert list(sdata.tables) == ["cells"]
    table, used = sdata["cells"], sdata["cells"].uns["mine"]
    assert (used["normalization"], used["precision"], used["views"]) == ("given", "float32", 1)
    assert table.varm["mine_normalization"]["factor"].to_dict() == {"CD20": 90, "DAPI": 120}
    # 32 x 36 model pixels in cores of 16.
    assert len(list((tmp_path / "checkpoint").glob("tile-*.npz"))) == 6
    settings = {"model": small, "normalization": factors, "tta": False, "pixel_size": 0.5, "progress": False}
    expected = nimbus_sd.predict(read_zarr(store), channels=["CD20", "DAPI"], **settings)
    assert list(table.var_names) == ["CD20", "DAPI"]
    np.testing.assert_allclose(table.layers["mine"], expected.layers["nimbus"], atol=1e-5)


@pytest.mark.parametrize(
    "content, said",
    [
        ("marker,factor\nCD3,2\n", "has the columns ['marker', 'factor']; it needs 'channel', too"),
        ("channel,factor\nCD3,\nDAPI,1\nCD20,1\n", "of channel 'CD3' is ''; give a number"),
        ("channel,factor\nCD3\n", "line 2 has more or fewer values"),
    ],
)
def test_factors_that_do_not_do(converted, small, tmp_path, content, said):
    (tmp_path / "factors.csv").write_text(content)
    assert said in refused(*score(converted, small, "--normalization", tmp_path / "factors.csv"))


def test_log_and_warnings_are_single_lines(converted, small, tmp_path):
    lines = done(*score(converted, small, "--pixel-size", "7", "--out", tmp_path / "x.csv"))[1].splitlines()
    assert all(line.startswith(("Warning: ", "Model ", "added ")) for line in lines), lines
    (size,) = (line for line in lines if "which is implausible" in line)
    assert size.startswith("Warning: With a pixel size of 7 um the median cell of 'tumour_labels' is")
    assert sum(line.startswith("Model small: from") for line in lines) == 1
    assert len(set(lines)) == len(lines)


def test_out_leaves_the_store_alone(scored_store, small, tmp_path):
    sdata = read_zarr(scored_store)
    sdata["table"].obs["CD3"] = "gated"
    replace_table(sdata)
    before, table = files(scored_store), sdata["table"]
    outs = [tmp_path / f"cells.{suffix}" for suffix in ("h5ad", "csv")]
    for out in outs:
        command = score(scored_store, small, "--out", out, "--key", "again")
        assert done(*command)[0].rstrip().endswith(f"to {out}.")
        # A file that is there is kept unless told otherwise.
        out.write_text("mine")
        assert "exists already; pass --overwrite" in refused(*command)
        assert out.read_text() == "mine"
        done(*command, "--overwrite")
    assert files(scored_store) == before
    written, cells = ad.read_h5ad(outs[0]), pd.read_csv(outs[1], index_col=0)
    np.testing.assert_array_equal(written.layers["again"], table.layers["nimbus"])
    assert list(written.obs_names) == list(cells.index) == list(table.obs_names)
    # A channel that is named as a column of obs gets the layer's name behind it.
    scores = ["DAPI", "CD3_again", "CD20"]
    assert list(cells.columns) == ["region", "instance_id", "area", "CD3", "x", "y", *scores]
    assert set(cells["CD3"]) == {"gated"}
    np.testing.assert_allclose(cells[scores], table.layers["nimbus"], rtol=1e-5)
    np.testing.assert_allclose(cells[["x", "y"]], table.obsm["spatial"])


def test_an_output_that_cannot_be_written_is_said_before_the_work(converted, small, tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    command = score(converted, small, "--overwrite", "--out")
    assert "folder.csv is a folder; name a file" in refused(*command, tmp_path / "folder.csv")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert f"{tmp_path} cannot be written to" in refused(*command, tmp_path / "cells.csv")
    assert f"'{tmp_path}' cannot be written to" in refused(*command[:-1], "--checkpoint", tmp_path / "new" / "one")
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "cells.xlsx needs the package openpyxl: `pip install" in refused(*command, tmp_path / "cells.xlsx")


def test_export_writes_what_was_asked_for(scored, tmp_path):
    out = tmp_path / "cells.csv"
    parts = ("--layer", "nimbus", "--layer", "integrated_expression", "--channel", "CD20", "--obs", "area")
    done("export", scored, "--out", out, *parts, "--threshold", "CD3=auto", "--threshold", "0.25")
    table, cells = read_zarr(scored)["table"], pd.read_csv(out, index_col=0)
    assert list(cells) == ["area", "x", "y", "CD20", "CD20_integrated_expression", "CD20_positive"]
    np.testing.assert_allclose(cells["CD20"], table.to_df("nimbus")["CD20"], rtol=1e-5)
    assert (cells["CD20_positive"] == (table.to_df("nimbus")["CD20"] >= 0.25)).all() and len(cells) == table.n_obs
    for options, said in (
        ((), "exists already"),
        (("--overwrite", "--threshold", "CD4=0.3"), "names 'CD4'"),
        (("--overwrite", "--threshold", "high"), "`threshold` is 'high'; it must be a number, 'auto'"),
        (("--overwrite", "--layer", "gold"), "no layer 'gold'"),
        (("--overwrite", "--table", "rna"), "no table 'rna'"),
    ):
        assert said in refused("export", scored, "--out", out, *options)


def test_an_existing_table_is_kept_or_with_overwrite_joined(scored_store, small):
    sdata = read_zarr(scored_store)
    table = sdata["table"]
    scores = table.layers["nimbus"]
    table.obs["cell_type"] = pd.Categorical(["T", *["B"] * (table.n_obs - 1)])
    table.layers["gold"] = np.ones(table.shape, np.float32)
    table.uns["notes"] = "seen by Ana"
    sdata.tables["table"] = table[::-1].copy()
    replace_table(sdata)
    before, command = files(scored_store), score(scored_store, small, "--key", "again")
    message = refused(*command)
    assert "has a table 'table' already" in message and "--overwrite" in message
    assert files(scored_store) == before
    done(*command, "--overwrite")
    back = read_zarr(scored_store)
    joined = back["table"]
    assert list(back.tables) == ["table"] and list(joined.obs_names) == list(table.obs_names[::-1])
    assert joined.obs["cell_type"].tolist() == table.obs["cell_type"][::-1].tolist()
    assert set(joined.layers) >= {"nimbus", "again", "gold", "integrated_expression"}
    np.testing.assert_array_equal(joined.layers["nimbus"], scores[::-1])
    np.testing.assert_array_equal(joined.layers["again"], joined.layers["nimbus"])
    assert (joined.layers["gold"] == 1).all() and joined.uns["notes"] == "seen by Ana"
    now, others = files(scored_store), [name for name in before if name.startswith(("images", "labels"))]
    assert [now[name] for name in others] == [before[name] for name in others]


@pytest.mark.parametrize("step", ["put_folder", "sync"])
def test_the_same_command_goes_through_after_a_kill(store, small, monkeypatch, step):
    """Also where the table was in its place already, which is no reason to ask for --overwrite."""
    from nimbus_sd.io import tables

    command = score(store, small)
    with monkeypatch.context() as patch:
        patch.setattr(tables, step, raising(SystemExit(137)))
        patch.setattr(tables.shutil, "rmtree", lambda path, *_, **__: path.name == "new.zarr" and rmtree(path))
        assert call(*command)[0] == 137
    assert (store / ".nimbus-sd").exists()
    done(*command)
    assert list(read_zarr(store).tables) == ["table"] and not (store / ".nimbus-sd").exists()
    assert "--overwrite" in refused(*command)


def test_a_store_that_cannot_be_written_is_said_before_the_work(converted, small, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: (path, mode) != (converted, os.W_OK))
    message = refused(*score(converted, small))
    assert f"{converted} cannot be written to" in message and "--out" in message
    done(*score(converted, small, "--out", tmp_path / "x.csv"))


def test_a_checkpoint_goes_on_after_an_error_that_tells_of_it(store, small, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    # The device on which every write finds no space.
    (folder / "tile-0000000.npz.unfinished").symlink_to("/dev/full")
    command = score(store, small, "--checkpoint", folder)
    code, _, messages = call(*command)
    assert code == 2 and "No space left on device" in messages
    assert messages.splitlines()[-1].endswith(f"0 of 1 tiles are kept in '{folder}': the same call goes on from there.")
    done(*command)
    assert (folder / "tile-0000000.npz").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the command is held at a pipe")
def test_ctrl_c_stops_within_seconds_and_says_how_to_go_on(store, small, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    # Whoever opens it waits for a reader.
    os.mkfifo(folder / "tile-0000000.npz.unfinished")
    command = [NIMBUS_SD, "predict", store, "--model", small, "--checkpoint", folder]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        while not (folder / "inputs.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        used, before = psutil.Process(process.pid).cpu_times(), None
        while used[:2] != before:
            before = used[:2]
            time.sleep(1)
            used = psutil.Process(process.pid).cpu_times()
        process.send_signal(signal.SIGINT)
        try:
            _, messages = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert messages.splitlines()[-1].startswith("Stopped. 0 of 1 tiles are kept in") and "Traceback" not in messages


@pytest.mark.parametrize(
    "options, said",
    [
        (["--out", "x.txt"], "must end in .h5ad or .csv or .xlsx"),
        (["--out", "no/such/folder/x.csv"], "no folder no/such/folder"),
        (["--image", "tumor"], "Did you mean 'tumour'"),
        (["--model", "compat"], "model='compat' is not known"),
        (["--model", "nowhere.pt"], "nowhere.pt does not exist"),
        (["--table", "my table"], "must consist of letters"),
        (["--normalization", "nowhere.csv"], "nowhere.csv"),
    ],
    ids=lambda value: value[0] + " " + value[1] if isinstance(value, list) else "",
)
def test_bad_input_is_named_before_any_work(converted, options, said):
    before = files(converted)
    assert said in refused("predict", converted, "--no-progress", *options)
    assert files(converted) == before


@pytest.mark.parametrize("command", ["predict", "report"])
def test_what_is_no_store_is_one_line(converted, tiffs, tmp_path, monkeypatch, command):
    out = () if command == "predict" else ("--out", tmp_path / "x.html")
    (tmp_path / "empty.zarr").mkdir()
    assert "There is no " in refused(command, tmp_path / "nowhere.zarr", *out)
    for path in (tiffs / "mask.tif", tmp_path / "empty.zarr"):
        assert f"{path.name} cannot be read as a SpatialData store" in refused(command, path, *out)
    monkeypatch.setattr("spatialdata.read_zarr", raising(ValueError("first\n  second\n")))
    assert refused(command, converted, *out).endswith("store: first second")


EVIL = "\x1b]0;mine\x07\x9b31m\u202e"


def test_names_cannot_steer_the_terminal(store, tmp_path, small):
    for command in (("predict", tmp_path / EVIL), ("predict", store, "--model", tmp_path / f"{EVIL}.pt")):
        assert r"\x1b]0;mine\x07\x9b31m\u202e" in refused(*command, "--no-progress")
    sdata = read_zarr(store)
    sdata.set_channel_names("tumour", [EVIL, "=1+1", "CD20"], write=True)
    out = tmp_path / f"{EVIL}.csv"
    text = "".join(done("predict", store, "--model", small, "--out", out, "--no-progress"))
    assert not set(EVIL) & set("\x1b\x07\x9b\u202e") & set(text) and r"\x1b" in text
    assert out.read_text("utf-8").splitlines()[0].endswith(",'=1+1,CD20")


@pytest.fixture(scope="module")
def with_labels(scored) -> Path:
    """A store with scores under another name, and as labels which cells are brighter than the median."""
    store = Path(shutil.copytree(scored, scored.with_name("labelled.zarr")))
    sdata = read_zarr(store)
    table = sdata["table"]
    table.layers["mine"], mean = table.layers.pop("nimbus"), table.layers["integrated_expression"]
    table.uns["mine"] = table.uns.pop("nimbus")
    table.layers["gold"] = (mean > np.median(mean, axis=0)).astype(np.float32)
    sdata["cells"] = table
    replace_table(sdata, "cells")
    return store


def test_report_writes_one_file_about_the_table(with_labels, tmp_path):
    out = tmp_path / "run.html"
    command = ("report", with_labels, "--out", out, "--layer", "mine", "--table-key", "cells")
    assert done(*command)[0] == f"Wrote {out}.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.html"]
    text, n = out.read_text("utf-8"), read_zarr(with_labels)["cells"].n_obs
    assert f"{n} cells of 1 region" in text and "<th>CD3</th>" in text
    # With the images, so with crops; and with the labels that the table has.
    assert "Examples" in text and "Against the labels" in text
    out.write_text("mine")
    assert "exists already; pass --overwrite" in refused(*command)
    assert out.read_text() == "mine"
    done(*command, "--overwrite")
    assert out.read_text("utf-8").startswith("<!")


@pytest.mark.parametrize(
    "options, said",
    [
        ([], "has no table 'table'; there is: 'cells'. Pass its name with --table"),
        (["--table", "cells"], "'nimbus'"),
        (["--out", "run.pdf"], "must end in .html"),
        (["--out", "no/such/run.html"], "no folder no/such"),
    ],
)
def test_report_refuses(with_labels, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused("report", with_labels, "--out", "run.html", *options)
    assert not list(tmp_path.iterdir())


def test_demo_writes_store_and_picture_in_place_of_older_ones(tmp_path):
    (tmp_path / "example.png").write_text("an older picture")
    SpatialData().write(tmp_path / "example.zarr")
    out, messages = done("demo", "--out", tmp_path, "--no-progress")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example.png", "example.zarr"]
    assert (tmp_path / "example.png").read_bytes().startswith(b"\x89PNG")
    table, lines = read_zarr(tmp_path / "example.zarr")["table"], out.splitlines()
    assert {"gold", "nimbus", "integrated_expression"} <= set(table.layers)
    assert f"Wrote {tmp_path / 'example.zarr'}" in out and str(tmp_path / "example.png") in out
    assert sum(line.endswith(" s]") for line in lines) == 3
    rows = {line.split()[0]: line.split()[1:] for line in lines if line[:1].isalnum() and len(line.split()) == 5}
    baselines = [[*map(float, rows.pop(f"{scale}_expression"))] for scale in ("integrated", "arcsinh")]
    (rules,) = [line.split() for line in lines if "oracle" in line and "mixture" in line]
    assert all(row[rules.index("oracle")] == max(row) > 0.5 for row in baselines)
    assert {*table.var_names, "mean"} == set(rows) and float(rows["CD20"][3]) > 0.8
    # What a model was trained on, said once.
    assert messages.count("trained on real and simulated tissue") == 1


def test_demo_refuses_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.docx").write_text("the only copy")
    message = refused("demo", "--out", tmp_path)
    assert "thesis.docx" in message and "--out" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]
    refused("demo", "--out", tmp_path / "thesis.docx")


def test_help_and_version():
    commands = ("demo", "predict", "convert", "report", "benchmark")
    assert all(f" {command} " in done("--help")[0] for command in commands)
    assert all("--out" in done(command, "--help")[0] for command in commands)
    assert done("--version")[0].strip() == nimbus_sd.__version__


def test_the_installed_command(tmp_path):
    """As a user runs it: the exit code and one line on stderr reach the shell."""
    command = [NIMBUS_SD, "predict", tmp_path / "nowhere.zarr"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"Error: There is no {tmp_path / 'nowhere.zarr'}.\n"
