import warnings

import numpy as np
import pytest

from nimbus_sd.spatial.placement import is_micrometre, own_pixel_size, pixel_sizes


def scaled(y, x=None):
    return np.diag([y, y if x is None else x, 1.0])


@pytest.mark.parametrize(
    "name",
    [
        "um",
        "UM",
        "\u00b5m",
        "\u03bcm",
        "micron",
        "microns",
        "Micrometer",
        "micrometres",
        "fov1_um",
        "a_b_\u00b5m",
        "x\n_um",
    ],
)
def test_systems_in_micrometres(name):
    assert is_micrometre(name)


@pytest.mark.parametrize("name", ["global", "album", "fovum", "um_fov1", "nm", "umm", "mm", "micro", "fov1-um", ""])
def test_systems_in_other_units(name):
    assert not is_micrometre(name)


def test_pixel_size_is_the_scale_into_micrometres():
    assert own_pixel_size("image", {"global": scaled(3), "um": scaled(0.377)}) == pytest.approx(0.377)
    assert own_pixel_size("image", {"global": scaled(3)}) is None
    moved = np.array([[0, 0.5, 100], [-0.5, 0, 30], [0, 0, 1]])
    assert own_pixel_size("image", {"fov_um": moved}) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "matrix", [scaled(0.5, 0.6), np.array([[0.5, 0.2, 0], [0, 0.5, 0], [0, 0, 1]]), scaled(0), None]
)
def test_pixels_that_are_not_square_are_an_error(matrix):
    with pytest.raises(ValueError, match=r"image 'i' are .* they must be square"):
        own_pixel_size("i", {"um": matrix})


def test_disagreeing_units_are_an_error():
    with pytest.raises(ValueError, match=r"not clear: 0.5 um in 'um', 0.25 um in 'microns'"):
        own_pixel_size("i", {"um": scaled(0.5), "microns": scaled(0.25)})
    assert own_pixel_size("i", {"um": scaled(0.5), "microns": scaled(0.5001)}) == 0.5


def test_argument_wins_and_differing_metadata_is_told():
    placed = {"a": {"um": scaled(0.5)}, "b": {"global": scaled(1)}}
    with pytest.warns(UserWarning, match="`pixel_size` is 0.6 um, but image 'a' says 0.5 um per pixel; the first"):
        assert pixel_sizes(placed, 0.6) == {"a": 0.6, "b": 0.6}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixel_sizes(placed, 0.52) == {"a": 0.52, "b": 0.52}
        assert pixel_sizes(placed, {"b": 0.3}) == {"a": 0.5, "b": 0.3}
        assert pixel_sizes({"a": {"um": scaled(1, 2)}}, np.float32(0.5)) == {"a": 0.5}


def test_unknown_pixel_sizes_are_assumed_with_one_warning():
    placed = {"a": {"global": scaled(1)}, "b": {"um": scaled(0.25)}, "c": {}}
    with pytest.warns(UserWarning) as caught:
        assert pixel_sizes(placed) == {"a": 0.5, "b": 0.25, "c": 0.5}
    (warning,) = caught
    assert "The pixel size of 'a', 'c' is not known; 0.5 um" in str(warning.message)


@pytest.mark.parametrize("pixel_size", [0, -1, np.nan, np.inf, True, [0.5]])
def test_pixel_sizes_that_are_none(pixel_size):
    with pytest.raises(ValueError, match="it must be a number above 0"):
        pixel_sizes({"a": {}}, pixel_size)


@pytest.mark.parametrize("size", [325, 1000, 0.000325, 3.25e-7])
def test_pixel_sizes_in_another_unit(size):
    with pytest.raises(ValueError, match=rf"`pixel_size` is {size:g} um per pixel, .* in um, not in nm, mm or m"):
        pixel_sizes({"a": {}}, size)
    with pytest.raises(ValueError, match=rf"Image 'a' says {size:g} um per pixel, .* Pass `pixel_size` in um"):
        pixel_sizes({"a": {"um": scaled(size)}})
