"""Finished tiles are kept, found again, and refused where they are of something else."""

import errno
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from command_line import raising
from scoring import assert_same_bytes, tiles
from spatialdata import read_zarr

import nimbus_sd as ns
from nimbus_sd.engine import Checkpoint

FACTORS = {"DAPI": 120.0, "CD3": 100.0}
TILES = 20


def predict(sdata, model, checkpoint=None, **settings):
    defaults = {"normalization": FACTORS, "tta": False, "progress": False, "pixel_size": 1.0, "tile_size": 24}
    return ns.predict(sdata, model=model, checkpoint=checkpoint, **defaults | settings)


@pytest.fixture(scope="module")
def build(tissue, make_sdata):
    """Two fields of view of 4 x 3 and 4 x 2 tiles; the image of the first one may be wrapped."""
    (a, a_cells), (b, b_cells) = tissue((90, 70), 2, seed=1), tissue((80, 40), 2, seed=2)

    def build(wrap=lambda image: image):
        return make_sdata({"a": wrap(a), "b": b}, {"a_cells": a_cells.copy(), "b_cells": b_cells.copy()})

    return build


@pytest.fixture
def sdata(build):
    return build()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="module")
def whole(build, small, finished):
    """The table of a call that was not stopped."""
    return predict(build(), small, finished)


@pytest.fixture
def folder(whole, finished, tmp_path):
    """The checkpoint of that call, to damage."""
    return shutil.copytree(finished, tmp_path / "checkpoint")


def stopping(action):
    """Make an image that does something when a block of CD3 is read for a tile, which threads do."""

    def block(values, block_info=None):
        if block_info[0]["chunk-location"] == (1, 3, 1) and "ThreadPoolExecutor" in threading.current_thread().name:
            action()
        return values

    return lambda image: da.from_array(image, chunks=(1, 24, 24)).map_blocks(block, dtype=image.dtype)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def remove(folder, numbers):
    for number in numbers:
        (folder / f"tile-{number:07d}.npz").unlink()


@pytest.mark.parametrize("normalization", [FACTORS, None], ids=["given", "measured"])
def test_it_goes_on_after_ctrl_c_and_ends_in_the_same_bytes(build, sdata, small, tmp_path, normalization):
    folder = tmp_path / "new" / "checkpoint"
    settings = {"checkpoint": folder, "normalization": normalization}
    with pytest.raises(KeyboardInterrupt, match=r"Stopped\. (\d+) of 20 tiles are kept in .*: the same call goes on"):
        predict(build(stopping(interrupt)), small, **settings)
    before = tiles(folder)
    assert 0 < len(before) < TILES - 8
    resumed = predict(sdata, small, **settings).copy()
    assert_same_bytes(resumed, predict(sdata, small, normalization=normalization))
    assert len(tiles(folder)) == TILES and before.items() <= tiles(folder).items()


@pytest.fixture
def unreadable(build):
    """Make an image that fails wherever it is read, so while factors are measured."""
    return lambda error: build(lambda image: da.from_array(image).map_blocks(raising(error), meta=image[:0]))


def test_a_stop_while_factors_are_measured_tells_of_it(unreadable, sdata, small, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="no tile had begun when it was stopped; the same call begins anew"):
        predict(unreadable(KeyboardInterrupt), small, normalization=None)
    predict(sdata, small, tmp_path, normalization=None)
    remove(tmp_path, range(2, TILES))
    said = "2 tiles are kept in '.*': the same call finds the factors anew and goes on from there"
    with pytest.raises(KeyboardInterrupt, match=rf"Stopped\. {said}"):
        predict(unreadable(KeyboardInterrupt), small, tmp_path, normalization=None)
    with pytest.raises(OSError, match="Zstd decompression error") as error:
        predict(unreadable(RuntimeError("Zstd decompression error")), small, tmp_path, normalization=None)
    assert re.match(said, error.value.__notes__[0])


def test_ctrl_c_without_a_checkpoint_tells_of_it(build, small):
    with pytest.raises(KeyboardInterrupt, match="Nothing was kept; with `checkpoint`, a folder, the same call goes on"):
        predict(build(stopping(interrupt)), small)


