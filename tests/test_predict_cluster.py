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
from copy import copy
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster, get_worker
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
    """Bytes are compared between equal numbers of threads, on which the order of a convolution's sums depends.

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
def alone(data, make_sdata, deep):
    """As scored without a cluster."""
    return predict(make_sdata(*data), deep)


@pytest.fixture(scope="module")
def threads():
    """A worker with four threads in this process, whose client is not the active one."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def workers():
    """Two workers with eight threads each in this process."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=8, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def assert_same(adata, other):
    for layer in ("nimbus", "integrated_expression"):
        assert adata.layers[layer].tobytes() == other.layers[layer].tobytes()
    assert adata.obs.equals(other.obs) and str(adata.uns) == str(other.uns)


def test_a_client_that_is_passed_gives_the_same_bytes(sdata, deep, alone, threads, caplog, capsys):
    with caplog.at_level("INFO", logger="nimbus_sd"):
        assert_same(predict(sdata, deep, threads, progress=True), alone)
    assert "35 tiles run on a cluster of 1 workers" in caplog.text
    assert re.search(r"Scores: 100%.* 35\.0/35", capsys.readouterr().err)


def test_the_active_client_is_used_but_not_within_a_task(sdata, deep, alone, threads, caplog):
    with caplog.at_level("INFO", logger="nimbus_sd"):
        predict(sdata, deep)
        assert "cluster" not in caplog.text
        with threads.as_current():
            assert_same(predict(sdata, deep), alone)
            assert caplog.text.count("35 tiles run on a cluster") == 1
            # Several at once, which would wait for each other's threads.
            jobs = [threads.submit(predict, sdata, deep, key_added=f"n{i}") for i in range(4)]
            for job in jobs:
                job.result(timeout=120)
    assert caplog.text.count("run on a cluster") == 1


@pytest.fixture
def watched(monkeypatch):
    """Count the scorers made on workers, and how many at most are in the network at once; on this device."""
    counts, inside = {"made": 0, "at_once": 0}, []
    make, call = Scorer.__init__, Scorer.__call__

    def made(self, *args, **settings):
        make(self, *args, **settings)
        if threading.current_thread() is not threading.main_thread():
            counts["made"] += 1
            self.device = torch.device(counts["device"])

    def called(self, *args):
        self.device = torch.device("cpu")
        inside.append(self)
        counts["at_once"] = max(counts["at_once"], len(inside))
        time.sleep(0.01)
        try:
            return call(self, *args)
        finally:
            inside.pop()

    monkeypatch.setattr(Scorer, "__init__", made)
    monkeypatch.setattr(Scorer, "__call__", called)
    return counts


def test_one_task_at_a_time_is_in_the_network(sdata, deep, threads, watched):
    watched["device"] = "cpu"
    predict(sdata, deep, threads, batch_size=7)
    assert watched == {"device": "cpu", "made": 1, "at_once": 1}


def test_workers_that_share_a_gpu_take_turns(sdata, deep, alone, workers, watched):
    watched["device"] = "mps"
    assert_same(predict(sdata, deep, workers, batch_size=8), alone)
    assert watched == {"device": "mps", "made": 2, "at_once": 1}


def test_tiles_do_not_wait_for_a_busy_worker_while_another_is_idle(sdata, deep, alone, workers, monkeypatch):
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
    assert_same(predict(sdata, deep, workers), alone)
    assert waited and all(waited)


def test_a_checkpoint_goes_on_from_here_to_there_and_back(sdata, deep, alone, threads, tmp_path):
    assert_same(predict(sdata, deep, threads, checkpoint=tmp_path), alone)
    paths = sorted(tmp_path.glob("tile-*.npz"))
    assert len(paths) == 35
    for path in paths[::2]:
        path.unlink()
    assert_same(predict(sdata, deep, checkpoint=tmp_path), alone)
    for path in paths[1::2]:
        path.unlink()
    assert_same(predict(sdata, deep, threads, checkpoint=tmp_path), alone)
    sdata.labels["fov_cells"].data = sdata.labels["fov_cells"].data.compute() + 1
    with pytest.raises(ValueError, match="The checkpoint was made of other labels 'fov_cells'"):
        predict(sdata, deep, threads, checkpoint=tmp_path)


def failing(image, when):
    """An image whose last block fails at some of its reads for tiles, which are ahead of the network."""
    reads = []

    def block(values, block_info=None):
        if block_info[0]["chunk-location"] == (1, 3, 2) and "ThreadPoolExecutor" in threading.current_thread().name:
            reads.append(1)
            if when(len(reads)):
                raise OSError("stale file handle")
        return values

    return da.from_array(image, (1, 64, 64)).map_blocks(block, dtype=image.dtype)


def test_a_tile_that_fails_once_is_tried_again(data, make_sdata, deep, alone, threads):
    image, labels = data
    assert_same(predict(make_sdata(failing(image, lambda n: n == 1), labels), deep, threads), alone)


def test_a_tile_that_always_fails_is_named_and_the_others_kept(data, make_sdata, small, threads, tmp_path):
    image, labels = data
    with pytest.raises(OSError, match=r"Tile \d+ of 35: Image 'fov', channel\(s\) 'CD3', .*stale file handle") as error:
        predict(make_sdata(failing(image, lambda n: True), labels), small, threads, checkpoint=tmp_path)
    kept = list(tmp_path.glob("tile-*.npz"))
    assert 0 < len(kept) < 35 and f"{len(kept)} of 35 tiles are kept" in error.value.__notes__[0]
    resumed = predict(make_sdata(*data), small, threads, checkpoint=tmp_path)
    assert_same(resumed, predict(make_sdata(*data), small))


class Elsewhere:
    """Pixels that are others for workers."""

    def __init__(self, here, there):
        self.here, self.there, self.shape, self.dtype, self.ndim = here, there, here.shape, here.dtype, here.ndim

    def __reduce__(self):
        return copy, (self.there,)

    def __getitem__(self, window):
        return self.here[window]


@pytest.mark.parametrize("other", ["labels 'fov_cells'", "pixels in channel 'CD3' of image 'fov'"])
def test_a_worker_that_sees_other_pixels_gets_no_work(data, make_sdata, small, threads, tmp_path, other):
    image, labels = data
    if "labels" in other:
        labels = da.from_array(Elsewhere(labels, 0 * labels), chunks=64, asarray=False)
    else:
        image = da.from_array(Elsewhere(image, image * [[[1]], [[0]]]), chunks=(1, 64, 64), asarray=False)
    with pytest.raises(OSError, match=rf"Worker \S+ on \S+ sees other {other} than .* under the same path"):
        predict(make_sdata(image, labels), small, threads, checkpoint=tmp_path)
    assert not list(tmp_path.glob("tile-*.npz"))


def test_a_worker_that_does_not_reach_the_pixels_is_named(data, make_sdata, small, threads):
    image, labels = data
    labels = da.from_array(Elsewhere(labels, None), chunks=64, asarray=False)
    with pytest.raises(OSError, match=r"Worker \S+ on \S+: Labels 'fov_cells' cannot be read"):
        predict(make_sdata(image, labels), small, threads)


def when_read(image, action):
    """An image that does something when its last block is first read on a worker."""
    return failing(image, lambda n: n == 1 and action())


def test_ctrl_c_says_how_to_go_on_and_drops_the_rest(data, make_sdata, small, threads, tmp_path):
    image, labels = data
    image = when_read(image, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"Stopped\. \d+ of 35 tiles are kept in .*: the same call goes on"):
        predict(make_sdata(image, labels), small, threads, checkpoint=tmp_path)
    wait_until(lambda: not any("nimbus-sd-tile" in str(key) for key in list(threads.cluster.scheduler.tasks)))
    assert len(list(tmp_path.glob("tile-*.npz"))) < 35
    assert_same(predict(make_sdata(*data), small, threads, checkpoint=tmp_path), predict(make_sdata(*data), small))


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_cluster_that_is_closed_is_an_error_that_says_how_to_go_on(data, make_sdata, small, tmp_path):
    image, labels = data
    folder, reading, closed = tmp_path / "checkpoint", tmp_path / "reading", tmp_path / "closed"

    def hold():
        reading.touch()
        wait_until(closed.exists)

    def close():
        wait_until(reading.exists)
        client.close()
        closed.touch()

    sdata = make_sdata(when_read(image, hold), labels)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as lost,
        Client(lost, set_as_default=False) as client,
    ):
        threading.Thread(target=close, daemon=True).start()
        with pytest.raises(ConnectionError, match="The cluster was closed, or cannot be reached") as error:
            predict(sdata, small, client, checkpoint=folder)
        wait_until(closed.exists)
    kept = list(folder.glob("tile-*.npz"))
    assert len(kept) < 35 and f"{len(kept)} of 35 tiles are kept" in error.value.__notes__[0]


@pytest.mark.parametrize(
    "client, error, message",
    [("tcp://127.0.0.1:8786", TypeError, "`client` is a str; pass a dask.distributed Client"), (3, TypeError, "a int")],
)
def test_clients_that_are_none(sdata, deep, client, error, message):
    with pytest.raises(error, match=message):
        predict(sdata, deep, client)


def test_closed_clients(sdata, deep, threads):
    client = Client(threads.cluster, set_as_default=False)
    client.close()
    with pytest.raises(ValueError, match="`client` is closed, not running"):
        predict(sdata, deep, client)


@pytest.fixture(scope="module")
def processes():
    """Two workers in processes of their own."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", memory_limit=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def alone_with_two(data, make_sdata, deep):
    """As scored without a cluster, with as many threads as those workers have."""
    torch.set_num_threads(2)
    yield predict(make_sdata(*data), deep)
    torch.set_num_threads(1)


