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
from spatialdata import SpatialData, read_zarr
from typer.testing import CliRunner

import nimbus_sd
from nimbus_sd.cli import app

CHANNELS = ["DAPI", "CD3", "CD20"]
COMMANDS = ("demo", "predict", "convert", "report", "benchmark")


def call(*arguments: object) -> tuple[int, str, str]:
    """Run a command; its exit code, output and messages."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(*arguments: object) -> str:
    """Run a command that must end with 2 and one line; that line."""
    code, out, messages = call(*arguments)
    assert (code, out) == (2, ""), messages
    assert messages.count("\n") == 1 and messages.startswith("Error: "), messages
    return messages


def files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def tiffs(tissue, tmp_path_factory) -> Path:
    """An image of 0.5 um per pixel with its mask, and a mask that is too small."""
    folder = tmp_path_factory.mktemp("tiffs")
    image, labels = tissue((64, 72), 3)
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": CHANNELS},
        **{"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"},
    }
    tifffile.imwrite(folder / "tumour.ome.tif", image, metadata=metadata)
    tifffile.imwrite(folder / "mask.tif", labels)
    tifffile.imwrite(folder / "small_mask.tif", labels[:50])
    return folder


@pytest.fixture(scope="module")
def converted(tiffs) -> Path:
    code, out, messages = call("convert", tiffs / "tumour.ome.tif", tiffs / "mask.tif", "--out", tiffs / "plain.zarr")
    assert (code, messages) == (0, "")
    assert out == f"Wrote 1 image(s) and 1 mask(s) to {tiffs / 'plain.zarr'}.\n"
    return tiffs / "plain.zarr"


@pytest.fixture(scope="module")
def scored(converted, small) -> Path:
    store = converted.with_name("scored.zarr")
    shutil.copytree(converted, store)
    code, out, messages = call("predict", store, "--model", small, "--no-progress")
    assert code == 0, messages
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
    code, _, messages = call(*source, "--mask-pattern", "{fov}_cell.tif", "--channel", "CD3", "--channel", "CD8")
    assert code == 0, messages
    sdata = read_zarr(tmp_path / "x.zarr")
    assert list(sdata["a"].coords["c"].values) == ["CD3", "CD8"]
    np.testing.assert_array_equal(sdata["a_labels"], labels)


def test_predict_writes_the_table(scored):
    table = read_zarr(scored)["table"]
    assert list(table.var_names) == CHANNELS
    scores = table.layers["nimbus"]
    assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1 and scores.std() > 0
    assert table.uns["nimbus"]["model"] == "small"


def test_predict_takes_names_channels_and_keys(store, small):
    names = ["--image", "tumour", "--labels", "tumour_labels", "--channel", "CD20", "--channel", "DAPI"]
    code, _, messages = call(
        "predict", store, *names, "--model", small, "--table", "cells", "--key", "mine", "--no-tta", "--no-progress"
    )
    assert code == 0, messages
    sdata = read_zarr(store)
    assert list(sdata.tables) == ["cells"]
    assert list(sdata["cells"].var_names) == ["CD20", "DAPI"]
    assert sdata["cells"].uns["mine"]["views"] == 1
    assert "mine" in sdata["cells"].layers


def test_predict_takes_what_messages_tell_of(store, small, tmp_path):
    factors = pd.DataFrame({"factor": [90.0, 120.0, 100.0]}, index=pd.Index(["CD20", "DAPI", "CD3"], name="channel"))
    factors.to_csv(tmp_path / "factors.csv")
    options = ["--normalization", tmp_path / "factors.csv", "--tile-size", 16, "--batch-size", 1]
    checkpoint = tmp_path / "checkpoint"
    code, _, messages = call(
        "predict", store, "--model", small, *options, "--precision", "float32", "--checkpoint", checkpoint, "--no-tta"
    )
    assert code == 0, messages
    table = read_zarr(store)["table"]
    assert table.uns["nimbus"]["normalization"] == "given" and table.uns["nimbus"]["precision"] == "float32"
    assert table.varm["nimbus_normalization"]["factor"].to_dict() == factors["factor"].to_dict()
    # 32 x 36 model pixels in cores of 16.
    assert len(list(checkpoint.glob("tile-*.npz"))) == 6
    expected = nimbus_sd.predict(
        read_zarr(store), model=small, normalization=factors, tta=False, pixel_size=0.5, progress=False
    )
    np.testing.assert_allclose(table.layers["nimbus"], expected.layers["nimbus"], atol=1e-5)


@pytest.mark.parametrize(
    "content, said",
    [
        ("marker,factor\nCD3,2\n", "has the columns ['marker', 'factor']; it needs 'channel', too"),
        ("channel,factor\nCD3,2\nCD3,3\nDAPI,1\nCD20,1\n", "names channel(s) 'CD3' more than once"),
        ("channel,factor\nCD3,\nDAPI,1\nCD20,1\n", "of channel 'CD3' is ''; give a number"),
        ("channel,factor\nCD3,1\n", "no factor for channel(s) 'DAPI', 'CD20'"),
        ("channel,factor\nCD3\n", "line 2 has more or fewer values"),
    ],
)
def test_factors_that_do_not_do(store, small, tmp_path, content, said):
    (tmp_path / "factors.csv").write_text(content)
    command = ("predict", store, "--model", small, "--normalization", tmp_path / "factors.csv", "--no-progress")
    code, _, messages = call(*command)
    assert code == 2 and said in messages.splitlines()[-1]


def test_log_and_warnings_are_single_lines(store, small, tmp_path):
    code, _, messages = call(
        "predict", store, "--model", small, "--pixel-size", "7", "--out", tmp_path / "x.csv", "--no-progress"
    )
    assert code == 0
    lines = messages.splitlines()
    assert all(line.startswith(("Warning: ", "Model ", "added ")) for line in lines), messages
    (size,) = (line for line in lines if "which is implausible" in line)
    assert size.startswith("Warning: With a pixel size of 7 um the median cell of 'tumour_labels' is")
    (model,) = (line for line in lines if line.startswith("Model "))
    assert "Model small: from" in model
    # Said once, however often a command is run.
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("suffix", ["h5ad", "csv"])
def test_out_leaves_the_store_alone(scored_store, small, tmp_path, suffix):
    before = files(scored_store)
    out = tmp_path / f"cells.{suffix}"
    code, text, messages = call(
        "predict", scored_store, "--model", small, "--out", out, "--no-progress", "--key", "again"
    )
    assert code == 0, messages
    assert files(scored_store) == before
    assert text.rstrip().endswith(f"to {out}.")
    table = read_zarr(scored_store)["table"]
    if suffix == "h5ad":
        found = ad.read_h5ad(out)
        np.testing.assert_array_equal(found.layers["again"], table.layers["nimbus"])
        assert list(found.obs_names) == list(table.obs_names)
    else:
        found = pd.read_csv(out, index_col=0)
        assert list(found.columns) == ["region", "instance_id", "area", *CHANNELS]
        np.testing.assert_allclose(found[CHANNELS], table.layers["nimbus"], rtol=1e-5)
        assert found.index.tolist() == table.obs_names.tolist()


def test_a_csv_may_have_channels_that_are_columns_of_obs(scored_store, small, tmp_path):
    sdata = read_zarr(scored_store)
    sdata["table"].obs["CD3"] = "gated"
    rewrite(sdata, "table")
    code, _, messages = call("predict", scored_store, "--model", small, "--out", tmp_path / "x.csv", "--no-progress")
    assert code == 0, messages
    found = pd.read_csv(tmp_path / "x.csv", index_col=0)
    assert set(found["CD3"]) == {"gated"} and found["CD3_nimbus"].between(0, 1).all()


def rewrite(sdata: SpatialData, name: str) -> None:
    sdata.delete_element_from_disk(name)
    sdata.write_element(name)


def test_an_existing_table_is_kept_unless_told_otherwise(scored_store, small):
    before = files(scored_store)
    message = refused("predict", scored_store, "--model", small, "--no-progress")
    assert "has a table 'table' already" in message and "--overwrite" in message
    assert files(scored_store) == before


def test_overwrite_joins_and_keeps_the_rest(scored_store, small):
    sdata = read_zarr(scored_store)
    table = sdata["table"]
    table.obs["cell_type"] = pd.Categorical(["T", *["B"] * (table.n_obs - 1)])
    table.layers["gold"] = np.ones(table.shape, np.float32)
    table.uns["notes"] = "seen by Ana"
    sdata.tables["table"] = table[::-1].copy()
    rewrite(sdata, "table")
    others = {name: digest for name, digest in files(scored_store).items() if name.startswith(("images", "labels"))}

    code, _, messages = call(
        "predict", scored_store, "--model", small, "--key", "again", "--overwrite", "--no-progress"
    )
    assert code == 0, messages
    back = read_zarr(scored_store)
    assert list(back.tables) == ["table"]
    found = back["table"]
    assert list(found.obs_names) == list(table.obs_names[::-1])
    assert found.obs["cell_type"].tolist() == table.obs["cell_type"][::-1].tolist()
    assert set(found.layers) >= {"nimbus", "again", "gold", "integrated_expression"}
    np.testing.assert_array_equal(found.layers["nimbus"], table.layers["nimbus"][::-1])
    np.testing.assert_array_equal(found.layers["again"], found.layers["nimbus"])
    assert (found.layers["gold"] == 1).all() and found.uns["notes"] == "seen by Ana"
    now = files(scored_store)
    assert {name: now[name] for name in others} == others


def test_overwrite_without_a_table_writes_one(store, small):
    code, _, messages = call("predict", store, "--model", small, "--overwrite", "--no-progress")
    assert code == 0, messages
    assert list(read_zarr(store).tables) == ["table"]


def test_no_table_is_lost_where_writing_fails(scored_store, small, monkeypatch):
    before = files(scored_store)
    monkeypatch.setattr("nimbus_sd.io.tables.put_folder", lambda *_: (_ for _ in ()).throw(OSError("No space left")))
    command = ("predict", scored_store, "--model", small, "--key", "again", "--overwrite", "--no-progress")
    code, _, messages = call(*command)
    assert code == 2 and messages.endswith("Error: No space left\n")
    assert files(scored_store) == before
    monkeypatch.undo()
    assert call(*command)[0] == 0 and {"nimbus", "again"} <= set(read_zarr(scored_store)["table"].layers)


@pytest.mark.parametrize("step", ["put_folder", "_consolidate"])
def test_the_same_command_goes_through_after_a_kill(store, small, monkeypatch, step):
    """Also where the table was in its place already, which is no reason to ask for --overwrite."""
    from nimbus_sd.io import tables

    with monkeypatch.context() as patch:
        patch.setattr(tables, step, lambda *_: (_ for _ in ()).throw(SystemExit(137)))
        patch.setattr(tables.shutil, "rmtree", lambda path, *_, **__: path.name == "new.zarr" and rmtree(path))
        assert call("predict", store, "--model", small, "--no-progress")[0] == 137
    assert (store / ".nimbus-sd").exists()
    assert call("predict", store, "--model", small, "--no-progress")[0] == 0
    assert list(read_zarr(store).tables) == ["table"] and not (store / ".nimbus-sd").exists()
    assert "--overwrite" in refused("predict", store, "--model", small, "--no-progress")


def test_a_store_that_cannot_be_written_is_said_before_the_work(store, small, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: (path, mode) != (store, os.W_OK))
    message = refused("predict", store, "--model", small, "--no-progress")
    assert f"{store} cannot be written to" in message and "--out" in message
    assert call("predict", store, "--model", small, "--no-progress", "--out", tmp_path / "x.csv")[0] == 0


def test_a_checkpoint_goes_on_after_an_error_that_tells_of_it(store, small, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    unfinished = folder / "tile-0000000.npz.unfinished"
    # The device on which every write finds no space.
    unfinished.symlink_to("/dev/full")
    command = ("predict", store, "--model", small, "--no-progress", "--checkpoint", folder)
    code, _, messages = call(*command)
    assert code == 2 and "No space left on device" in messages
    assert messages.splitlines()[-1].endswith(f"0 of 1 tiles are kept in '{folder}': the same call goes on from there.")
    assert call(*command)[0] == 0
    assert (folder / "tile-0000000.npz").exists()


def _wait_until_idle(pid: int) -> None:
    process, before = psutil.Process(pid), None
    while (used := process.cpu_times()[:2]) != before:
        before = used
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the command is held at a pipe")
def test_ctrl_c_stops_within_seconds_and_says_how_to_go_on(store, small, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    # Whoever opens it waits for a reader.
    os.mkfifo(folder / "tile-0000000.npz.unfinished")
    command = [Path(sys.executable).with_name("nimbus-sd"), "predict", store, "--model", small, "--checkpoint", folder]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        while not (folder / "inputs.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        _wait_until_idle(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            _, messages = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert messages.splitlines()[-1].startswith("Stopped. 0 of 1 tiles are kept in") and "Traceback" not in messages


def test_missing_store(tmp_path):
    assert "nowhere.zarr" in refused("predict", tmp_path / "nowhere.zarr")


def test_something_else_than_a_store(tiffs, tmp_path):
    assert "mask.tif cannot be read as a SpatialData store" in refused("predict", tiffs / "mask.tif")
    (tmp_path / "empty.zarr").mkdir()
    assert "cannot be read as a SpatialData store" in refused("predict", tmp_path / "empty.zarr")


def test_unknown_channel_names_the_nearest(store, small):
    before = files(store)
    message = refused("predict", store, "--model", small, "--channel", "CD02", "--no-progress")
    assert "No channel 'CD02'" in message and "Did you mean 'CD20'" in message
    assert files(store) == before


@pytest.mark.parametrize(
    "options, said",
    [
        (["--out", "x.xlsx"], "must end in .h5ad or .csv"),
        (["--out", "no/such/folder/x.csv"], "no folder no/such/folder"),
        (["--image", "tumor"], "Did you mean 'tumour'"),
        (["--labels", "cells"], "No labels element 'cells'; there is: 'tumour_labels'"),
        (["--pixel-size", "-1"], "`pixel_size` is -1"),
        (["--model", "compat"], "model='compat' is not known"),
        (["--model", "nowhere.pt"], "nowhere.pt does not exist"),
        (["--table", "my table"], "must consist of letters"),
        (["--key", "gold"], "kept for something else"),
        (["--normalization", "nowhere.csv"], "nowhere.csv"),
    ],
    ids=lambda value: value[0] + " " + value[1] if isinstance(value, list) else "",
)
def test_bad_input_is_named_before_any_work(store, options, said):
    before = files(store)
    assert said in refused("predict", store, "--no-progress", *options)
    assert files(store) == before


@pytest.mark.parametrize("option, said", [("--tile-size", "`tile_size` is 0"), ("--batch-size", "batch_size=0")])
def test_sizes_of_zero_are_refused_after_the_model_was_named(store, small, option, said):
    before = files(store)
    code, _, messages = call("predict", store, "--model", small, "--no-progress", option, 0)
    assert code == 2 and messages.splitlines()[-1].startswith("Error: ") and said in messages.splitlines()[-1]
    assert files(store) == before


def test_an_error_of_many_lines_is_one_line(store, monkeypatch):
    monkeypatch.setattr("spatialdata.read_zarr", lambda path: (_ for _ in ()).throw(ValueError("first\n  second\n")))
    assert refused("predict", store).endswith("store: first second\n")


EVIL = "\x1b]0;mine\x07\x9b31m\u202e"


def test_names_cannot_steer_the_terminal(store, tmp_path, small, monkeypatch):
    for command in (("predict", tmp_path / EVIL), ("predict", store, "--model", tmp_path / f"{EVIL}.pt")):
        assert r"\x1b]0;mine\x07\x9b31m\u202e" in refused(*command, "--no-progress")
    sdata = read_zarr(store)
    sdata.set_channel_names("tumour", [EVIL, "=1+1", "CD20"], write=True)
    out = tmp_path / f"{EVIL}.csv"
    code, text, messages = call("predict", store, "--model", small, "--out", out, "--no-progress")
    assert code == 0, messages
    assert not set(EVIL) & set("\x1b\x07\x9b\u202e") & set(text + messages) and r"\x1b" in text
    assert out.read_text("utf-8").splitlines()[0].endswith(",'=1+1,CD20")


def test_a_mask_of_another_shape(tiffs, tmp_path):
    message = refused("convert", tiffs / "tumour.ome.tif", tiffs / "small_mask.tif", "--out", tmp_path / "x.zarr")
    assert "64 x 72" in message and "50 x 72" in message
    assert not (tmp_path / "x.zarr").exists()


def test_convert_does_not_overwrite(tiffs, converted):
    before = files(converted)
    message = refused("convert", tiffs / "tumour.ome.tif", tiffs / "mask.tif", "--out", converted)
    assert "exists already" in message
    assert files(converted) == before


def test_convert_writes_stores_that_end_in_zarr(tiffs, tmp_path):
    message = refused("convert", tiffs / "tumour.ome.tif", tiffs / "mask.tif", "--out", tmp_path / "new" / "store")
    assert "must end in .zarr" in message and not (tmp_path / "new").exists()


def test_convert_says_which_file_is_missing_or_unreadable(tiffs, tmp_path):
    out = tmp_path / "x.zarr"
    assert "nowhere.tif does not exist" in refused("convert", tiffs / "nowhere.tif", tiffs / "mask.tif", "--out", out)
    (tmp_path / "notes.tif").write_text("no picture")
    assert "notes.tif cannot be read" in refused("convert", tmp_path / "notes.tif", tiffs / "mask.tif", "--out", out)
    assert not out.exists()


def test_convert_leaves_nothing_behind_where_writing_fails(tiffs, tmp_path, monkeypatch):
    write = SpatialData.write

    def half(self, path, *args, **kwargs):
        write(self, path, *args, **kwargs)
        raise OSError("No space left on device")

    monkeypatch.setattr(SpatialData, "write", half)
    out = tmp_path / "new" / "x.zarr"
    assert "No space left" in refused("convert", tiffs / "tumour.ome.tif", tiffs / "mask.tif", "--out", out)
    assert not list(out.parent.iterdir())
    monkeypatch.undo()
    assert call("convert", tiffs / "tumour.ome.tif", tiffs / "mask.tif", "--out", out)[0] == 0
    assert [path.name for path in out.parent.iterdir()] == ["x.zarr"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> tuple[Path, str, str]:
    """A demo in a folder that holds an older one; its folder, output and messages."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "example.png").write_text("an older picture")
    SpatialData().write(folder / "example.zarr")
    code, out, messages = call("demo", "--out", folder, "--no-progress")
    assert code == 0, messages
    return folder, out, messages


