"""Regions of a SpatialData, and windows of their pixels."""

import pickle

import dask.array as da
import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from spatialdata import read_zarr
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale, Translation

from nimbus_sd.spatial import find_regions

ALL = slice(None)


@pytest.fixture
def two(build, pixels, cells):

    def make(first=("CD3", "CD8"), second=("CD3", "CD8")):
        return build(
            {"a": (pixels(len(first)), {"a": Identity()}), "b": (pixels(len(second), seed=1), {"b": Identity()})},
            {"a_cells": (cells(), {"a": Identity()}), "b_cells": (cells(), {"b": Identity()})},
            channels={"a": first, "b": second},
        )

    return make


class Watched:
    """An array that remembers how many pixels of it were read."""

    def __init__(self, array):
        self.array, self.read = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, window):
        self.read += self.array[window].size
        return self.array[window]


def test_same_channel_index_means_the_same_channel_everywhere(two, pixels):
    a, b = find_regions(two(("CD3", "CD8"), ("CD8", "CD3")), pixel_size=0.5)
    assert (a.image_key, b.labels_key) == ("a", "b_cells") and a.channels == b.channels == ["CD3", "CD8"]
    np.testing.assert_array_equal(a.read_image([0], ALL, ALL)[0], pixels()[0])
    np.testing.assert_array_equal(b.read_image([0], ALL, ALL)[0], pixels(seed=1)[1])


def test_images_of_different_channels_need_a_choice(two, pixels):
    sdata = two(("DAPI", "CD3", "CD8"), ("CD3", "DAPI", "CD20"))
    with pytest.raises(ValueError, match=r"lack \['CD8'\] of 'a'.*all images have \['DAPI', 'CD3'\]"):
        find_regions(sdata, pixel_size=0.5)
    regions = find_regions(sdata, channels=["CD3"], pixel_size=0.5)
    np.testing.assert_array_equal(regions[1].read_image([0], ALL, ALL)[0], pixels(3, seed=1)[0])
    with pytest.raises(KeyError, match=r"No channel 'CD8' in image 'b'; there is: 'CD3', 'DAPI', 'CD20'. Did you mean"):
        find_regions(sdata, channels=["CD8"], pixel_size=0.5)


def test_channel_arguments(build, pixels, cells):
    sdata = build({"image": pixels(3)}, {"cells": cells()}, channels=["a", "b", "c"])
    assert find_regions(sdata, channels="b", pixel_size=1)[0].channels == ["b"]
    (region,) = find_regions(sdata, channels=["c", "a"], pixel_size=1)
    np.testing.assert_array_equal(region.read_image([0, 1], ALL, ALL), pixels(3)[[2, 0]])
    for channels, message in ((["b", "a", "b"], "'b' more than once"), ([], "`channels` is empty")):
        with pytest.raises(ValueError, match=message):
            find_regions(sdata, channels=channels, pixel_size=1)
    sdata = build({"image": pixels(3)}, {"cells": cells()}, channels=())
    assert find_regions(sdata, channels=[2], pixel_size=1)[0].channels == ["2"]
    with pytest.raises(TypeError, match="Expected a SpatialData, got AnnData"):
        find_regions(AnnData(np.zeros((3, 2))))


@pytest.mark.parametrize(
    ("transformation", "shape", "covered"),
    [
        (Identity(), (6, 9), "rows 0 to 6 and columns 0 to 9 of image 'image', which has 6 x 8 pixels"),
        (Scale([2, 2], ("y", "x")), (6, 8), "rows 0 to 12 and columns 0 to 16"),
        (Scale([0.5, 0.5], ("y", "x")), (6, 8), "rows 0 to 3 and columns 0 to 4"),
    ],
)
def test_elements_of_other_sizes_are_told(build, pixels, transformation, shape, covered):
    sdata = build({"image": pixels()}, {"cells": (np.zeros(shape, int), {"global": transformation})})
    with pytest.warns(UserWarning, match=f"{covered}.*only what is on both is used"):
        find_regions(sdata, pixel_size=0.5)


def test_elements_that_lie_between_pixels(build, pixels, cells):
    sdata = build({"image": pixels()}, {"cells": (cells(), {"global": Translation([1.5, 0], ("y", "x"))})})
    with pytest.raises(ValueError, match=r"must lie on each other.*is: in 'global', y' = 1 y \+0 x \+1.5,"):
        find_regions(sdata, pixel_size=0.5)


def test_pixel_sizes(two, build, pixels, cells):
    assert [r.pixel_size for r in find_regions(two(), pixel_size={"a": 0.5, "b": 0.25})] == [0.5, 0.25]
    with pytest.raises(KeyError, match=r"No image 'c' \(named in `pixel_size`\)"):
        find_regions(two(), pixel_size={"a": 0.5, "c": 0.25})
    with pytest.warns(UserWarning, match="pixel size of 'a', 'b' is not known"):
        assert [r.pixel_size for r in find_regions(two())] == [0.5, 0.5]
    rectangular = {"global": Identity(), "um": Scale([0.5, 0.7], ("y", "x"))}
    with pytest.raises(ValueError, match="must be square"):
        find_regions(build({"image": (pixels(), rectangular)}, {"cells": cells()}))


def test_windows_of_equal_grids(region_of, pixels, cells):
    region = region_of(pixels(3), cells())
    np.testing.assert_array_equal(region.read_image([0, 1, 2], ALL, ALL), pixels(3))
    window = region.read_image([2, 0, 2], slice(1, 4), slice(5, 99))
    np.testing.assert_array_equal(window, pixels(3)[[2, 0, 2], 1:4, 5:])
    np.testing.assert_array_equal(region.read_labels(slice(3, 5), slice(0, 8)), cells()[3:5])
    assert region.read_image([1], slice(2, 2), ALL).shape == (1, 0, 8)
    assert region.read_image([], ALL, ALL).shape == (0, 6, 8)
    assert region.read_labels(slice(6, 9), ALL).shape == (0, 8)
    with pytest.raises(ValueError, match="without steps"):
        region.read_labels(slice(0, 6, 2), ALL)


