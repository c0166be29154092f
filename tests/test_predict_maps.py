"""Score maps: lazy, the ones that the scores come from, in the right place, and in memory only."""

import hashlib
from functools import partial
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import scoring
from scipy import ndimage
from spatialdata import get_extent, read_zarr
from spatialdata.transformations import Affine, Identity, Scale, Translation

predict = partial(scoring.predict, save_maps=True)


def values_of(sdata, key="fov_nimbus"):
    return sdata.images[key].data.compute()


def mean_over_cells(values, labels, pixel_size):
    """Enlarge by nearest neighbour, average over each cell."""
    index = np.ix_(*(np.floor(np.arange(n) * pixel_size + 1e-9).astype(int) for n in labels.shape))
    ids = np.unique(labels[labels > 0])
    return np.stack([ndimage.mean(channel.astype(float)[index], labels, ids) for channel in values], axis=1)


@pytest.mark.parametrize("pixel_size, tile_size", [(0.5, None), (0.5, 16), (0.38, 48), (1.7, 100)])
def test_the_map_averaged_over_cells_is_the_scores(tissue, make_sdata, deep, pixel_size, tile_size):
    fovs = {"a": tissue((123, 87), 2, seed=1), "b": tissue((60, 100), 2, seed=2)}
    sdata = make_sdata({k: fov[0] for k, fov in fovs.items()}, {f"{k}_cells": fov[1] for k, fov in fovs.items()})
    adata = predict(sdata, deep, pixel_size=pixel_size, tile_size=tile_size)
    for key, (image, labels) in fovs.items():
        element, values = sdata.images[f"{key}_nimbus"], values_of(sdata, f"{key}_nimbus")
        assert element.dtype == np.float32 and element.c.values.tolist() == ["DAPI", "CD3"]
        assert values.shape == (2, *(int(np.ceil(n * pixel_size - 1e-9)) for n in image.shape[1:]))
        assert values.min() >= 0 and values.max() <= 1
        # The network sees one channel at a time here, several there.
        scores = adata[adata.obs["region"] == f"{key}_cells"].layers["nimbus"]
        np.testing.assert_allclose(mean_over_cells(values, labels, pixel_size), scores, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
def test_the_map_does_not_depend_on_the_tiles(tissue, make_sdata, deep):
    """Also where there is no cell for many tiles."""
    image, labels = tissue((203, 157), 1)
    labels[:, 60:] = 0
    maps = []
    for tile_size in (None, 16):
        sdata = make_sdata(image, labels)
        predict(sdata, deep, tile_size=tile_size)
        maps.append(values_of(sdata))
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)
    assert maps[0][0, :, 50:].std() > 0.005