def test_demo_writes_store_and_picture_in_place_of_older_ones(shown):
    folder, out, _ = shown
    assert sorted(path.name for path in folder.iterdir()) == ["example.png", "example.zarr"]
    assert (folder / "example.png").read_bytes().startswith(b"\x89PNG")
    sdata = read_zarr(folder / "example.zarr")
    assert sorted(sdata.images) == ["fov1", "fov2"]
    table = sdata["table"]
    assert {"gold", "nimbus", "integrated_expression"} <= set(table.layers)
    assert np.isfinite(table.layers["nimbus"]).all()
    assert f"Wrote {folder / 'example.zarr'}" in out and str(folder / "example.png") in out


def test_demo_prints_a_table_and_how_long_steps_took(shown):
    _, out, messages = shown
    lines = out.splitlines()
    assert sum(line.endswith(" s]") for line in lines) == 3
    header = next(line for line in lines if "share positive" in line)
    assert "F1 of scores at 0.5" in header and "F1 of mean intensity, Otsu" in header
    rows = {line.split()[0]: line.split()[1:] for line in lines if line[:1].isalnum() and len(line.split()) == 5}
    baselines = {name: [float(one) for one in rows.pop(name)] for name in list(rows) if name.endswith("_expression")}
    assert set(baselines) == {"integrated_expression", "arcsinh_expression"}
    (rules,) = [line.split() for line in lines if "oracle" in line and "mixture" in line]
    assert all(row[rules.index("oracle")] == max(row) > 0.5 for row in baselines.values())
    assert {"DAPI", "CD45", "CD3", "CD8", "CD20", "CD68", "PanCK", "Ki67", "mean"} == set(rows)
    assert all(row[0].isdigit() for row in rows.values())
    assert float(rows["CD20"][3]) > 0.8
    # What a model was trained on, said once.
    assert messages.count("trained on real and simulated tissue") == 1


