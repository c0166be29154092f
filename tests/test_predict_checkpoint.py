"""Finished tiles are kept, found again, and refused where they are of something else."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from spatialdata import read_zarr

import nimbus_sd as ns
from nimbus_sd.engine import Checkpoint

FACTORS = {"DAPI": 120.0, "CD3": 100.0}
TILES = 20


def predict(sdata, model, checkpoint=None, **settings):
    defaults = {"normalization": FACTORS, "tta": False, "progress": False, "pixel_size": 1.0, "tile_size": 24}
    return ns.predict(sdata, model=model, checkpoint=checkpoint, **defaults | settings)


@pytest.fixture(scope="module")
def two(tissue):
    """Two fields of view of 4 x 3 and 4 x 2 tiles."""
    return tissue((90, 70), 2, seed=1), tissue((80, 40), 2, seed=2)


@pytest.fixture
def sdata(two, make_sdata):
    return build(two, make_sdata)


def build(two, make_sdata, wrap=lambda image: image):
    (a, a_cells), (b, b_cells) = two
    return make_sdata({"a": wrap(a), "b": b}, {"a_cells": a_cells.copy(), "b_cells": b_cells.copy()})


def stopping(at, action):
    """Make an image that does something when a block of CD3 is read, but for the first time, which is for factors."""
    read = []

    def block(values, block_info=None):
        if block_info[0]["chunk-location"] == (1, *at):
            if read:
                action()
            read.append(at)
        return values

    return lambda image: da.from_array(image, chunks=(1, 24, 24)).map_blocks(block, dtype=image.dtype)


def assert_same_bytes(adata, other):
    for layer in ("nimbus", "integrated_expression"):
        assert adata.layers[layer].tobytes() == other.layers[layer].tobytes()
    assert adata.obsm["spatial"].tobytes() == other.obsm["spatial"].tobytes()
    pd.testing.assert_frame_equal(adata.obs, other.obs, check_exact=True)
    assert str(adata.uns) == str(other.uns)


def tiles(folder: Path) -> dict[str, int]:
    """When each tile was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("tile-*.npz")}


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("normalization", [FACTORS, None], ids=["given", "measured"])
def test_it_goes_on_after_ctrl_c_and_ends_in_the_same_bytes(two, sdata, make_sdata, small, tmp_path, normalization):
    folder = tmp_path / "new" / "checkpoint"
    settings = {"checkpoint": folder, "normalization": normalization}
    with pytest.raises(KeyboardInterrupt, match=r"Stopped\. (\d+) of 20 tiles are kept in .*: the same call goes on"):
        predict(build(two, make_sdata, stopping((3, 1), interrupt)), small, **settings)
    before = tiles(folder)
    assert 0 < len(before) < TILES - 8
    resumed = predict(sdata, small, **settings).copy()
    assert_same_bytes(resumed, predict(sdata, small, normalization=normalization))
    after = tiles(folder)
    assert len(after) == TILES and before.items() <= after.items()
    # Nothing is left to do.
    assert_same_bytes(predict(sdata, small, **settings), sdata["table"])
    assert tiles(folder) == after


@pytest.mark.parametrize("n_kept", [0, 2])
def test_a_stop_while_factors_are_measured_tells_of_it(two, sdata, make_sdata, small, tmp_path, n_kept):
    def build_failing(action):
        return build(two, make_sdata, lambda image: da.from_array(image).map_blocks(action, meta=image[:0]))

    def interrupted(block):
        raise KeyboardInterrupt

    def damaged(block):
        raise RuntimeError("Zstd decompression error")

    if n_kept:
        predict(sdata, small, tmp_path, normalization=None)
        for number in range(n_kept, TILES):
            (tmp_path / f"tile-{number:07d}.npz").unlink()
    said = f"{n_kept} tiles are kept in '.*': the same call finds the factors anew and goes on from there"
    with pytest.raises(KeyboardInterrupt, match=rf"Stopped\. {said}"):
        predict(build_failing(interrupted), small, tmp_path, normalization=None)
    with pytest.raises(OSError, match="Zstd decompression error") as error:
        predict(build_failing(damaged), small, tmp_path, normalization=None)
    assert re.match(said, error.value.__notes__[0])
    with pytest.raises(KeyboardInterrupt, match="no tile had begun when it was stopped; the same call begins anew"):
        predict(build_failing(interrupted), small, normalization=None)