@pytest.mark.slow
def test_processes_give_the_same_bytes(sdata, deep, alone, alone_with_two, processes):
    scored = predict(sdata, deep, processes)
    # Dask would allow one.
    assert set(processes.run(torch.get_num_threads).values()) == {2}
    assert_same(scored, alone_with_two)
    # Of float32, whatever the number of threads.
    np.testing.assert_allclose(scored.layers["nimbus"], alone.layers["nimbus"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="workers are killed")
def test_a_worker_that_is_killed_half_way_is_not_missed(sdata, deep, alone_with_two, processes, tmp_path):
    sdata.write(tmp_path / "store.zarr")
    workers, done = processes.run(os.getpid), []

    def kill_one():
        wait_until(lambda: len(list((tmp_path / "checkpoint").glob("tile-*.npz"))) >= 5)
        os.kill(next(iter(workers.values())), signal.SIGKILL)
        done.append(len(list((tmp_path / "checkpoint").glob("tile-*.npz"))))

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    adata = predict(read_zarr(tmp_path / "store.zarr"), deep, processes, checkpoint=tmp_path / "checkpoint")
    killer.join(timeout=10)
    assert 5 <= done[0] < 35
    assert_same(adata, alone_with_two)


DOCUMENT = Path(__file__).parents[1] / "docs" / "cluster.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_calls_in_the_document_have_parameters_that_exist(block):
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    calls = [call for call in calls if ast.unparse(call.func) == "ns.predict"]
    assert calls
    for call in calls:
        arguments = [ast.unparse(argument) for argument in call.args]
        inspect.signature(ns.predict).bind(*arguments, **{keyword.arg: None for keyword in call.keywords})


@pytest.mark.slow
def test_the_script_in_the_document_runs(sdata, tmp_path):
    (script,) = (block for block in BLOCKS if "LocalCluster(" in block)
    sdata.write(tmp_path / "slide.zarr")
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-W", "ignore", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    table = read_zarr(tmp_path / "slide.zarr").tables["table"]
    assert table.layers["nimbus"].shape[1] == 2 and not table.to_df("nimbus").isna().any(axis=None)
