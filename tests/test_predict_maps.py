"""Score maps: lazy, the ones that the scores come from, in the right place, and in memory only."""

import hashlib
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from spatialdata import SpatialData, get_extent, read_zarr
from spatialdata.transformations import Affine, Identity, Scale, Translation

import nimbus_sd as ns

FACTORS = {"DAPI": 120.0, "CD3": 100.0}


def predict(sdata, model, *keys, **settings):
    defaults = {"normalization": FACTORS, "tta": False, "progress": False, "pixel_size": 0.5, "save_maps": True}
    return ns.predict(sdata, *keys, model=model, **defaults | settings)


def mean_over_cells(score_map, labels, pixel_size):
    """Enlarge by nearest neighbour, average over each cell."""
    index = np.ix_(*(np.floor(np.arange(n) * pixel_size + 1e-9).astype(int) for n in labels.shape))
    ids = np.unique(labels[labels > 0])
    return np.stack([ndimage.mean(one.astype(float)[index], labels, ids) for one in score_map], axis=1)


@pytest.mark.parametrize("pixel_size, tile_size", [(0.5, None), (0.5, 16), (0.38, 48), (1.7, 100)])
def test_the_map_averaged_over_cells_is_the_scores(tissue, make_sdata, deep, pixel_size, tile_size):
    image, labels = tissue((123, 87), 2)
    sdata = make_sdata(image, labels)
    adata = predict(sdata, deep, pixel_size=pixel_size, tile_size=tile_size)
    element = sdata.images["fov_nimbus"]
    assert element.dtype == np.float32 and element.c.values.tolist() == ["DAPI", "CD3"]
    values = element.data.compute()
    assert values.shape == (2, *(int(np.ceil(n * pixel_size - 1e-9)) for n in image.shape[1:]))
    assert values.min() >= 0 and values.max() <= 1
    # The network sees one channel at a time here, several there.
    np.testing.assert_allclose(mean_over_cells(values, labels, pixel_size), adata.layers["nimbus"], atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
def test_the_map_does_not_depend_on_the_tiles(tissue, make_sdata, deep):
    """Also where there is no cell for many tiles."""
    image, labels = tissue((203, 157), 1)
    labels[:, 60:] = 0
    maps = []
    for tile_size in (None, 16):
        sdata = make_sdata(image, labels)
        predict(sdata, deep, tile_size=tile_size)
        maps.append(sdata.images["fov_nimbus"].data.compute())
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)
    assert maps[0][0, :, 50:].std() > 0.005