def test_ctrl_c_without_a_checkpoint_tells_of_it(two, make_sdata, small):
    with pytest.raises(KeyboardInterrupt, match="Nothing was kept; with `checkpoint`, a folder, the same call goes on"):
        predict(build(two, make_sdata, stopping((3, 1), interrupt)), small)


@pytest.mark.parametrize("gone", [[0], [7, 8, 19], list(range(1, 20))], ids=str)
def test_which_tiles_are_there_does_not_matter(sdata, small, tmp_path, gone):
    whole = predict(sdata, small, tmp_path).copy()
    for number in gone:
        (tmp_path / f"tile-{number:07d}.npz").unlink()
    assert_same_bytes(predict(sdata, small, tmp_path), whole)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"normalization": FACTORS | {"CD3": 90.0}}, "factors 'CD3': 100.0 then, 90.0 now"),
        ({"channels": ["CD3", "DAPI"]}, r"channels: \['DAPI', 'CD3'\] then, \['CD3', 'DAPI'\] now"),
        ({"channels": ["CD3"]}, "channels"),
        ({"tile_size": 48}, "tile_size: 24 then, 48 now"),
        ({"tta": True}, "views: 1 then, 8 now"),
        ({"pixel_size": 0.9}, "regions 'a_cells' 'pixel_size': 1.0 then, 0.9 now"),
        ({"image_key": ["b", "a"], "labels_key": ["b_cells", "a_cells"]}, "labels"),
        ({"image_key": "a"}, "labels"),
    ],
    ids=str,
)
def test_other_settings_are_refused_with_the_reason(sdata, small, tmp_path, settings, reason):
    predict(sdata, small, tmp_path, tile_size=24)
    before, table = tiles(tmp_path), sdata["table"]
    with pytest.raises(ValueError, match=f"is of other inputs: {reason}"):
        predict(sdata, small, tmp_path, **settings)
    assert tiles(tmp_path) == before and sdata["table"] is table


def test_another_model_is_refused(sdata, small, deep, tmp_path):
    predict(sdata, small, tmp_path)
    with pytest.raises(ValueError, match="is of other inputs: model 'sha256'"):
        predict(sdata, deep, tmp_path)


@pytest.mark.filterwarnings("ignore:This processor emulates bfloat16")
def test_another_precision_is_refused_but_not_another_batch_size(sdata, small, tmp_path):
    predict(sdata, small, tmp_path)
    with pytest.raises(ValueError, match="is of other inputs: precision: float32 then, bfloat16 now"):
        predict(sdata, small, tmp_path, precision="bfloat16")
    predict(sdata, small, tmp_path, batch_size=1)


@pytest.mark.parametrize(
    "kind, key, index, reason",
    [
        ("images", "a", (1, 44, 33), r"other pixels in channel 'CD3' of image 'a': tile \d+ of 20 differs"),
        ("images", "b", (0, -1, -1), "other pixels in channel 'DAPI' of image 'b'"),
        ("labels", "a_cells", (-1, -1), "other labels 'a_cells'"),
        ("labels", "b_cells", (0, 0), "other labels 'b_cells'"),
    ],
)
def test_other_pixels_are_refused_be_it_one_and_before_the_work(sdata, small, tmp_path, kind, key, index, reason):
    predict(sdata, small, tmp_path)
    (tmp_path / "tile-0000000.npz").unlink()
    before = tiles(tmp_path)
    element = getattr(sdata, kind)[key]
    element.data = element.data.compute()
    element.data[index] += 1
    with pytest.raises(ValueError, match=f"The checkpoint was made of {reason}") as error:
        predict(sdata, small, tmp_path)
    assert not hasattr(error.value, "__notes__"), "the same call does not go on"
    assert tiles(tmp_path) == before


