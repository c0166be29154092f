"""A dask.distributed client computes the same tiles: same scores, whoever dies."""

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from copy import copy
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster, get_worker
from scoring import assert_same_bytes, tiles
from spatialdata import read_zarr

import nimbus_sd as ns
from nimbus_sd.engine import cluster
from nimbus_sd.models import Scorer

pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding", "ignore:Sending large graph")

FACTORS = {"DAPI": 120.0, "CD3": 100.0}


def predict(sdata, model, client=None, **settings):
    defaults = {"normalization": FACTORS, "tta": False, "progress": False, "pixel_size": 0.5, "tile_size": 16}
    return ns.predict(sdata, model=model, client=client, device="cpu", **defaults | settings)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Bytes are compared between equal numbers of workers, on which the order of a convolution's sums depends.

    Threads of this process start with the number that torch was given last. But numba's first parallel function (scanpy
    has some) sets the OpenMP threads of the thread that calls it to all cores, torch's too.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tissue):
    """35 tiles."""
    return tissue((203, 157), 2, seed=1)


@pytest.fixture
def sdata(data, make_sdata):
    return make_sdata(*data)


@pytest.fixture(scope="module")
def alone(data, make_sdata, small):
    """As scored without a cluster."""
    return predict(make_sdata(*data), small)