def test_the_map_is_lazy(tissue, make_sdata, deep):
    image, labels = tissue((203, 157), 2)
    read = []

    def block(values, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return values

    lazy = da.from_array(image, chunks=(1, 203, 157)).map_blocks(block, dtype=image.dtype)
    plain, mapped = (make_sdata(lazy, labels) for _ in range(2))
    predict(plain, deep, save_maps=False)
    without = len(read)
    predict(mapped, deep, tile_size=48)
    read.clear()
    predict(mapped, deep)
    assert len(read) == without
    element = mapped.images["fov_nimbus"]
    # A tile and channel alone can be had.
    read.clear()
    element[1, :5, :5].compute()
    assert {location[0] for location in read} == {1}


def test_a_channel_without_a_factor_has_no_map(tissue, make_sdata, deep):
    image, labels = tissue((60, 60), 2)
    image[1] = 0
    sdata = make_sdata(image, labels)
    with pytest.warns(UserWarning, match="No pixel above 0"):
        predict(sdata, deep)
    values = sdata.images["fov_nimbus"].data.compute()
    assert np.isnan(values[1]).all() and np.isfinite(values[0]).all()


def test_the_map_lies_on_the_image(tissue, make_sdata, deep):
    image, labels = tissue((120, 80), 2)
    turned = Affine([[0, 0.5, 3], [-0.5, 0, 90], [0, 0, 1]], input_axes=("y", "x"), output_axes=("y", "x"))
    places = {
        "slide": Identity(),
        "um": Scale([0.5, 0.5], ("y", "x")),
        "lab": Translation([7, 9], ("y", "x")),
        "t": turned,
    }
    sdata = make_sdata({"a": image}, {"a_cells": labels}, transformations={"a": places, "a_cells": places})
    predict(sdata, deep, pixel_size=None)
    assert sdata.images["a_nimbus"].shape == (2, 60, 40)
    for system in places:
        one, other = (get_extent(sdata.images[key], coordinate_system=system) for key in ("a", "a_nimbus"))
        for axis in ("y", "x"):
            np.testing.assert_allclose(other[axis], one[axis], atol=1e-9)


def test_the_map_lies_on_an_image_that_is_coarser_than_its_labels(tissue, make_sdata, deep):
    image, labels = tissue((60, 50), 2)
    half = Scale([0.5, 0.5], ("y", "x"))
    sdata = make_sdata(
        {"a": image}, {"a_cells": labels.repeat(2, 0).repeat(2, 1)}, transformations={"a_cells": {"a": half}}
    )
    predict(sdata, deep, pixel_size=1.0)
    assert sdata.images["a_nimbus"].shape == (2, 60, 50)
    one, other = (get_extent(sdata.images[key], coordinate_system="a") for key in ("a", "a_nimbus"))
    assert one == other


@pytest.mark.filterwarnings("ignore:.* keeps scores made otherwise")
def test_a_second_call_replaces_the_map(tissue, make_sdata, deep, small):
    image, labels = tissue((80, 80), 2)
    sdata = make_sdata(image, labels)
    predict(sdata, small)
    first = sdata.images["fov_nimbus"].data.compute()
    predict(sdata, deep, channels=["CD3"])
    second = sdata.images["fov_nimbus"]
    assert second.c.values.tolist() == ["CD3"]
    assert not np.allclose(second.data.compute()[0], first[1])
    predict(sdata, small, key_added="small")
    assert {"fov_nimbus", "fov_small"} < set(sdata.images)
    predict(sdata, small, key_added="small")
    np.testing.assert_allclose(sdata.images["fov_small"].data.compute(), first, atol=1e-5)


def test_maps_of_several_regions(tissue, make_sdata, deep):
    first, second = tissue((90, 80), 2, seed=1), tissue((60, 100), 2, seed=2)
    sdata = make_sdata({"a": first[0], "b": second[0]}, {"a_cells": first[1], "b_cells": second[1]})
    adata = predict(sdata, deep)
    for key, (_, labels) in (("a", first), ("b", second)):
        own = adata[adata.obs["region"] == f"{key}_cells"]
        values = sdata.images[f"{key}_nimbus"].data.compute()
        np.testing.assert_allclose(mean_over_cells(values, labels, 0.5), own.layers["nimbus"], atol=1e-5)


@pytest.mark.parametrize("kind", ["image", "labels", "case", "table"])
def test_names_that_are_taken_are_found_before_the_work(tissue, make_sdata, deep, kind):
    image, labels = tissue((60, 60), 2)
    name = {"image": "fov_seg", "labels": "fov_seg", "case": "FOV_Seg", "table": "fov_seg"}[kind]
    images, cells = {"fov": image}, {"fov_cells": labels}
    (cells if kind == "labels" else images).update(
        {} if kind == "table" else {name: image if kind != "labels" else labels}
    )
    sdata = make_sdata(images, cells)
    settings = {"table_key": "fov_seg"} if kind == "table" else {}
    before = {key: element for _, key, element in sdata.gen_elements()}
    with pytest.raises(ValueError, match=f"There is an element '{name}' already"):
        predict(sdata, deep, "fov", "fov_cells", key_added="seg", **settings)
    assert {key: element for _, key, element in sdata.gen_elements()}.keys() == before.keys()
    assert all(element is before[key] for _, key, element in sdata.gen_elements())


def test_two_regions_of_one_image_cannot_share_a_map(tissue, make_sdata, deep):
    image, labels = tissue((60, 60), 2)
    sdata = make_sdata(
        {"a": image}, {"a_cells": labels, "a_nuclei": labels}, transformations={"a_nuclei": {"a": Identity()}}
    )
    with pytest.raises(ValueError, match="Call `predict` once for each labels element"):
        predict(sdata, deep)
    assert set(sdata.images) == {"a"} and not sdata.tables
    predict(sdata, deep, "a", "a_cells", key_added="whole")
    predict(sdata, deep, "a", "a_nuclei", key_added="nuclear")
    assert set(sdata.images) == {"a", "a_whole", "a_nuclear"}


def listing(store: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(store)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


@pytest.mark.filterwarnings("ignore:zarr v3 autosharding")
def test_nothing_on_disk_changes_and_the_map_can_be_written(tissue, make_sdata, deep, tmp_path):
    image, labels = tissue((123, 87), 2)
    store = tmp_path / "store.zarr"
    make_sdata(image, labels).write(store)
    before = listing(store)
    sdata = read_zarr(store)
    for save_maps in (False, True, True):
        adata = predict(sdata, deep, save_maps=save_maps, tile_size=48)
        assert listing(store) == before

    sdata.write_element("fov_nimbus")
    sdata.write_element("table")
    back = read_zarr(store)
    np.testing.assert_array_equal(back.tables["table"].layers["nimbus"], adata.layers["nimbus"])
    values = back.images["fov_nimbus"].data.compute()
    np.testing.assert_array_equal(values, sdata.images["fov_nimbus"].data.compute())
    np.testing.assert_allclose(mean_over_cells(values, labels, 0.5), adata.layers["nimbus"], atol=1e-5)
    assert get_extent(back.images["fov_nimbus"], coordinate_system="fov") == {"x": (0, 88), "y": (0, 124)}

    sdata.write(tmp_path / "copy.zarr")
    copy = read_zarr(tmp_path / "copy.zarr")
    np.testing.assert_array_equal(copy.images["fov_nimbus"].data.compute(), values)
    # The map is no candidate for the image of the labels.
    again = predict(copy, deep, save_maps=False)
    np.testing.assert_allclose(again.layers["nimbus"], adata.layers["nimbus"], atol=1e-5)
    assert isinstance(copy, SpatialData)


def test_a_map_of_a_store_that_went_away_is_an_error(tissue, make_sdata, small, tmp_path):
    make_sdata(*tissue()).write(tmp_path / "store.zarr")
    sdata = read_zarr(tmp_path / "store.zarr")
    predict(sdata, small)
    (tmp_path / "store.zarr").rename(tmp_path / "moved.zarr")
    with pytest.raises(FileNotFoundError, match="was away while it was read"):
        sdata.images["fov_nimbus"].data.compute()