def test_pixels_of_tiles_that_are_not_there_may_have_changed(sdata, small, tmp_path):
    predict(sdata, small, tmp_path)
    for path in tmp_path.glob("tile-*"):
        if path.name != "tile-0000000.npz":
            path.unlink()
    image = sdata.images["b"]
    image.data = image.data.compute() + 7
    resumed = predict(sdata, small, tmp_path).copy()
    assert_same_bytes(resumed, predict(sdata, small))


def test_what_is_warned_of_is_warned_of_again(two, make_sdata, small, tmp_path):
    def wrap(image):
        image = image.astype(np.float32)
        image[0, ::9, ::9] = np.nan
        image[1, 5] = -1
        return image

    sdata = build(two, make_sdata, wrap)
    said = []
    for gone in ([], [2, 5], []):
        for number in gone:
            (tmp_path / f"tile-{number:07d}.npz").unlink()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            predict(sdata, small, tmp_path)
        said.append([str(one.message) for one in caught if "pixels in channel" in str(one.message)])
    assert len(said[0]) == 2 and said[0] == said[1] == said[2]


def test_a_full_disk_leaves_the_tiles_that_are_there(sdata, small, tmp_path):
    # The device on which every write finds no space.
    (tmp_path / "tile-0000005.npz.unfinished").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\); the tiles in it") as error:
        predict(sdata, small, tmp_path)
    assert "5 of 20 tiles are kept" in error.value.__notes__[0]
    before = tiles(tmp_path)
    assert len(before) == 5
    resumed = predict(sdata, small, tmp_path).copy()
    assert before.items() <= tiles(tmp_path).items()
    assert_same_bytes(resumed, predict(sdata, small))


@pytest.mark.skipif(os.name != "posix", reason="folders are forced to disk on POSIX")
@pytest.mark.parametrize("reason, kept", [(errno.EINVAL, TILES), (errno.EIO, None)], ids=["EINVAL", "EIO"])
def test_file_systems_that_force_files_to_disk_but_no_folders(sdata, small, tmp_path, monkeypatch, reason, kept):
    sync = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(reason, os.strerror(reason))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with nullcontext() if kept else pytest.raises(OSError, match="The checkpoint cannot be written"):
        predict(sdata, small, tmp_path)
        assert len(tiles(tmp_path)) == kept