@contextmanager
def client_of(**workers):
    """A cluster whose client is not the active one."""
    local = LocalCluster(**workers, dashboard_address=":0", memory_limit=None)
    with local, Client(local, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def workers():
    """Two workers with eight threads each in this process."""
    with client_of(n_workers=2, threads_per_worker=8, processes=False) as client:
        yield client


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_active_client_is_used_but_not_within_a_task(sdata, small, alone, workers, caplog, capsys):
    with caplog.at_level("INFO", logger="nimbus_sd"):
        predict(sdata, small)
        assert "cluster" not in caplog.text
        with workers.as_current():
            assert_same_bytes(predict(sdata, small, progress=True), alone)
            assert caplog.text.count("35 tiles run on a cluster of 2 workers") == 1
            assert re.search(r"Scores: 100%.* 35\.0/35", capsys.readouterr().err)
            # Several at once, which would wait for each other's workers.
            jobs = [workers.submit(predict, sdata, small, key_added=f"n{i}") for i in range(8)]
            for job in jobs:
                job.result(timeout=120)
    assert caplog.text.count("run on a cluster") == 1


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_one_task_at_a_time_is_in_the_network_of_a_device(sdata, small, alone, workers, monkeypatch, device):
    """Of all tasks of a worker, and of all workers that share a GPU."""
    make, call, made, inside, at_once = Scorer.__init__, Scorer.__call__, set(), [], set()

    def init(self, *args, **settings):
        make(self, *args, **settings)
        if threading.current_thread() is not threading.main_thread():
            made.add(self)
            self.device = torch.device(device)

    def called(self, *args):
        self.device = torch.device("cpu")
        inside.append(self)
        at_once.add(inside.count(self) if device == "cpu" else len(inside))
        time.sleep(0.01)
        try:
            return call(self, *args)
        finally:
            inside.remove(self)

    monkeypatch.setattr(Scorer, "__init__", init)
    monkeypatch.setattr(Scorer, "__call__", called)
    # Workers make their scorers anew for other settings.
    adata = predict(sdata, small, workers, batch_size={"cpu": 7, "mps": 8}[device])
    np.testing.assert_allclose(adata.layers["nimbus"], alone.layers["nimbus"], atol=1e-5)
    assert len(made) == 2 and at_once == {1}


def test_tiles_do_not_wait_for_a_busy_worker_while_another_is_idle(sdata, small, alone, workers, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.1)
    call, all_others, done, waited = Scorer.__call__, threading.Event(), [], []

    def called(self, *args):
        if get_worker().name == 0:
            # Besides the tile in work, this worker reads one.
            waited.append(all_others.wait(60 if all(waited) else 0))
        else:
            done.append(1)
            if len(done) == 33:
                all_others.set()
        return call(self, *args)

    monkeypatch.setattr(Scorer, "__call__", called)
    assert_same_bytes(predict(sdata, small, workers), alone)
    assert waited and all(waited)


def test_a_checkpoint_goes_on_from_here_to_there_and_back(sdata, small, alone, workers, tmp_path):
    assert_same_bytes(predict(sdata, small, workers, checkpoint=tmp_path), alone)
    paths = list(tiles(tmp_path))
    assert len(paths) == 35
    for client, gone in ((None, paths[::2]), (workers, paths[1::2])):
        for path in gone:
            path.unlink()
        assert_same_bytes(predict(sdata, small, client, checkpoint=tmp_path), alone)
    sdata.labels["fov_cells"].data = sdata.labels["fov_cells"].data.compute() + 1
    del sdata.tables["table"]
    with pytest.raises(ValueError, match="The checkpoint was made of other labels 'fov_cells'"):
        predict(sdata, small, workers, checkpoint=tmp_path)


@pytest.fixture
def failing(data, make_sdata):
    """Elements whose image's last block fails at some of its reads for tiles, which are ahead of the network."""
    image, labels = data

    def build(when):
        reads = []

        def block(values, block_info=None):
            if block_info[0]["chunk-location"] == (1, 3, 2) and "ThreadPoolExecutor" in threading.current_thread().name:
                reads.append(1)
                if when(len(reads)):
                    raise OSError("stale file handle")
            return values

        return make_sdata(da.from_array(image, (1, 64, 64)).map_blocks(block, dtype=image.dtype), labels)

    return build


def test_a_tile_that_fails_once_is_tried_again(failing, small, alone, workers):
    assert_same_bytes(predict(failing(lambda n: n == 1), small, workers), alone)


def test_a_tile_that_always_fails_is_named_and_the_others_kept(failing, sdata, small, alone, workers, tmp_path):
    with pytest.raises(OSError, match=r"Tile \d+ of 35: Image 'fov', channel\(s\) 'CD3', .*stale file handle") as error:
        predict(failing(lambda n: True), small, workers, checkpoint=tmp_path)
    kept = tiles(tmp_path)
    assert 0 < len(kept) < 35 and f"{len(kept)} of 35 tiles are kept" in error.value.__notes__[0]
    assert_same_bytes(predict(sdata, small, workers, checkpoint=tmp_path), alone)


def test_ctrl_c_says_how_to_go_on_and_drops_the_rest(failing, sdata, small, alone, tmp_path):
    # Each worker has a copy of the image, which would interrupt once.
    with client_of(n_workers=1, threads_per_worker=4, processes=False) as client:
        interrupted = failing(lambda n: n == 1 and os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match=r"Stopped\. \d+ of 35 tiles are kept in .*: the same call goes on"):
            predict(interrupted, small, client, checkpoint=tmp_path)
        wait_until(lambda: not any("nimbus-sd-tile" in str(key) for key in list(client.cluster.scheduler.tasks)))
    assert len(tiles(tmp_path)) < 35
    assert_same_bytes(predict(sdata, small, checkpoint=tmp_path), alone)


def test_a_cluster_that_is_closed_is_an_error_that_says_how_to_go_on(failing, small, tmp_path):
    folder, reading, closed = tmp_path / "checkpoint", tmp_path / "reading", tmp_path / "closed"

    def hold():
        reading.touch()
        wait_until(closed.exists)

    def close():
        wait_until(reading.exists)
        client.close()
        closed.touch()

    with client_of(n_workers=1, threads_per_worker=1, processes=False) as client:
        threading.Thread(target=close, daemon=True).start()
        with pytest.raises(ConnectionError, match="The cluster was closed, or cannot be reached") as error:
            predict(failing(lambda n: n == 1 and hold()), small, client, checkpoint=folder)
        wait_until(closed.exists)
    kept = tiles(folder)
    assert len(kept) < 35 and f"{len(kept)} of 35 tiles are kept" in error.value.__notes__[0]


class Elsewhere:
    """Pixels that are others for workers."""

    def __init__(self, here, there):
        self.here, self.there, self.shape, self.dtype, self.ndim = here, there, here.shape, here.dtype, here.ndim

    def __reduce__(self):
        return copy, (self.there,)

    def __getitem__(self, window):
        return self.here[window]


@pytest.mark.parametrize(
    "labels_there, channels_there, words",
    [
        (0, [1, 1], " sees other labels 'fov_cells' than .* under the same path"),
        (1, [1, 0], " sees other pixels in channel 'CD3' of image 'fov' than .* under the same path"),
        (None, [1, 1], ": Labels 'fov_cells' cannot be read"),
    ],
)
def test_a_worker_that_sees_other_pixels_or_none_gets_no_work(
    data, make_sdata, small, workers, tmp_path, labels_there, channels_there, words
):
    image, labels = data
    channels = image * np.array(channels_there, image.dtype)[:, None, None]
    there = None if labels_there is None else labels * labels_there
    sdata = make_sdata(
        da.from_array(Elsewhere(image, channels), chunks=(1, 64, 64), asarray=False),
        da.from_array(Elsewhere(labels, there), chunks=64, asarray=False),
    )
    with pytest.raises(OSError, match=rf"Worker \S+ on \S+{words}"):
        predict(sdata, small, workers, checkpoint=tmp_path)
    assert not tiles(tmp_path)


def test_clients_that_are_none_or_closed(sdata, small, workers):
    for client, words in (("tcp://127.0.0.1:8786", "a str; pass a dask.distributed Client"), (3, "a int")):
        with pytest.raises(TypeError, match=f"`client` is {words}"):
            predict(sdata, small, client)
    closed = Client(workers.cluster, set_as_default=False)
    closed.close()
    with pytest.raises(ValueError, match="`client` is closed, not running"):
        predict(sdata, small, closed)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="workers are killed")
