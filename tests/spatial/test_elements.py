"""Images and labels as arrays, and which belong together."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import Identity

from nimbus_sd.spatial import RegionResult, find_regions, not_found, plain_images, write_table
from nimbus_sd.spatial.elements import image_element, labels_element, pair_elements


def test_multiscale_elements_give_their_full_resolution(pixels, cells):
    image, labels = pixels(2, 64, 96), np.kron(cells(), np.ones((11, 12), np.int32))[:64]
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, c_coords=["a", "b"], scale_factors=[2, 2])},
        labels={"cells": Labels2DModel.parse(labels, scale_factors=[2])},
    )
    array, channels = image_element(sdata, "image")
    assert channels == ["a", "b"]
    np.testing.assert_array_equal(array, image)
    np.testing.assert_array_equal(labels_element(sdata, "cells"), labels)


def test_unnamed_channels_other_axes_and_arrays_in_memory(pixels):
    sdata = SpatialData(images={"image": Image2DModel.parse(pixels(3).transpose(1, 2, 0), dims=("y", "x", "c"))})
    assert image_element(sdata, "image")[1] == ["0", "1", "2"]
    np.testing.assert_array_equal(image_element(sdata, "image")[0], pixels(3))
    sdata.images["image"].data = pixels(3, seed=1)
    array, _ = image_element(sdata, "image")
    assert isinstance(array, da.Array)
    np.testing.assert_array_equal(array, pixels(3, seed=1))


def test_elements_that_cannot_be_used(build, pixels, cells):
    sdata = build({"image": pixels(3), "complex": np.zeros((2, 4, 4), complex)}, channels=["CD3", "CD8", "CD3"])
    sdata.images["stack"] = Image3DModel.parse(np.zeros((1, 2, 4, 4)))
    sdata.labels["stacked"] = Labels3DModel.parse(np.zeros((2, 4, 4), int))
    for key, message in {
        "image": "'image' has several channels named 'CD3'",
        "complex": "complex128; it must be of integers or floats",
        "stack": r"'stack': the axes are \('c', 'z', 'y', 'x'\); only 2-D",
    }.items():
        with pytest.raises(ValueError, match=message):
            image_element(sdata, key)
    with pytest.raises(ValueError, match=r"'stacked': the axes are \('z', 'y', 'x'\); only 2-D"):
        labels_element(sdata, "stacked")
    for dtype, advice in ((float, "cast them"), (bool, "connected components")):
        sdata = build(labels={"cells": cells().astype(dtype)})
        with pytest.raises(ValueError, match=f"are of type {np.dtype(dtype)}; they must be integers: .*{advice}"):
            labels_element(sdata, "cells")


def test_not_found_names_what_is_spelled_alike():
    message = not_found("channel", ["CD-8", "qwerty"], ["CD3", "CD8"], " in image 'x'").args[0]
    assert message == "No channel 'CD-8', 'qwerty' in image 'x'; there is: 'CD3', 'CD8'. Did you mean 'CD8'?"
    assert not_found("channel", ["qwerty"], []).args[0] == "No channel 'qwerty'; there is: none."


@pytest.fixture
def fovs(build, pixels, cells):
    """Fields of view as `read_fovs` and steinbock's reader write them, and all in one system besides."""
    systems = {name: {name: Identity(), "global": Identity()} for name in "ba"}
    return build(
        {name: (pixels(), systems[name]) for name in systems},
        {f"{name}_cells": (cells(), systems[name]) for name in systems},
    )


@pytest.mark.parametrize(
    ("image_key", "labels_key", "pairs"),
    [
        (None, None, "ab"),
        (["b", "a"], ["b_cells", "a_cells"], "ba"),
        (None, ["b_cells", "a_cells"], "ba"),
        ("b", None, "b"),
    ],
)
def test_pairs(fovs, image_key, labels_key, pairs):
    assert pair_elements(fovs, image_key, labels_key) == [(name, f"{name}_cells") for name in pairs]


def test_pairs_in_one_system(build, pixels, cells):
    sdata = build({"image": pixels()}, {"nuclei": cells(), "cells": cells()})
    assert pair_elements(sdata) == [("image", "cells"), ("image", "nuclei")]
    sdata = build({"multiplex": pixels(), "he": pixels()}, {"cells": cells()})
    assert pair_elements(sdata, image_key="multiplex") == [("multiplex", "cells")]


def test_unclear_pairs_list_the_candidates(build, pixels, cells):
    x, y, away = ({name: Identity()} for name in ("x", "y", "away"))
    sdata = build({"one": (pixels(), x), "two": (pixels(), x), "far": (pixels(), away)}, {"cells": (cells(), x)})
    with pytest.raises(ValueError, match=r"Which image belongs to labels 'cells'.*'one', 'two'\. Name the pairs"):
        pair_elements(sdata)
    # Each alone in a system.
    sdata = build({"one": (pixels(), x), "two": (pixels(), y)}, {"cells": (cells(), x | y)})
    with pytest.raises(ValueError, match="'one', 'two'"):
        pair_elements(sdata)
    sdata = build({"image": pixels()}, {"cells": cells(), "nuclei": cells()})
    with pytest.raises(ValueError, match=r"Which labels element belongs to image 'image'.*'cells', 'nuclei'"):
        pair_elements(sdata, image_key="image")
    sdata = build({"image": (pixels(), x)}, {"cells": (cells(), y)})
    with pytest.raises(ValueError, match=r"No image shares a coordinate system with labels 'cells'.*'y'.*'x'"):
        pair_elements(sdata)


@pytest.mark.parametrize(
    ("image_key", "labels_key", "error", "message"),
    [
        (["a", "b"], ["a_cells"], ValueError, "2 images and 1 labels elements"),
        (["a", "b"], ["a_cells", "a_cells"], ValueError, "'a_cells' occur more than once"),
        (["a", "a"], None, ValueError, "'a_cells' occur more than once"),
        ([], None, ValueError, "empty list"),
        ("a", "a_cell", KeyError, "No labels element 'a_cell'; there is: .*Did you mean 'a_cells'"),
        ("nothing", None, KeyError, "No image 'nothing'; there is: 'b', 'a'"),
        (3, None, TypeError, "are names, .* 3 was given"),
    ],
)
def test_keys_that_make_no_pairs(fovs, image_key, labels_key, error, message):
    with pytest.raises(error, match=message):
        pair_elements(fovs, image_key, labels_key)


def test_no_images_or_no_labels_says_what_exists(build, pixels, cells):
    with pytest.raises(ValueError, match=r"images 'image' and labels \(none\)"):
        pair_elements(build({"image": pixels()}))
    with pytest.raises(ValueError, match=r"images \(none\) and labels 'cells'"):
        pair_elements(build(labels={"cells": cells()}))


def test_score_maps_are_no_candidates(build, pixels, cells):
    sdata = build({"image": pixels(), "image_nimbus": pixels(), "image_other": pixels()}, {"cells": cells()})
    assert plain_images(sdata) == ["image", "image_other"]
    region = find_regions(build({"image": pixels()}, {"cells": cells()}), pixel_size=1)[0]
    ones = np.ones((1, 2), np.float32)
    results = [RegionResult(region, np.array([3]), ones, ones, np.array([4]), ones)]
    factors = pd.DataFrame({"factor": [1.0, 1.0]}, index=region.channels)
    names = {"table_key": "table", "key_added": "other", "channels": region.channels}
    write_table(sdata, results, factors=factors, provenance={}, **names)
    assert plain_images(sdata) == ["image"]
    assert pair_elements(sdata) == [("image", "cells")]