def test_the_map_is_lazy(tissue, make_sdata, small):
    image, labels = tissue((203, 157), 2)
    read = []

    def block(values, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return values

    lazy = da.from_array(image, chunks=(1, 203, 157)).map_blocks(block, dtype=image.dtype)
    sdata = make_sdata(lazy, labels)
    predict(sdata, small, save_maps=False)
    without = len(read)
    read.clear()
    predict(sdata, small)
    assert len(read) == without
    # A tile and channel alone can be had.
    read.clear()
    sdata.images["fov_nimbus"][1, :5, :5].compute()
    assert {location[0] for location in read} == {1}


def test_a_channel_without_a_factor_has_no_map(tissue, make_sdata, small):
    image, labels = tissue((60, 60), 2)
    image[1] = 0
    sdata = make_sdata(image, labels)
    with pytest.warns(UserWarning, match="No pixel above 0"):
        predict(sdata, small)
    values = values_of(sdata)
    assert np.isnan(values[1]).all() and np.isfinite(values[0]).all()


TURNED = Affine([[0, 0.5, 3], [-0.5, 0, 90], [0, 0, 1]], input_axes=("y", "x"), output_axes=("y", "x"))
HALF = Scale([0.5, 0.5], ("y", "x"))
PLACES = {"slide": Identity(), "um": HALF, "lab": Translation([7, 9], ("y", "x")), "t": TURNED}


@pytest.mark.parametrize("repeat", [1, 2])
def test_the_map_lies_on_the_image(tissue, make_sdata, small, repeat):
    """Also on one that is coarser than its labels."""
    image, labels = tissue((60, 50), 2)
    places = {"a": PLACES, "a_cells": PLACES if repeat == 1 else {"slide": HALF}}
    sdata = make_sdata({"a": image}, {"a_cells": labels.repeat(repeat, 0).repeat(repeat, 1)}, transformations=places)
    predict(sdata, small, pixel_size=None)
    assert sdata.images["a_nimbus"].shape == (2, 30, 25)
    for system in places["a_cells"]:
        of_image, of_map = (get_extent(sdata.images[key], coordinate_system=system) for key in ("a", "a_nimbus"))
        for axis in ("y", "x"):
            np.testing.assert_allclose(of_map[axis], of_image[axis], atol=1e-9)


@pytest.mark.filterwarnings("ignore:.* keeps scores made otherwise")
def test_a_second_call_replaces_the_map(tissue, make_sdata, deep, small):
    sdata = make_sdata(*tissue((80, 80), 2))
    predict(sdata, small)
    first = values_of(sdata)
    predict(sdata, deep, channels=["CD3"])
    assert sdata.images["fov_nimbus"].c.values.tolist() == ["CD3"]
    assert not np.allclose(values_of(sdata)[0], first[1])
    for _ in range(2):
        predict(sdata, small, key_added="small")
        assert {"fov_nimbus", "fov_small"} < set(sdata.images)
        np.testing.assert_allclose(values_of(sdata, "fov_small"), first, atol=1e-5)


@pytest.mark.parametrize(
    "kind, name, settings",
    [("labels", "fov_Seg", {}), ("images", "FOV_seg", {}), ("table", "fov_Seg", {"table_key": "fov_Seg"})],
)
def test_names_that_are_taken_are_found_before_the_work(tissue, make_sdata, small, kind, name, settings):
    image, labels = tissue((60, 60), 2)
    sdata = make_sdata(
        {"fov": image} | ({name: image} if kind == "images" else {}),
        {"fov_cells": labels} | ({name: labels} if kind == "labels" else {}),
    )
    before = [(key, id(element)) for _, key, element in sdata.gen_elements()]
    with pytest.raises(ValueError, match=f"There is an element '{name}' already"):
        predict(sdata, small, "fov", "fov_cells", key_added="Seg", **settings)
    assert [(key, id(element)) for _, key, element in sdata.gen_elements()] == before


def test_two_regions_of_one_image_cannot_share_a_map(tissue, make_sdata, small):
    image, labels = tissue((60, 60), 2)
    sdata = make_sdata(
        {"a": image}, {"a_cells": labels, "a_nuclei": labels}, transformations={"a_nuclei": {"a": Identity()}}
    )
    with pytest.raises(ValueError, match="Call `predict` once for each labels element"):
        predict(sdata, small)
    assert set(sdata.images) == {"a"} and not sdata.tables
    predict(sdata, small, "a", "a_cells", key_added="whole")
    predict(sdata, small, "a", "a_nuclei", key_added="nuclear")
    assert set(sdata.images) == {"a", "a_whole", "a_nuclear"}


def listing(store: Path) -> dict[Path, tuple[str, int]]:
    files = (path for path in store.rglob("*") if path.is_file())
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.filterwarnings("ignore:zarr v3 autosharding")
def test_nothing_on_disk_changes_and_the_map_can_be_written(tissue, make_sdata, small, tmp_path):
    image, labels = tissue((123, 87), 2)
    store = tmp_path / "store.zarr"
    make_sdata(image, labels).write(store)
    before = listing(store)
    sdata = read_zarr(store)
    for save_maps in (False, True, True):
        adata = predict(sdata, small, save_maps=save_maps, tile_size=48)
        assert listing(store) == before

    sdata.write_element("fov_nimbus")
    sdata.write_element("table")
    back = read_zarr(store)
    np.testing.assert_array_equal(back.tables["table"].layers["nimbus"], adata.layers["nimbus"])
    np.testing.assert_array_equal(values_of(back), values_of(sdata))
    np.testing.assert_allclose(mean_over_cells(values_of(back), labels, 0.5), adata.layers["nimbus"], atol=1e-5)
    assert get_extent(back.images["fov_nimbus"], coordinate_system="fov") == {"x": (0, 88), "y": (0, 124)}
    # The map is no candidate for the image of the labels.
    again = predict(back, small, save_maps=False)
    np.testing.assert_allclose(again.layers["nimbus"], adata.layers["nimbus"], atol=1e-5)


def test_a_map_of_a_store_that_went_away_is_an_error(tissue, make_sdata, small, tmp_path):
    make_sdata(*tissue((60, 60))).write(tmp_path / "store.zarr")
    sdata = read_zarr(tmp_path / "store.zarr")
    predict(sdata, small)
    (tmp_path / "store.zarr").rename(tmp_path / "moved.zarr")
    with pytest.raises(FileNotFoundError, match="was away while it was read"):
        values_of(sdata)
