"""Images and labels as arrays, which belong together, how they lie on each other, how large pixels are."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import Affine, Identity, MapAxis, Scale, Sequence, Translation

from nimbus_sd.spatial import RegionResult, find_regions, is_micrometre, plain_images, write_table
from nimbus_sd.spatial.elements import (
    image_element,
    labels_element,
    matrices,
    onto_image,
    own_pixel_size,
    pair_elements,
    pixel_sizes,
    place_labels,
)


def test_unnamed_channels_other_axes_and_arrays_in_memory(pixels):
    sdata = SpatialData(images={"image": Image2DModel.parse(pixels(3).transpose(1, 2, 0), dims=("y", "x", "c"))})
    array, channels = image_element(sdata, "image")
    assert channels == ["0", "1", "2"]
    np.testing.assert_array_equal(array, pixels(3))
    sdata.images["image"].data = pixels(3, seed=1)
    assert isinstance(image_element(sdata, "image")[0], da.Array)


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


@pytest.fixture
def fovs(build, pixels, cells):
    """Fields of view as `read_fovs` and steinbock's reader write them, and all in one system besides."""
    systems = {name: {name: Identity(), "global": Identity()} for name in "ba"}
    return build(
        {name: (pixels(), systems[name]) for name in systems},
        {f"{name}_cells": (cells(), systems[name]) for name in systems},
    )


def test_pairs(fovs, build, pixels, cells):
    for keys in (["b", "a"], ["b_cells", "a_cells"]), (None, ["b_cells", "a_cells"]):
        assert pair_elements(fovs, *keys) == [("b", "b_cells"), ("a", "a_cells")]
    assert pair_elements(fovs) == [("a", "a_cells"), ("b", "b_cells")]
    assert pair_elements(fovs, "b") == [("b", "b_cells")]
    sdata = build({"image": pixels()}, {"nuclei": cells(), "cells": cells()})
    assert pair_elements(sdata) == [("image", "cells"), ("image", "nuclei")]
    sdata = build({"multiplex": pixels(), "he": pixels()}, {"cells": cells()})
    assert pair_elements(sdata, image_key="multiplex") == [("multiplex", "cells")]


def test_unclear_pairs_list_the_candidates(build, pixels, cells):
    x, y, away = ({name: Identity()} for name in ("x", "y", "away"))
    image, labels = pixels(), cells()
    two = build({"one": (image, x), "two": (image, x), "far": (image, away)}, {"cells": (labels, x)})
    each_alone = build({"one": (image, x), "two": (image, y)}, {"cells": (labels, x | y)})
    for sdata, key, message in (
        (two, None, r"Which image belongs to labels 'cells'.*: 'one', 'two'\. Name the pairs"),
        (each_alone, None, "'one', 'two'"),
        (build({"image": image}, {"cells": labels, "nuclei": labels}), "image", "Which labels element .*'nuclei'"),
        (build({"image": (image, x)}, {"cells": (labels, y)}), None, "No image shares a coordinate .*'y'.*'x'"),
        (build({"image": image}), None, r"images 'image' and labels \(none\)"),
    ):
        with pytest.raises(ValueError, match=message):
            pair_elements(sdata, key)


@pytest.mark.parametrize(
    ("image_key", "labels_key", "error", "message"),
    [
        (["a", "b"], ["a_cells"], ValueError, "2 images and 1 labels elements"),
        (["a", "b"], ["a_cells", "a_cells"], ValueError, "'a_cells' occur more than once"),
        ([], None, ValueError, "empty list"),
        ("a", "a_cell", KeyError, "No labels element 'a_cell'; there is: .*Did you mean 'a_cells'"),
        ("nothing", None, KeyError, "No image 'nothing'; there is: 'b', 'a'"),
        (3, None, TypeError, "are names, .* 3 was given"),
    ],
)
def test_keys_that_make_no_pairs(fovs, image_key, labels_key, error, message):
    with pytest.raises(error, match=message):
        pair_elements(fovs, image_key, labels_key)


def test_score_maps_are_no_candidates(build, pixels, cells):
    sdata = build({"image": pixels(), "image_nimbus": pixels(), "image_other": pixels()}, {"cells": cells()})
    assert plain_images(sdata) == ["image", "image_other"]
    region = find_regions(build({"image": pixels()}, {"cells": cells()}), pixel_size=1)[0]
    ones = np.ones((1, 2), np.float32)
    results = [RegionResult(region, np.array([3]), ones, ones, np.array([4]), ones)]
    factors = pd.DataFrame({"factor": [1.0, 1.0]}, index=region.channels)
    write_table(sdata, results, factors=factors, provenance={}, table_key="table", key_added="other")
    assert plain_images(sdata) == ["image"]
    assert pair_elements(sdata) == [("image", "cells")]


YX = ("y", "x")


def placed(image, labels):
    """How labels lie on the image, each given by its transformations."""
    elements = [Labels2DModel.parse(np.zeros((4, 4), np.int32), transformations=t) for t in (image, labels)]
    return tuple(place_labels(onto_image(*map(matrices, elements), "Both"), "Both"))


def at_stage(size):
    return Sequence([Scale([size, size], YX), Translation([51234.56, 7.89], YX)])


def turned(size):
    return Affine([[0, size, 5], [-size, 0, 9], [0, 0, 1]], YX, YX)


