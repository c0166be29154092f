"""How elements lie on each other, and the size of their pixels."""

import re
import warnings

import numpy as np
import pytest
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Affine, Identity, MapAxis, Scale, Sequence, Translation

from nimbus_sd.spatial import is_micrometre, sizes_fit
from nimbus_sd.spatial.placement import matrices, own_pixel_size, pixel_sizes, relative_scale

YX = ("y", "x")


def placed(image, labels):
    """Relative scale of labels to image, each given by its transformations."""
    elements = [Labels2DModel.parse(np.zeros((4, 4), np.int32), transformations=t) for t in (image, labels)]
    return relative_scale(*map(matrices, elements))


def at_stage(size):
    return Sequence([Scale([size, size], YX), Translation([51234.56, 7.89], YX)])


def turned(size):
    return Affine([[0, size, 5], [-size, 0, 9], [0, 0, 1]], YX, YX)


@pytest.mark.parametrize(
    ("image", "labels", "repeats"),
    [
        (Identity(), Identity(), (1, 1)),
        (Identity(), Scale([2, 2], YX), (1, 2)),
        (Scale([2, 2], YX), Identity(), (2, 1)),
        (Scale([0.3, 0.3], YX), Scale([0.1, 0.1], ("x", "y")), (3, 1)),
        (Identity(), Scale([1 / 3, 1 / 3], YX), (3, 1)),
        (at_stage(0.325), at_stage(0.65), (1, 2)),
        (turned(1), turned(4), (1, 4)),
    ],
)
def test_scales_by_whole_factors(image, labels, repeats):
    assert placed({"global": image}, {"global": labels}) == repeats


@pytest.mark.parametrize(
    ("labels", "misfit"),
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
def test_other_transformations_are_described(labels, misfit):
    assert re.search(misfit, placed({"global": Identity()}, {"global": labels}))


def test_one_fitting_coordinate_system_is_enough():
    shifted = {"stage": Translation([3, 3], YX), "pixels": Identity()}
    assert placed({"stage": Identity(), "pixels": Identity()}, shifted) == (1, 1)
    assert placed({"here": Identity()}, {"there": Identity()}) == "no common coordinate system"
    assert "invertible" in placed({"global": Scale([0, 1], YX)}, {"global": Identity()})


def test_sizes_fit_up_to_one_coarse_pixel():
    assert sizes_fit((7, 9), (7, 9), 1) and not sizes_fit((7, 9), (7, 8), 1)
    assert all(sizes_fit((7, 9), coarse, 2) for coarse in ((4, 5), (3, 4), (3, 5)))
    assert not any(sizes_fit((8, 9), coarse, 2) for coarse in ((3, 5), (5, 5)))


def test_systems_in_micrometres():
    names = ["um", "UM", "\u00b5m", "\u03bcm", "micron", "microns", "Micrometer", "micrometres", "fov1_um", "x\n_um"]
    assert all(map(is_micrometre, names))
    others = ["", "global", "album", "fovum", "um_fov1", "nm", "umm", "mm", "micro", "fov1-um"]
    assert not any(map(is_micrometre, others))


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


def test_argument_wins_and_differing_metadata_is_told():
    images = {"a": {"um": scaled(0.5)}, "b": {"global": scaled(1)}}
    with pytest.warns(UserWarning, match="`pixel_size` is 0.6 um, but image 'a' says 0.5 um per pixel"):
        assert pixel_sizes(images, 0.6) == {"a": 0.6, "b": 0.6}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixel_sizes(images, 0.52) == {"a": 0.52, "b": 0.52}
        assert pixel_sizes(images, {"b": 0.3}) == {"a": 0.5, "b": 0.3}
        assert pixel_sizes({"a": {"um": scaled(1, 2)}}, np.float32(0.5)) == {"a": 0.5}


def test_unknown_pixel_sizes_are_assumed_with_one_warning():
    images = {"a": {"global": scaled(1)}, "b": {"um": scaled(0.25)}, "c": {}}
    with pytest.warns(UserWarning, match="The pixel size of 'a', 'c' is not known; 0.5 um") as caught:
        assert pixel_sizes(images) == {"a": 0.5, "b": 0.25, "c": 0.5}
    assert len(caught) == 1


@pytest.mark.parametrize("pixel_size", [0, -1, np.nan, np.inf, True, [0.5]])
def test_pixel_sizes_that_are_none(pixel_size):
    with pytest.raises(ValueError, match="it must be a number above 0"):
        pixel_sizes({"a": {}}, pixel_size)


@pytest.mark.parametrize("size", [325, 0.000325])
def test_pixel_sizes_in_another_unit(size):
    with pytest.raises(ValueError, match=rf"`pixel_size` is {size:g} um per pixel, .* in um, not in nm, mm or m"):
        pixel_sizes({"a": {}}, size)
    with pytest.raises(ValueError, match=rf"Image 'a' says {size:g} um per pixel, .* Pass `pixel_size` in um"):
        pixel_sizes({"a": {"um": scaled(size)}})