@pytest.mark.parametrize("gone", [[0], [7, 8, 19], list(range(1, 20))], ids=str)
def test_which_tiles_are_there_does_not_matter(sdata, small, folder, whole, gone):
    remove(folder, gone)
    assert_same_bytes(predict(sdata, small, folder), whole)
    assert len(tiles(folder)) == TILES
    # Nothing is left to do, which another size of batch may do.
    assert_same_bytes(predict(sdata, small, folder, batch_size=1), whole)


@pytest.mark.filterwarnings("ignore:This processor emulates bfloat16")
@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"normalization": FACTORS | {"CD3": 90.0}}, "factors 'CD3': 100.0 then, 90.0 now"),
        ({"channels": ["CD3", "DAPI"]}, r"channels: \['DAPI', 'CD3'\] then, \['CD3', 'DAPI'\] now"),
        ({"tile_size": 48}, "tile_size: 24 then, 48 now"),
        ({"tta": True}, "views: 1 then, 8 now"),
        ({"pixel_size": 0.9}, "regions 'a_cells' 'pixel_size': 1.0 then, 0.9 now"),
        ({"image_key": ["b", "a"], "labels_key": ["b_cells", "a_cells"]}, "labels"),
        ({"precision": "bfloat16"}, "precision: float32 then, bfloat16 now"),
        ({"model": "deep"}, "model 'sha256'"),
    ],
    ids=str,
)
def test_other_settings_are_refused_with_the_reason(sdata, small, deep, folder, settings, reason):
    before = tiles(folder)
    model = deep if "model" in settings else small
    with pytest.raises(ValueError, match=f"is of other inputs: {reason}"):
        predict(sdata, checkpoint=folder, **settings | {"model": model})
    assert tiles(folder) == before and not sdata.tables


@pytest.mark.parametrize(
    "kind, key, index, reason",
    [
        ("images", "a", (1, 44, 33), r"other pixels in channel 'CD3' of image 'a': tile \d+ of 20 differs"),
        ("images", "b", (0, -1, -1), "other pixels in channel 'DAPI' of image 'b'"),
        ("labels", "a_cells", (-1, -1), "other labels 'a_cells'"),
        ("labels", "b_cells", (0, 0), "other labels 'b_cells'"),
    ],
)
def test_other_pixels_are_refused_be_it_one_and_before_the_work(sdata, small, folder, kind, key, index, reason):
    remove(folder, [0])
    before = tiles(folder)
    element = getattr(sdata, kind)[key]
    element.data = element.data.compute()
    element.data[index] += 1
    with pytest.raises(ValueError, match=f"The checkpoint was made of {reason}") as error:
        predict(sdata, small, folder)
    assert not hasattr(error.value, "__notes__"), "the same call does not go on"
    assert tiles(folder) == before


def test_pixels_of_tiles_that_are_not_there_may_have_changed(sdata, small, folder):
    remove(folder, range(1, TILES))
    image = sdata.images["b"]
    image.data = image.data.compute() + 7
    resumed = predict(sdata, small, folder).copy()
    assert_same_bytes(resumed, predict(sdata, small))


def test_what_is_warned_of_is_warned_of_again(build, small, tmp_path):
    def wrap(image):
        image = image.astype(np.float32)
        image[0, ::9, ::9] = np.nan
        image[1, 5] = -1
        return image

    said = []
    for gone in ([], [2, 5], []):
        remove(tmp_path, gone)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            predict(build(wrap), small, tmp_path)
        said.append([str(warning.message) for warning in caught if "pixels in channel" in str(warning.message)])
    assert len(said[0]) == 2 and said[0] == said[1] == said[2]


def test_a_full_disk_leaves_the_tiles_that_are_there(sdata, small, whole, tmp_path):
    # The device on which every write finds no space.
    (tmp_path / "tile-0000005.npz.unfinished").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\); the tiles in it") as error:
        predict(sdata, small, tmp_path)
    assert "5 of 20 tiles are kept" in error.value.__notes__[0]
    before = tiles(tmp_path)
    assert len(before) == 5
    assert_same_bytes(predict(sdata, small, tmp_path), whole)
    assert before.items() <= tiles(tmp_path).items()


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


