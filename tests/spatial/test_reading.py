"""Damaged stores, and stores that go away while they are read, are an error: zarr itself would fill in zeros."""

import asyncio
import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from spatialdata import read_zarr
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from nimbus_sd.spatial import find_regions

ALL = slice(None)
IMAGE = np.arange(1, 2 * 8 * 8 + 1, dtype=np.uint16).reshape(2, 8, 8)


def written(store, path, pixels, **settings):
    zarr.create_array(store, name=path, data=pixels, chunks=(*[1] * (pixels.ndim - 2), 4, 4), **settings)
    return zarr.open_array(store, path=path, mode="r")


@pytest.fixture
def folder(tmp_path):
    for path, pixels in {"image": IMAGE, "cells": IMAGE[0]}.items():
        written(tmp_path / "store.zarr", path, pixels)
    return tmp_path / "store.zarr"


def cells(folder):
    return da.from_zarr(zarr.open_array(folder, path="cells", mode="r"))


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: b"x" * len(data)])
@pytest.mark.filterwarnings("ignore:zarr v3 autosharding")
def test_damaged_chunks_are_named(build, tmp_path, damage):
    rng = np.random.default_rng(0)
    image = da.from_array(rng.integers(0, 999, (3, 64, 64)).astype(np.uint16), (1, 32, 32))
    labels = da.from_array(rng.integers(0, 999, (64, 64)), (32, 32))
    build({"image": image}, {"cells": labels}, channels=["a", "b", "c"]).write(tmp_path / "store.zarr")
    for name in ("images/image", "labels/cells"):
        chunks = (tmp_path / "store.zarr" / name).glob("*/c/**/1/0")
        chunk = next(path for path in chunks if name == "labels/cells" or path.parts[-3] == "1")
        chunk.write_bytes(damage(chunk.read_bytes()))
    (region,) = find_regions(read_zarr(tmp_path / "store.zarr"), channels=["c", "b"], pixel_size=0.5)
    with pytest.raises(OSError, match=r"Image 'image', channel\(s\) 'b', cannot be read in rows 9 to 50, columns 0"):
        region.read_image([0, 1], slice(9, 50), ALL)
    with pytest.raises(OSError, match=r"Labels 'cells' cannot be read in rows 0 to 64, columns 0 to 1 \(.*Error: "):
        region.read_labels(ALL, slice(0, 1))
    assert region.read_image([0], ALL, ALL).shape == (1, 64, 64)
    assert region.read_image([0, 1], slice(0, 32), ALL).shape == (2, 32, 64)


def opened_by_xarray(folder):
    xr.Dataset({"image": (("c", "y", "x"), IMAGE)}).to_zarr(folder / "xarray", zarr_format=3, consolidated=False)
    return xr.open_zarr(folder / "xarray", chunks={}, consolidated=False)["image"].data


@pytest.mark.parametrize(
    "image",
    [
        lambda folder: da.from_zarr(zarr.open_array(folder / "image", mode="r"), inline_array=True),
        lambda folder: dask.optimize(da.from_zarr(folder / "image"))[0],
        lambda folder: da.from_zarr(folder / "image").rechunk((2, 3, 3)) * 2 + 1,
        lambda folder: da.from_zarr(written(folder, "v2", IMAGE, zarr_format=2)),
        lambda folder: da.from_zarr(written(folder, "sharded", IMAGE, shards=(1, 8, 8))),
        opened_by_xarray,
    ],
    ids=["inline", "optimized", "computed", "format 2", "sharded", "xarray"],
)
def test_what_is_gone_is_an_error_however_it_was_opened(region_of, folder, image):
    region = region_of(image(folder), cells(folder))
    assert region.read_image([0, 1], ALL, ALL).all() and region.read_labels(ALL, ALL).all()
    (folder.parent / "away").mkdir()
    folder.rename(folder.parent / "away" / "store.zarr")
    with pytest.raises(FileNotFoundError, match=r"Image 'image', channel\(s\) '0', '1', .*was away while it was read"):
        region.read_image([0, 1], slice(0, 3), ALL)
    with pytest.raises(FileNotFoundError, match=r"Labels 'cells' cannot be read .*cells/zarr\.json is not there"):
        region.read_labels(ALL, slice(0, 3))
    # On another machine.
    with pytest.raises(FileNotFoundError, match="was away while"):
        pickle.loads(pickle.dumps(region)).read_labels(ALL, ALL)


@pytest.mark.parametrize("reads", [1, 2, 3, 4])
def test_an_absence_is_seen_however_short_it_is(region_of, folder, monkeypatch, reads):
    region, get, count = region_of(IMAGE, cells(folder)), LocalStore.get, 0

    async def away_for_a_while(self, *args, **settings):
        nonlocal count
        count += 1
        return None if 2 <= count < 2 + reads else await get(self, *args, **settings)

    monkeypatch.setattr(LocalStore, "get", away_for_a_while)
    with pytest.raises(FileNotFoundError, match="was away while it was read"):
        region.read_labels(ALL, ALL)


def test_chunks_that_were_never_written_are_zeros_and_others_are_read_once(region_of, tmp_path, monkeypatch):
    pixels = IMAGE[0].copy()
    pixels[4:, 4:] = 0
    region, get, keys = region_of(IMAGE, da.from_zarr(written(tmp_path, "cells", pixels))), LocalStore.get, []
    assert not (tmp_path / "cells" / "c" / "1" / "1").exists()

    async def counted(self, key, *args, **settings):
        keys.append(key.removeprefix("cells/"))
        return await get(self, key, *args, **settings)

    monkeypatch.setattr(LocalStore, "get", counted)
    np.testing.assert_array_equal(region.read_labels(ALL, ALL), pixels)
    assert sorted(keys) == ["c/0/0", "c/0/1", "c/1/0", "c/1/1", "c/1/1", "zarr.json"]


@pytest.mark.parametrize("make", [MemoryStore, lambda: FsspecStore.from_url("memory://watched")], ids=["memory", "url"])
def test_stores_that_are_no_folders(region_of, make):
    store = make()
    region = region_of(da.from_zarr(written(store, "image", IMAGE)), IMAGE[0])
    np.testing.assert_array_equal(region.read_image([0, 1], ALL, ALL), IMAGE)
    asyncio.run(store.clear())
    with pytest.raises(FileNotFoundError, match=r"image/zarr\.json is not there"):
        region.read_image([0], ALL, ALL)


@pytest.mark.parametrize("error", [PermissionError, MemoryError])
def test_other_errors_keep_their_kind(region_of, folder, monkeypatch, error):
    async def refused(self, *args, **settings):
        raise error("refused")

    region = region_of(IMAGE, cells(folder))
    monkeypatch.setattr(LocalStore, "get", refused)
    with pytest.raises(error, match="refused" if error is MemoryError else "Labels 'cells' cannot be read"):
        region.read_labels(ALL, ALL)
