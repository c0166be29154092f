"""Tables saved into stores: what is there after a kill, a full disk, or from several threads."""

import contextlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from spatialdata import SpatialData, read_zarr
from spatialdata._io.format import SpatialDataContainerFormatV01
from spatialdata.models import TableModel
from zarr.storage import LocalStore

from nimbus_sd import spatial
from nimbus_sd.io import restore, save_table
from nimbus_sd.tl import cell_features

IDS = np.array([2, 5])
LABELS = np.repeat(IDS, 8).reshape(4, 4).astype(np.int32)
FORMS = ["consolidated", "plain", "zarr 2"]


def table(value: float) -> ad.AnnData:
    obs = pd.DataFrame({"region": pd.Categorical(["fov_cells"] * 2), "instance_id": IDS}, index=["a", "b"])
    adata = ad.AnnData(np.full((2, 1), value, np.float32), obs=obs, var=pd.DataFrame(index=["CD3"]))
    return TableModel.parse(adata, region="fov_cells", region_key="region", instance_key="instance_id")


@pytest.fixture(scope="module")
def stores(make_sdata, tmp_path_factory) -> dict[str, Path]:
    paths = {}
    for form in FORMS:
        sdata = make_sdata(np.ones((1, 4, 4), np.uint16), LABELS)
        sdata.tables["mine"] = table(7)
        paths[form] = tmp_path_factory.mktemp("stores") / "store.zarr"
        formats = [SpatialDataContainerFormatV01()] if form == "zarr 2" else None
        sdata.write(paths[form], consolidate_metadata=form != "plain", sdata_formats=formats)
    return paths


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(params=["consolidated"])
def store(stores, request, tmp_path) -> Path:
    return Path(shutil.copytree(stores[request.param], tmp_path / "store.zarr"))


def values(store: Path) -> dict[str, float]:
    return {name: float(adata.X[0, 0]) for name, adata in read_zarr(store, selection=("tables",)).tables.items()}


def save(store: Path, value: float, **options) -> None:
    sdata = read_zarr(store)
    sdata.tables["table"] = table(value)
    save_table(sdata, "table", **options)


@pytest.mark.parametrize("store", FORMS, indirect=True)
def test_a_table_is_saved_and_saved_again(store):
    before = sorted(path.name for path in store.iterdir())
    for value in (1, 2):
        save(store, value)
        assert values(store) == {"mine": 7, "table": value} and list(read_zarr(store).images) == ["fov"]
    assert sorted(path.name for path in store.iterdir()) == before
    with pytest.raises(FileExistsError, match="has a table 'table' already"):
        save(store, 3, overwrite=False)
    assert values(store) == {"mine": 7, "table": 2}


class Killed(BaseException):
    """Nothing is written or tidied up after it."""


@pytest.fixture
def kill(monkeypatch):
    """Let a call die at its nth step on disk; how many steps it came to."""

    def kill(n, call) -> int:
        steps = 0

        def counted(what):
            def step(*args, **kwargs):
                nonlocal steps
                steps += 1
                if steps >= n:  # and ever after
                    raise Killed
                return what(*args, **kwargs)

            return step

        write = LocalStore.set

        async def written(*args, **kwargs):
            await counted(write)(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "set", written)
            for owner, name in ((Path, "rename"), (shutil, "rmtree")):
                patch.setattr(owner, name, counted(getattr(owner, name)))
            with contextlib.suppress(Killed):
                call()
        return min(steps, n)

    return kill


@pytest.mark.parametrize("replaced, store", [(False, "consolidated"), (True, "plain")], indirect=["store"])
def test_a_kill_at_any_step_leaves_the_old_table_or_the_new_one(store, kill, replaced):
    if replaced:
        save(store, 1)
    whole = shutil.copytree(store, store.with_name("whole.zarr"))
    old, new = values(whole), {"mine": 7, "table": 2}
    sdata = read_zarr(store)
    sdata.tables["table"] = table(2)
    total = kill(10**6, lambda: save_table(sdata))
    met = []
    # All steps of the end.
    for n in (1, total // 2, *range(total - 8, total + 1)):
        shutil.rmtree(store)
        shutil.copytree(whole, store)
        assert kill(n, lambda: save_table(sdata)) == n
        finished = restore(store)
        met.append(values(store))
        assert met[-1] in (old, new) and not (store / ".nimbus-sd").exists()
        assert not finished or (finished == {"table"} and met[-1] == new)
    assert old in met and new in met


def test_the_next_call_tidies_up_and_a_full_disk_leaves_the_store_as_it_was(store, kill, monkeypatch):
    save(store, 0)
    assert kill(20, lambda: save(store, 2)) == 20 and (store / ".nimbus-sd").exists()
    assert values(store) == {"mine": 7, "table": 0}
    save(store, 1)
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space"):
        save(store, 2)
    assert values(store) == {"mine": 7, "table": 1} and not (store / ".nimbus-sd").exists()


def test_what_cannot_be_saved_is_said(store):
    sdata = read_zarr(store)
    with pytest.raises(KeyError, match="No table 'tabel'; there is: 'mine'"):
        save_table(sdata, "tabel")
    sdata.path = None
    with pytest.raises(ValueError, match=r"in memory only.*sdata\.write"):
        save_table(sdata, "mine")
    sdata = SpatialData(tables={"fov": table(1)})
    sdata.path = store
    with pytest.raises(ValueError, match="has 'fov' among its images"):
        save_table(sdata, "fov")


def test_threads_save_one_after_another(store):
    sdata = read_zarr(store)
    for i, name in enumerate("ab"):
        sdata.tables[name] = table(i)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: save_table(sdata, name), "abab"))
    assert values(store) == {"mine": 7, "a": 0, "b": 1}


def test_features_of_a_table_that_was_replaced_meanwhile(make_sdata, monkeypatch):
    sdata = make_sdata(np.ones((2, 4, 4), np.uint16), LABELS)
    sdata.tables["table"] = table(1)
    read = spatial.read_outlines

    def meanwhile(*args):
        sdata.tables["table"] = table(2)
        return read(*args)

    monkeypatch.setattr(spatial, "read_outlines", meanwhile)
    with pytest.raises(RuntimeError, match="Another thread replaced table 'table'"):
        cell_features(sdata, channels=["CD3"], pixel_size=0.5, progress=False)
    assert not sdata.tables["table"].layers