def test_a_damaged_tile_is_named(sdata, small, folder):
    path = folder / "tile-0000003.npz"
    content = path.read_bytes()
    half = len(content) // 2
    for damaged in (content[:-50], b"", content[:half] + b"?" + content[half + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"tile-0000003.npz' is damaged .*; delete it, and its tile"):
            predict(sdata, small, folder)
    path.unlink()
    predict(sdata, small, folder)
    assert path.read_bytes() == content


def test_folders_of_something_else(sdata, small, folder, tmp_path):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").touch()
    with pytest.raises(ValueError, match=r"is no checkpoint, but holds other files \('chapter.tex'\)"):
        predict(sdata, small, other)
    assert [path.name for path in other.iterdir()] == ["chapter.tex"]
    for content in ("{", "[1]"):
        (folder / "inputs.json").write_text(content)
        with pytest.raises(ValueError, match=r"is damaged .*; delete the folder"):
            predict(sdata, small, folder)


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_two_calls_at_a_time_do_not_share_a_checkpoint(build, sdata, small, tmp_path):
    refused = []

    def another():
        if not refused:
            with pytest.raises(BlockingIOError, match="Another call works with the checkpoint") as error:
                predict(sdata, small, tmp_path)
            refused.append(error)

    predict(build(stopping(another)), small, tmp_path)
    assert refused


def test_a_damaged_chunk_is_named_and_the_checkpoint_intact(build, sdata, small, whole, tmp_path):
    broken = build(stopping(raising(RuntimeError("Zstd decompression error"))))
    message = (
        r"Tile \d+ of 20: Image 'a', channel\(s\) 'CD3', cannot be read in rows \d+ to \d+, columns \d+ to \d+ "
        r"\(RuntimeError: Zstd decompression error\)"
    )
    with pytest.raises(OSError, match=message) as error:
        predict(broken, small, tmp_path)
    assert "tiles are kept in" in error.value.__notes__[0]
    assert_same_bytes(predict(sdata, small, tmp_path), whole)


def test_a_store_that_goes_away_is_named_and_the_checkpoint_intact(sdata, small, whole, tmp_path, monkeypatch):
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
    assert_same_bytes(predict(read_zarr(tmp_path / "moved.zarr"), small, folder), whole)


def kill_again_and_again(folder: Path, model: str) -> None:
    """Score with a checkpoint in processes that are killed: at any moment, and at the worst ones."""
    from conftest import make_sdata, tissue

    data = tissue((110, 110), 2, seed=1)

    def score(checkpoint=None):
        return predict(make_sdata(*data), model, checkpoint, tile_size=12)

    def killed(at_sync=-1, at_tiles=0, half_written=False):
        """Kill when a file or folder is about to be forced to disk for the nth time, or soon after the nth tile."""
        sync, savez, left, wait = os.fsync, np.savez, [at_sync], random.uniform(0, 0.03)

        def fsync(descriptor):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(descriptor)

        def write_half(file, **arrays):
            savez(file, **arrays)
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if not child:
            os.fsync, np.savez = fsync, write_half if half_written else savez
            try:
                score(folder)
            finally:
                os._exit(0)
        if at_tiles:
            while len(tiles(folder)) < at_tiles:
                time.sleep(0.001)
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])

    # The first writes are those of the description, then two for each tile: the file, the folder.
    moments = [{"at_sync": n} for n in (1, 2, 3, 4, 9)] + [{"at_tiles": n} for n in (8, 18)]
    for moment in [*moments, {"half_written": True}, {"at_tiles": 40}]:
        before = tiles(folder)
        assert killed(**moment), moment
        assert before.items() <= tiles(folder).items(), "a finished tile was lost or made again"
    before = tiles(folder)
    assert 40 <= len(before) < 100
    assert_same_bytes(score(folder), score())
    assert before.items() <= tiles(folder).items() and len(tiles(folder)) == 100
    assert not list(folder.glob("*.unfinished"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")
def test_tiles_survive_kill_9_at_any_moment(small, tmp_path):
    """In a process of its own, which has no threads when it is forked."""
    here = Path(__file__).parent
    code = f"import {Path(__file__).stem} as this; this.kill_again_and_again(this.Path('checkpoint'), {str(small)!r})"
    paths = os.pathsep.join(filter(None, [str(here), str(here / "helpers"), *sys.path]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