def test_coarser_labels_are_repeated_and_missing_edges_hold_no_cell(region_of, pixels, cells):
    image = pixels(1, 13, 15)
    region = region_of(image, cells(), 2)
    assert (region.shape, region.labels_repeat, region.pixel_size) == ((13, 15), 2, 0.5)
    whole = np.pad(np.kron(cells(), np.ones((2, 2), int)), ((0, 1), (0, 0)))[:, :15]
    np.testing.assert_array_equal(region.read_labels(ALL, ALL), whole)
    assert not region.read_labels(slice(12, 13), ALL).any()
    np.testing.assert_array_equal(region.read_image([0], ALL, ALL), image)


def test_coarser_image_is_repeated_with_its_edge(region_of, pixels):
    image, labels = pixels(2, 4, 3), np.arange(13 * 8).reshape(13, 8)
    region = region_of(image, labels, 1 / 3)
    assert (region.shape, region.image_repeat) == ((13, 8), 3)
    assert region.pixel_size == pytest.approx(0.5 / 3)
    whole = np.pad(np.kron(image, np.ones((1, 3, 3), image.dtype)), ((0, 0), (0, 1), (0, 0)), mode="edge")[:, :, :8]
    np.testing.assert_array_equal(region.read_image([0, 1], ALL, ALL), whole)
    np.testing.assert_array_equal(region.read_labels(ALL, ALL), labels)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_window_is_a_part_of_the_whole(region_of, data):
    repeat = data.draw(st.integers(1, 4))
    coarse = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    fine = tuple(max(1, n * repeat + data.draw(st.integers(1 - repeat, repeat - 1))) for n in coarse)
    image_is_fine = data.draw(st.booleans())
    image_shape, labels_shape = (fine, coarse) if image_is_fine else (coarse, fine)
    rng, chunks = np.random.default_rng(0), data.draw(st.integers(1, 5))
    image = da.from_array(rng.random((2, *image_shape), np.float32), chunks=(1, chunks, chunks))
    region = region_of(image, rng.integers(0, 9, labels_shape), repeat if image_is_fine else 1 / repeat)
    assert region.shape == fine
    rows, cols = (slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in fine)
    whole = region.read_image([1, 0], ALL, ALL)
    np.testing.assert_array_equal(region.read_image([1, 0], rows, cols), whole[:, rows, cols])
    np.testing.assert_array_equal(region.read_labels(rows, cols), region.read_labels(ALL, ALL)[rows, cols])


def test_only_the_window_and_its_channels_are_read(region_of):
    image, labels = Watched(np.zeros((4, 64, 64), np.uint16)), Watched(np.ones((16, 16), np.int32))
    chunked = da.from_array(image, chunks=(1, 16, 16), asarray=False)
    region = region_of(chunked, da.from_array(labels, chunks=8, asarray=False), 4)
    image.read = labels.read = 0
    region.read_image([3, 1], slice(16, 48), slice(0, 32))
    region.read_labels(slice(36, 40), slice(0, 4))
    assert image.read == 2 * 32 * 32 and 0 < labels.read <= 8 * 8


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint32, np.float32, np.float64, ">u2", ">f4"])
def test_numbers_keep_their_type_in_the_machines_byte_order(region_of, cells, dtype):
    image = np.arange(96).reshape(2, 6, 8).astype(dtype)
    region = region_of(image, cells())
    window = region.read_image([1], slice(1, 5), slice(2, 7))
    native = np.uint8 if dtype is bool else np.dtype(dtype).newbyteorder("=")
    assert window.dtype == region.dtype == native and window.dtype.isnative and window.flags.c_contiguous
    np.testing.assert_array_equal(window, image[1:, 1:5, 2:7].astype(float))


@pytest.mark.parametrize(("value", "dtype"), [(-1, np.int32), (2**63, np.uint64)])
def test_ids_that_no_table_can_hold_are_an_error(region_of, pixels, value, dtype):
    labels = np.full((6, 8), value, dtype)
    with pytest.raises(ValueError, match=f"'cells' hold ids from {value} to {value}; ids must lie between 0"):
        region_of(pixels(), labels).read_labels(ALL, ALL)


def test_regions_from_disk_can_be_sent_to_workers(tmp_path, build, square, pixels):
    image, labels = pixels(2, 64, 96), np.zeros((32, 48), np.uint32)
    labels[4, 5] = 2**32 - 1
    sdata, systems = build(), {"fov": square(2), "fov_um": square(1)}
    sdata.labels["cells"] = Labels2DModel.parse(labels, transformations=systems, scale_factors=[2])
    systems = {"fov": Identity(), "fov_um": square(0.5)}
    sdata.images["fov"] = Image2DModel.parse(image, c_coords=["CD3", "CD8"], transformations=systems, scale_factors=[2])
    sdata.write(tmp_path / "sdata.zarr")
    (region,) = find_regions(read_zarr(tmp_path / "sdata.zarr"))
    region = pickle.loads(pickle.dumps(region))
    assert (region.channels, region.shape, region.pixel_size) == (["CD3", "CD8"], (64, 96), 0.5)
    np.testing.assert_array_equal(region.read_image([1], slice(7, 60), slice(3, 90)), image[1:, 7:60, 3:90])
    assert (region.read_labels(slice(7, 11), slice(9, 13)) == np.pad([[2**32 - 1] * 2] * 2, 1)).all()