@pytest.mark.parametrize(
    ("image", "labels", "place"),
    [
        (Identity(), Identity(), (1, 1, (0, 0))),
        (Scale([0.3, 0.3], YX), Scale([0.1, 0.1], ("x", "y")), (3, 1, (0, 0))),
        (Identity(), Scale([1 / 3, 1 / 3], YX), (3, 1, (0, 0))),
        (at_stage(0.325), at_stage(0.65), (1, 2, (0, 0))),
        (turned(1), turned(4), (1, 4, (0, 0))),
        (at_stage(0.325), Sequence([Translation([-7, 1000], YX), at_stage(0.325)]), (1, 1, (-7, 1000))),
        (Scale([2, 2], YX), Translation([3, 5.0005], YX), (2, 1, (3, 5))),
        # um with two digits.
        (
            Scale([0.3774, 0.3774], YX),
            Sequence([Scale([0.3774, 0.3774], YX), Translation([24.15, 30.19], YX)]),
            (1, 1, (64, 80)),
        ),
        (Identity(), Sequence([Scale([4, 4], YX), Translation([3, 5], YX)]), (1, 4, (3, 5))),
    ],
)
def test_whole_factors_and_pixels(image, labels, place):
    assert placed({"global": image}, {"global": labels}) == place


@pytest.mark.parametrize(
    ("labels", "misfit"),
    [
        (Translation([0, 1.5], YX), r"x' = \+?0 y \+1 x \+1.5"),
        (Scale([2, 4], YX), r"y' = 2 y \+0 x \+0, x' = 0 y \+4 x"),
        (Scale([2.0001, 2.0001], YX), r"y' = 2\.0001 y"),
        (Affine([[0, 1, 0], [1, 0, 0], [0, 0, 1]], YX, YX), r"y' = 0 y \+1 x"),
        (MapAxis({"x": "y"}), "not affine and invertible"),
    ],
)
def test_other_transformations_are_described(labels, misfit):
    with pytest.raises(ValueError, match=misfit):
        placed({"global": Identity()}, {"global": labels})


def test_one_fitting_coordinate_system_is_enough():
    shifted = {"stage": Translation([3, 3], YX), "pixels": Identity()}
    assert placed({"stage": Identity(), "pixels": Identity()}, shifted) == (1, 1, (0, 0))
    for image, labels, message in (
        ({"here": Identity()}, {"there": Identity()}, "common coordinate system, but there is none"),
        ({"global": Scale([0, 1], YX)}, {"global": Identity()}, "only 'global', .* not affine and invertible"),
    ):
        with pytest.raises(ValueError, match=message):
            placed(image, labels)


def test_systems_in_micrometres():
    assert all(map(is_micrometre, ["UM", "\u00b5m", "\u03bcm", "micron", "micrometres", "fov1_um", "x\n_um"]))
    assert not any(map(is_micrometre, ["", "global", "album", "um_fov1", "nm", "umm", "micro", "fov1-um"]))


def scaled(y, x=None):
    return np.diag([y, y if x is None else x, 1.0])


def test_pixel_size_is_the_scale_into_micrometres():
    assert own_pixel_size("image", {"global": scaled(3), "um": scaled(0.377)}) == pytest.approx(0.377)
    assert own_pixel_size("image", {"global": scaled(3)}) is None
    moved = np.array([[0, 0.5, 100], [-0.5, 0, 30], [0, 0, 1]])
    assert own_pixel_size("image", {"fov_um": moved}) == pytest.approx(0.5)
    assert own_pixel_size("i", {"um": scaled(0.5), "microns": scaled(0.5001)}) == 0.5
    with pytest.raises(ValueError, match=r"not clear: 0.5 um in 'um', 0.25 um in 'microns'"):
        own_pixel_size("i", {"um": scaled(0.5), "microns": scaled(0.25)})
    for matrix in (scaled(0.5, 0.6), np.array([[0.5, 0.2, 0], [0, 0.5, 0], [0, 0, 1]]), scaled(0), scaled(np.nan)):
        with pytest.raises(ValueError, match=r"image 'i' are .* they must be square"):
            own_pixel_size("i", {"um": matrix})


def test_argument_wins_and_differing_metadata_is_told(no_warning):
    images = {"a": {"um": scaled(0.5)}, "b": {"global": scaled(1)}}
    with pytest.warns(UserWarning, match="`pixel_size` is 0.6 um, but image 'a' says 0.5 um per pixel"):
        assert pixel_sizes(images, 0.6) == {"a": 0.6, "b": 0.6}
    assert pixel_sizes(images, 0.52) == {"a": 0.52, "b": 0.52}
    assert pixel_sizes(images, {"b": 0.3}) == {"a": 0.5, "b": 0.3}
    assert pixel_sizes({"a": {"um": scaled(1, 2)}}, np.float32(0.5)) == {"a": 0.5}


@pytest.mark.parametrize("pixel_size", [0, -1, np.nan, np.inf, True, [0.5]])
def test_pixel_sizes_that_are_none(pixel_size):
    with pytest.raises(ValueError, match="it must be a number above 0"):
        pixel_sizes({"a": {}}, pixel_size)


@pytest.mark.parametrize("size", [325, 0.000325])
def test_pixel_sizes_in_another_unit(size):
    for placed, stated, source in (({}, size, "`pixel_size` is"), ({"um": scaled(size)}, None, "Image 'a' says")):
        with pytest.raises(ValueError, match=f"{source} {size:g} um per pixel, .* Pass `pixel_size` in um, not in nm"):
            pixel_sizes({"a": placed}, stated)
