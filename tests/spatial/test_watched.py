"""A store that goes away while it is read is an error: zarr itself would fill in zeros."""

import asyncio
import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from nimbus_sd.spatial import find_regions, watched

ALL = slice(None)
IMAGE = np.arange(1, 2 * 8 * 8 + 1, dtype=np.uint16).reshape(2, 8, 8)


def region_of(image, labels):
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"))},
        labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"))},
    )
    (region,) = find_regions(sdata, pixel_size=0.5)
    return region


def written(store, path, pixels, **settings):
    zarr.create_array(store, name=path, data=pixels, chunks=(*[1] * (pixels.ndim - 2), 4, 4), **settings)
    return zarr.open_array(store, path=path, mode="r")


@pytest.fixture
def folder(tmp_path):
    for path, pixels in {"image": IMAGE, "cells": IMAGE[0]}.items():
        written(tmp_path / "store.zarr", path, pixels)
    return tmp_path / "store.zarr"


def opened_by_xarray(folder):
    xr.Dataset({"image": (("c", "y", "x"), IMAGE)}).to_zarr(folder, zarr_format=3, consolidated=False)
    return xr.open_zarr(folder, chunks={}, consolidated=False)["image"].data


@pytest.mark.parametrize(
    "image",
    [
        lambda folder: da.from_zarr(folder / "image"),
        lambda folder: da.from_zarr(zarr.open_array(folder / "image", mode="r"), inline_array=True),
        lambda folder: dask.optimize(da.from_zarr(folder / "image"))[0],
        lambda folder: da.from_zarr(folder / "image").rechunk((2, 3, 3)) * 2 + 1,
        lambda folder: da.from_zarr(written(folder, "v2", IMAGE, zarr_format=2)),
        lambda folder: da.from_zarr(written(folder, "sharded", IMAGE, shards=(1, 8, 8))),
        opened_by_xarray,
    ],
    ids=["plain", "inline", "optimized", "computed", "format 2", "sharded", "xarray"],
)
def test_what_is_gone_is_an_error_however_it_was_opened(folder, image):
    region = region_of(image(folder), da.from_zarr(folder / "cells"))
    assert region.read_image([0, 1], ALL, ALL).all() and region.read_labels(ALL, ALL).all()
    (folder.parent / "away").mkdir()
    folder.rename(folder.parent / "away" / "store.zarr")
    with pytest.raises(FileNotFoundError, match=r"Image 'image', channel\(s\) '0', '1', .*went away while it was read"):
        region.read_image([0, 1], slice(0, 3), ALL)
    with pytest.raises(FileNotFoundError, match=r"Labels 'cells' cannot be read .*cells/zarr\.json went away"):
        region.read_labels(ALL, slice(0, 3))
    # On another machine.
    with pytest.raises(FileNotFoundError, match="went away"):
        pickle.loads(pickle.dumps(region)).read_labels(ALL, ALL)


@pytest.mark.parametrize("reads", [1, 2, 3, 4])
def test_an_absence_is_seen_however_short_it_is(folder, monkeypatch, reads):
    region, get, count = region_of(IMAGE, da.from_zarr(folder / "cells")), LocalStore.get, 0

    async def away_for_a_while(self, *args):
        nonlocal count
        count += 1
        return None if 2 <= count < 2 + reads else await get(self, *args)

    monkeypatch.setattr(LocalStore, "get", away_for_a_while)
    with pytest.raises(FileNotFoundError, match="went away while it was read"):
        region.read_labels(ALL, ALL)


def test_chunks_that_were_never_written_are_zeros_and_others_are_read_once(tmp_path, monkeypatch):
    pixels = IMAGE[0].copy()
    pixels[4:, 4:] = 0
    array, get, keys = written(tmp_path, "cells", pixels), LocalStore.get, []
    assert not (tmp_path / "cells" / "c" / "1" / "1").exists()
    region = region_of(IMAGE, da.from_zarr(array))

    async def counted(self, key, *args):
        keys.append(key)
        return await get(self, key, *args)

    monkeypatch.setattr(LocalStore, "get", counted)
    np.testing.assert_array_equal(region.read_labels(ALL, ALL), pixels)
    assert sorted(keys) == sorted(
        [f"cells/c/{chunk}" for chunk in ("0/0", "0/1", "1/0", "1/1", "1/1")] + ["cells/zarr.json"]
    )


@pytest.mark.parametrize("make", [MemoryStore, lambda: FsspecStore.from_url("memory://watched")], ids=["memory", "url"])
def test_stores_that_are_no_folders(make):
    store = make()
    region = region_of(da.from_zarr(written(store, "image", IMAGE)), IMAGE[0])
    np.testing.assert_array_equal(region.read_image([0, 1], ALL, ALL), IMAGE)
    asyncio.run(store.clear())
    with pytest.raises(FileNotFoundError, match=r"image/zarr\.json went away"):
        region.read_image([0], ALL, ALL)


def test_a_store_that_may_not_be_read_any_more(folder, monkeypatch):
    async def refused(self, *args):
        raise PermissionError("permission denied")

    region = region_of(IMAGE, da.from_zarr(folder / "cells"))
    monkeypatch.setattr(LocalStore, "get", refused)
    with pytest.raises(PermissionError, match="Labels 'cells' cannot be read"):
        region.read_labels(ALL, ALL)


def test_arrays_that_are_read_without_dask(folder):
    array = watched(zarr.open_array(folder / "image", mode="r"))
    np.testing.assert_array_equal(array[1], IMAGE[1])
    folder.rename(folder.with_name("away.zarr"))
    with pytest.raises(FileNotFoundError, match="went away"):
        array[1]