def test_processes_give_the_same_bytes_even_if_one_is_killed_half_way(data, make_sdata, deep, tmp_path):
    # As many threads as those workers have.
    torch.set_num_threads(2)
    expected, sdata = predict(make_sdata(*data), deep), make_sdata(*data)
    torch.set_num_threads(1)
    sdata.write(tmp_path / "store.zarr")
    folder, done = tmp_path / "checkpoint", []

    def kill_one():
        wait_until(lambda: len(tiles(folder)) >= 5)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        done.append(len(tiles(folder)))

    with client_of(n_workers=2, threads_per_worker=2) as client:
        pids = client.run(os.getpid)
        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        adata = predict(read_zarr(tmp_path / "store.zarr"), deep, client, checkpoint=folder)
        killer.join(timeout=10)
        # Dask would allow one.
        assert 2 in client.run(torch.get_num_threads).values()
    assert 5 <= done[0] < 35
    assert_same_bytes(adata, expected)


DOCUMENT = Path(__file__).parents[1] / "docs" / "cluster.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_calls_in_the_document_have_parameters_that_exist():
    for block in BLOCKS:
        calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
        calls = [call for call in calls if ast.unparse(call.func) == "ns.predict"]
        assert calls
        for call in calls:
            arguments = [ast.unparse(argument) for argument in call.args]
            inspect.signature(ns.predict).bind(*arguments, **{keyword.arg: None for keyword in call.keywords})


@pytest.mark.slow
def test_the_script_in_the_document_runs(tissue, make_sdata, tmp_path):
    (script,) = (block for block in BLOCKS if "LocalCluster(" in block)
    make_sdata(*tissue((60, 60), 2)).write(tmp_path / "slide.zarr")
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-W", "ignore", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    table = read_zarr(tmp_path / "slide.zarr").tables["table"]
    assert table.layers["nimbus"].shape[1] == 2 and not table.to_df("nimbus").isna().any(axis=None)