def test_a_damaged_tile_is_named(sdata, small, tmp_path):
    predict(sdata, small, tmp_path)
    path = tmp_path / "tile-0000003.npz"
    whole = path.read_bytes()
    for content in (whole[:-50], b"", whole[: len(whole) // 2] + b"?" + whole[len(whole) // 2 + 1 :]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"tile-0000003.npz' is damaged .*; delete it, and its tile"):
            predict(sdata, small, tmp_path)
    path.unlink()
    predict(sdata, small, tmp_path)
    assert path.read_bytes() == whole


def test_folders_of_something_else(sdata, small, tmp_path):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").touch()
    with pytest.raises(ValueError, match=r"is no checkpoint, but holds other files \('chapter.tex'\)"):
        predict(sdata, small, other)
    assert [path.name for path in other.iterdir()] == ["chapter.tex"]
    with pytest.raises(NotADirectoryError, match=r"chapter\.tex' is a file; pass a new or an empty folder"):
        predict(sdata, small, other / "chapter.tex")
    broken = tmp_path / "broken"
    predict(sdata, small, broken)
    for content in ("{", "[1]"):
        (broken / "inputs.json").write_text(content)
        with pytest.raises(ValueError, match=r"is damaged .*; delete the folder"):
            predict(sdata, small, broken)


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_two_calls_at_a_time_do_not_share_a_checkpoint(two, sdata, make_sdata, small, tmp_path):
    refused = []

    def another():
        if not refused:
            with pytest.raises(BlockingIOError, match="Another call works with the checkpoint") as error:
                predict(sdata, small, tmp_path)
            refused.append(error)

    predict(build(two, make_sdata, stopping((3, 1), another)), small, tmp_path)
    assert refused


def test_a_damaged_chunk_is_named_and_the_checkpoint_intact(two, sdata, make_sdata, small, tmp_path):
    def fail():
        raise RuntimeError("Zstd decompression error")

    broken = build(two, make_sdata, stopping((3, 1), fail))
    message = (
        r"Tile \d+ of 20: Image 'a', channel\(s\) 'CD3', cannot be read in rows \d+ to \d+, columns \d+ to \d+ "
        r"\(RuntimeError: Zstd decompression error\)"
    )
    with pytest.raises(OSError, match=message) as error:
        predict(broken, small, tmp_path)
    assert "tiles are kept in" in error.value.__notes__[0]
    assert_same_bytes(predict(sdata, small, tmp_path).copy(), predict(sdata, small))


def test_a_store_that_goes_away_is_named_and_the_checkpoint_intact(sdata, small, tmp_path, monkeypatch):
    store, folder, save = tmp_path / "store.zarr", tmp_path / "checkpoint", Checkpoint.save
    sdata.write(store)

    def move_after_four(self, *tile):
        save(self, *tile)
        if store.exists() and len(tiles(folder)) == 4:
            store.rename(tmp_path / "moved.zarr")

    monkeypatch.setattr(Checkpoint, "save", move_after_four)
    with pytest.raises(FileNotFoundError, match=r"Tile \d+ of 20: .*was away while it was read") as error:
        predict(read_zarr(store), small, folder)
    kept = len(tiles(folder))
    assert 4 <= kept < TILES and f"{kept} of 20 tiles are kept in" in error.value.__notes__[0]
    assert_same_bytes(predict(read_zarr(tmp_path / "moved.zarr"), small, folder).copy(), predict(sdata, small))


KILLED = '''
"""Scores with a checkpoint in processes that are killed: at any moment, and at the worst ones."""
import os, random, signal, sys, time
from pathlib import Path

import numpy as np, torch
torch.set_num_threads(1)
from conftest import make_sdata, tissue
import nimbus_sd as ns

folder, model = Path(sys.argv[1]), sys.argv[2]
image, labels = tissue((110, 110), 2, seed=1)
settings = {"normalization": {"DAPI": 120.0, "CD3": 100.0}, "tta": False, "progress": False, "pixel_size": 1.0}

def predict(**more):
    return ns.predict(make_sdata(image, labels), model=model, tile_size=12, **settings, **more)

def score():
    predict(checkpoint=folder)

def die_at_sync(n):
    """Die when a file, or the folder, is about to be forced to disk for the nth time."""
    sync, left = os.fsync, [n]
    def fsync(descriptor):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)
    os.fsync = fsync
    predict(checkpoint=folder)

def tiles():
    return {path: path.stat().st_mtime_ns for path in folder.glob("tile-*.npz")}

def killed(work, when):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    while not when():
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)

rng = random.Random(0)
n_killed = 0
# The first writes are those of the description, then two for each tile: the file, the folder.
for n in (1, 2, 3, 4, 9):
    before = tiles()
    n_killed += killed(lambda: die_at_sync(n), lambda: False)
    assert before.items() <= tiles().items()
for more in (1, 10, 20):
    before, goal, wait = tiles(), len(tiles()) + more, rng.uniform(0, 0.03)
    n_killed += killed(score, lambda: len(tiles()) >= goal and not time.sleep(wait))
    after = tiles()
    assert before.items() <= after.items(), "a finished tile was lost or made again"
    for path in after:
        with np.load(path) as file:
            assert file["digests"].shape == (3, 32) or file["digests"].shape == (1, 32)
assert n_killed == 8, n_killed
before = tiles()
assert 30 < len(before) < 100, len(before)
resumed, whole = predict(checkpoint=folder), predict()
assert before.items() <= tiles().items() and len(tiles()) == 100
for layer in ("nimbus", "integrated_expression"):
    assert resumed.layers[layer].tobytes() == whole.layers[layer].tobytes()
assert resumed.obsm["spatial"].tobytes() == whole.obsm["spatial"].tobytes()
assert resumed.obs.equals(whole.obs) and str(resumed.uns) == str(whole.uns)
assert not list(folder.glob("*.unfinished"))
'''


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")
def test_tiles_survive_kill_9_at_any_moment(small, tmp_path):
    here = Path(__file__).parent
    paths = [str(here), str(here / "helpers"), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "checkpoint"), str(small)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