def test_demo_refuses_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.docx").write_text("the only copy")
    message = refused("demo", "--out", tmp_path)
    assert "thesis.docx" in message and "--out" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]
    refused("demo", "--out", tmp_path / "thesis.docx")


def test_help_names_the_commands():
    code, out, _ = call("--help")
    assert code == 0 and all(f" {command} " in out for command in COMMANDS)
    for command in COMMANDS:
        code, out, _ = call(command, "--help")
        assert code == 0 and "--out" in out


def test_the_installed_command(tmp_path):
    """As a user runs it: the exit code and one line on stderr reach the shell."""
    command = Path(sys.executable).with_name("nimbus-sd")
    done = subprocess.run(
        [command, "predict", tmp_path / "nowhere.zarr"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: There is no {tmp_path / 'nowhere.zarr'}.\n"


def test_a_file_that_is_there_is_kept_unless_told_otherwise(scored_store, small, tmp_path):
    out = tmp_path / "cells.csv"
    out.write_text("mine")
    assert "exists already; pass --overwrite" in refused("predict", scored_store, "--model", small, "--out", out)
    assert out.read_text() == "mine"
    code, *_ = call("predict", scored_store, "--model", small, "--out", out, "--overwrite", "--no-progress")
    assert code == 0 and out.read_text().startswith(",region")


def test_the_version_is_that_of_the_package():
    code, text, _ = call("--version")
    assert code == 0 and text.strip() == nimbus_sd.__version__
