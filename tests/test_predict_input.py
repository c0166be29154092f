"""Bad input: a clear word about it, and nothing lost."""

import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scoring import FACTORS, predict
from spatialdata.models import TableModel
from spatialdata.transformations import Identity, Scale

from nimbus_sd.pixels import interior


@pytest.fixture
def arrays(tissue):
    return tissue((90, 80), 3, seed=1)


@pytest.fixture
def sdata(arrays, make_sdata, small):
    """With a table of an earlier run, in which one marker was scored."""
    sdata = make_sdata(*arrays)
    predict(sdata, small, channels=["CD3"])
    return sdata


@pytest.fixture
def unchanged(sdata):
    """Check, when the test is over, that table and elements are what they were."""
    table, before = sdata.tables["table"], sdata.tables["table"].copy()
    elements = {name: element for _, name, element in sdata.gen_elements()}
    yield
    assert sdata.tables["table"] is table
    assert {name: id(element) for _, name, element in sdata.gen_elements()} == {
        name: id(element) for name, element in elements.items()
    }
    pd.testing.assert_frame_equal(table.obs, before.obs)
    pd.testing.assert_frame_equal(table.varm["nimbus_normalization"], before.varm["nimbus_normalization"])
    np.testing.assert_array_equal(table.layers["nimbus"], before.layers["nimbus"])
    np.testing.assert_array_equal(table.X, before.X)
    assert str(table.uns) == str(before.uns)


def refuses(sdata, model, error, words, *keys, **settings):
    with pytest.raises(error, match=words):
        predict(sdata, model, *keys, **settings)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "keys, settings, error, words",
    [
        (("fvo", "fov_cells"), {}, KeyError, "No image 'fvo'; there is: 'fov'. Did you mean 'fov'"),
        ((), {"channels": ["CD2"]}, KeyError, "No channel 'CD2' in image 'fov'.*Did you mean .*'CD20'"),
        ((), {"pixel_size": 0}, ValueError, "`pixel_size` is 0; it must be a number above 0"),
        ((), {"pixel_size": "0.5 um"}, ValueError, "`pixel_size` is '0.5 um'; it must be a number above 0"),
        ((), {"tile_size": "big"}, ValueError, "`tile_size` is 'big'; give a whole number"),
        ((), {"batch_size": 0}, ValueError, "batch_size=0: give"),
        ((), {"tta": "no"}, ValueError, "tta='no': give True, False, or None"),
        (("fov", [3]), {}, TypeError, r"are names, .* \[3\] was given"),
        ((), {"checkpoint": 5}, TypeError, "`checkpoint` is a int; pass the path"),
        ((), {"checkpoint": __file__, "normalization": None}, NotADirectoryError, "test_predict_input.py' is a file"),
        ((), {"precision": "float16"}, ValueError, "'auto', 'float32' or 'bfloat16'"),
        ((), {"clip_values": (0, 2)}, TypeError, "clip_values"),
        ((), {"device": "tpu"}, ValueError, "Give 'auto' or one of"),
        ((), {"key_added": "gold"}, ValueError, "`key_added` is 'gold'"),
        ((), {"table_key": "fov"}, ValueError, "there is an element 'fov'"),
        ((), {"normalization": {"DAPI": 1.0}}, KeyError, "no factor for channel"),
    ],
)
def test_arguments(sdata, small, keys, settings, error, words):
    refuses(sdata, small, error, words, *keys, **settings)


def test_labels_without_a_cell_or_of_another_kind(arrays, make_sdata, small):
    image, labels = arrays
    empty = make_sdata(image, np.zeros_like(labels))
    refuses(empty, small, ValueError, "No cell in labels 'fov_cells': all pixels are 0. Is this the right element?")
    assert not empty.tables
    sdata = make_sdata(image, labels)
    sdata.labels["fov_cells"] = sdata.labels["fov_cells"].astype("float32")
    refuses(sdata, small, ValueError, "type float32; they must be integers: cast them")
    refuses(make_sdata(image, -labels), small, ValueError, "hold ids from -.* must lie between 0")


