import re

import dask.array as da
import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import Affine, Identity, MapAxis, Scale, Sequence, Translation

from nimbus_sd.spatial.elements import image_element, labels_element, not_found
from nimbus_sd.spatial.placement import matrices, relative_scale, sizes_fit

YX = ("y", "x")


def placed(image, labels):
    """Relative scale of labels to image, each given by its transformations."""
    elements = [Labels2DModel.parse(np.zeros((4, 4), np.int32), transformations=t) for t in (image, labels)]
    return relative_scale(*map(matrices, elements))


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


def test_unnamed_channels_are_numbered(pixels):
    sdata = SpatialData(images={"image": Image2DModel.parse(pixels(3))})
    assert image_element(sdata, "image")[1] == ["0", "1", "2"]


def test_channels_of_one_name_are_an_error(build, pixels):
    sdata = build({"image": pixels(3)}, channels=["CD3", "CD8", "CD3"])
    with pytest.raises(ValueError, match="'image' has several channels named 'CD3'; rename"):
        image_element(sdata, "image")


def test_three_dimensional_elements_are_an_error():
    sdata = SpatialData(
        images={"image": Image3DModel.parse(np.zeros((1, 2, 4, 4)))},
        labels={"cells": Labels3DModel.parse(np.zeros((2, 4, 4), int))},
    )
    with pytest.raises(ValueError, match=r"'image' has the axes \('c', 'z', 'y', 'x'\); only 2-D"):
        image_element(sdata, "image")
    with pytest.raises(ValueError, match=r"'cells' have the axes \('z', 'y', 'x'\); only 2-D"):
        labels_element(sdata, "cells")


@pytest.mark.parametrize(("dtype", "advice"), [(float, "cast them"), (bool, "connected components")])
def test_labels_that_are_no_integers_are_an_error(build, cells, dtype, advice):
    sdata = build(labels={"cells": cells().astype(dtype)})
    with pytest.raises(ValueError, match=f"'cells' are of type {np.dtype(dtype)}; they must be integers: .*{advice}"):
        labels_element(sdata, "cells")


def test_pixels_that_are_no_numbers_are_an_error(build):
    sdata = build({"image": np.zeros((2, 4, 4), complex)})
    with pytest.raises(ValueError, match="complex128; it must be of integers or floats"):
        image_element(sdata, "image")


def test_elements_in_memory_are_taken_too(build, pixels):
    sdata = build({"image": pixels()})
    sdata.images["image"].data = pixels()
    array, _ = image_element(sdata, "image")
    assert isinstance(array, da.Array)
    np.testing.assert_array_equal(array, pixels())


def test_axes_in_another_order(pixels):
    sdata = SpatialData(images={"image": Image2DModel.parse(pixels().transpose(1, 2, 0), dims=("y", "x", "c"))})
    np.testing.assert_array_equal(image_element(sdata, "image")[0], pixels())


@pytest.mark.parametrize(
    ("image", "labels", "repeats"),
    [
        (Identity(), Identity(), (1, 1)),
        (Identity(), Scale([2, 2], YX), (1, 2)),
        (Scale([2, 2], YX), Identity(), (2, 1)),
        (Scale([0.3, 0.3], YX), Scale([0.1, 0.1], ("x", "y")), (3, 1)),
        (Identity(), Scale([1 / 3, 1 / 3], YX), (3, 1)),
        (
            Sequence([Scale([0.325, 0.325], YX), Translation([51234.56, 7.89], YX)]),
            Sequence([Scale([0.65, 0.65], YX), Translation([51234.56, 7.89], YX)]),
            (1, 2),
        ),
        (
            Affine([[0, 1, 5], [-1, 0, 9], [0, 0, 1]], YX, YX),
            Affine([[0, 4, 5], [-4, 0, 9], [0, 0, 1]], YX, YX),
            (1, 4),
        ),
    ],
)
def test_scales_by_whole_factors(image, labels, repeats):
    assert placed({"global": image}, {"global": labels}) == repeats


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (Translation([0, 1.5], YX), r"x' = \+?0 y \+1 x \+1.5"),
        (Scale([2, 4], YX), r"y' = 2 y \+0 x \+0, x' = 0 y \+4 x"),
        (Scale([1.5, 1.5], YX), "y' = 1.5 y"),
        (Scale([2.0001, 2.0001], YX), r"y' = 2\.0001 y"),
        (Scale([-1, -1], YX), "y' = -1 y"),
        (Affine([[0, 1, 0], [1, 0, 0], [0, 0, 1]], YX, YX), r"y' = 0 y \+1 x"),
        (MapAxis({"x": "y"}), "x' = 1 y"),
    ],
)
def test_other_transformations_are_described(labels, found):
    described = placed({"global": Identity()}, {"global": labels})
    assert isinstance(described, str)
    assert re.search(found, described), described


def test_one_fitting_coordinate_system_is_enough():
    shifted = {"stage": Translation([3, 3], YX), "pixels": Identity()}
    assert placed({"stage": Identity(), "pixels": Identity()}, shifted) == (1, 1)
    assert placed({"here": Identity()}, {"there": Identity()}) == "no common coordinate system"


def test_transformation_that_loses_an_axis_is_described():
    assert "invertible" in placed({"global": Scale([0, 1], YX)}, {"global": Identity()})


@pytest.mark.parametrize(
    ("fine", "coarse", "repeat", "fits"),
    [
        ((7, 9), (7, 9), 1, True),
        ((7, 9), (7, 8), 1, False),
        ((7, 9), (4, 5), 2, True),
        ((7, 9), (3, 4), 2, True),
        ((7, 9), (3, 5), 2, True),
        ((8, 9), (3, 5), 2, False),
        ((8, 9), (5, 5), 2, False),
    ],
)
def test_sizes_fit_up_to_one_coarse_pixel(fine, coarse, repeat, fits):
    assert sizes_fit(fine, coarse, repeat) is fits


def test_not_found_names_what_is_spelled_alike():
    message = not_found("channel", ["CD-8", "qwerty"], ["CD3", "CD8"], " in image 'x'").args[0]
    assert message == "No channel 'CD-8', 'qwerty' in image 'x'; there is: 'CD3', 'CD8'. Did you mean 'CD8'?"
    assert not_found("channel", ["qwerty"], []).args[0] == "No channel 'qwerty'; there is: none."