def test_a_mask_that_does_not_lie_on_the_image(tissue, make_sdata, small):
    """All channels of the image count, and with few cells nothing is said."""
    image, labels = tissue((208, 208), 3, seed=1)
    image[1:] = np.random.default_rng(0).poisson(5, image[1:].shape)
    moved = {"transposed": labels.T, "mirrored": labels[::-1], "shifted": np.roll(labels, 20, 1)}
    for mask in moved.values():
        sdata = make_sdata({"good": image, "bad": image}, {"good_cells": labels, "bad_cells": mask})
        with pytest.warns(
            UserWarning, match="does not fit the image: labels 'bad_cells' on image 'bad'; in no channel"
        ):
            predict(sdata, small, channels=["CD3", "CD20"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(make_sdata(image, labels), small, channels=["CD3"])
        predict(make_sdata(image[:, :60, :60], moved["mirrored"][:60, :60]), small)
        predict(make_sdata(np.ones_like(image), labels), small)
    # In the middle of the whole there is no cell.
    large, mask = np.zeros((3, 2600, 208), image.dtype), np.zeros((2600, 208), labels.dtype)
    large[:, -208:], mask[-208:] = image, moved["shifted"]
    with pytest.warns(UserWarning, match="does not fit the image"):
        predict(make_sdata(large, mask), small, channels=["CD3"])


@pytest.mark.parametrize("classes, values", [(1, 1), (1, 255), (3, 1), (5, 40)])
def test_masks_and_maps_of_classes_are_no_labels(tissue, make_sdata, small, classes, values):
    image, labels = tissue((128, 160), 3, seed=1)
    apart = np.unique(np.where(interior(labels), labels, 0), return_inverse=True)[1].reshape(labels.shape)
    mask = np.where(apart > 0, (apart % classes + 1) * values, 0)
    words = rf"Labels 'fov_cells' hold {classes} number\(s\) for \d+ separate parts.*`skimage.measure.label\(mask\)`"
    refuses(make_sdata(image, mask), small, ValueError, words)
    one = np.where((apart > 0) & (apart % 3 == 0), 999, apart)
    with pytest.warns(UserWarning, match=r"number\(s\) 999 each cover 24 separate parts or more"):
        predict(make_sdata(image, one), small)


@pytest.mark.parametrize(
    "normalization, layout", [(None, "many chunks"), (FACTORS, "one chunk"), (FACTORS, "xarray on numpy")]
)
def test_pixels_that_are_no_numbers(arrays, make_sdata, small, normalization, layout):
    image, labels = arrays
    image = image.astype(np.float32)
    clean = image.copy()
    places = [(0, 5, 5), (0, 6, 5), (0, 50, 41), (2, 89, 79)]
    for place, bad in zip(places, (np.nan, np.inf, -np.inf, np.nan), strict=True):
        image[place], clean[place] = bad, 0
    image[1, 3, :4] = clean[1, 3, :4] = -7
    before = image.copy()
    sdata = make_sdata(da.from_array(image, chunks=(2, 40, 30) if layout == "many chunks" else -1), labels)
    if layout == "xarray on numpy":
        sdata.images["fov"].data = image
    with pytest.warns(UserWarning) as caught:
        adata = predict(sdata, small, normalization=normalization)
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "enormous (above 1e30) pixels in channel(s) 'DAPI' (3 pixels), 'CD20' (1 pixels)" in messages
    assert "negative pixels in channel(s) 'CD3' (4 pixels)" in messages
    with pytest.warns(UserWarning, match="negative"):
        expected = predict(make_sdata(clean, labels), small, normalization=normalization)
    for layer in ("nimbus", "integrated_expression"):
        np.testing.assert_array_equal(adata.layers[layer], expected.layers[layer])
    np.testing.assert_array_equal(image, before)


def test_a_table_of_something_else(arrays, make_sdata, small):
    sdata = make_sdata(*arrays)
    obs = pd.DataFrame({"region": pd.Categorical(["fov_cells"] * 2), "instance_id": [2, 5]}, index=["2", "5"])
    rna = AnnData(np.ones((2, 2), np.float32), obs=obs, var=pd.DataFrame(index=["ACTB", "CD8A"]))
    sdata.tables["table"] = TableModel.parse(rna, region="fov_cells", region_key="region", instance_key="instance_id")
    refuses(sdata, small, ValueError, "of something else.*'ACTB', 'CD8A'.*another `table_key`")
    predict(sdata, small, table_key="protein")
    assert sdata.tables["table"].n_vars == 2 and sdata.tables["protein"].n_vars == 3


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("when", ["first tile", "later tile", "normalisation"])
def test_a_run_that_is_stopped(sdata, small, error, when):
    """The image cannot be read any more, after some tiles, as when the user or the disk stops."""
    reads = []

    def block(values):
        reads.append(1)
        if len(reads) > {"first tile": 4, "later tile": 21, "normalisation": 1}[when]:
            raise error("stopped")
        return values

    element = sdata.images["fov"]
    # One chunk per channel: one read to see that the mask fits, three that no channel is empty, three for each tile.
    element.data = da.from_array(element.values, chunks=(1, 90, 80)).map_blocks(
        block, dtype=element.dtype, meta=element.values[:0]
    )
    with pytest.raises(error, match="stopped"):
        predict(sdata, small, tile_size=16, save_maps=True, normalization=None if when == "normalisation" else FACTORS)
    # Which of the three channels it is that fails is found out one by one.
    again = 3 if error is OSError else 0
    assert len(reads) == {"first tile": 5, "later tile": 22, "normalisation": 2}[when] + again


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
def test_the_pixel_size_is_assumed_read_or_doubted(arrays, make_sdata, small):
    image, labels = arrays
    with pytest.warns(UserWarning, match="pixel size of 'fov' is not known; 0.5 um per pixel .* assumed"):
        assumed = predict(make_sdata(image, labels), small, pixel_size=None)
    um = {"a": Identity(), "a_um": Scale([0.5, 0.5], ("y", "x"))}
    known = make_sdata({"a": image}, {"a_cells": labels}, transformations={"a": um, "a_cells": um})
    np.testing.assert_array_equal(predict(known, small, pixel_size=None).layers["nimbus"], assumed.layers["nimbus"])
    both = make_sdata({"ok": image, "fov": image}, {"ok_cells": labels, "fov_cells": labels})
    for pixel_size in (0.02, 50.0):
        with pytest.raises(ValueError, match=r"'fov_cells' is .* um wide, which is no cell .* `pixel_size`"):
            predict(both, small, pixel_size={"ok": 0.5, "fov": pixel_size})
    for pixel_size in (0.05, 10.0):
        with pytest.warns(UserWarning, match=r"implausible .*A pixel size of about 0\.8\d? um would make it 10 um"):
            predict(make_sdata(image, labels), small, pixel_size=pixel_size)
