import pickle

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale, get_transformation

from nimbus_sd.spatial import find_regions

ALL = slice(None)


class Watched:
    """An array that remembers which windows of it were read."""

    def __init__(self, array):
        self.array, self.reads = array, []
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, window):
        self.reads.append(window)
        return self.array[window]


def region_of(image, labels, scale=1.0, **kwargs):
    transformation = {"global": Scale([scale, scale], axes=("y", "x")) if scale != 1 else Identity()}
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"))},
        labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"), transformations=transformation)},
    )
    (region,) = find_regions(sdata, pixel_size=0.5, **kwargs)
    return region


def test_windows_of_equal_grids(pixels, cells):
    region = region_of(pixels(3), cells())
    assert (region.shape, region.pixel_size, region.image_repeat, region.labels_repeat) == ((6, 8), 0.5, 1, 1)
    np.testing.assert_array_equal(region.read_image([0, 1, 2], ALL, ALL), pixels(3))
    np.testing.assert_array_equal(
        region.read_image([2, 0, 2], slice(1, 4), slice(5, 99)), pixels(3)[[2, 0, 2], 1:4, 5:]
    )
    np.testing.assert_array_equal(region.read_labels(slice(3, 5), slice(0, 8)), cells()[3:5])
    assert region.read_image([1], slice(2, 2), ALL).shape == (1, 0, 8)
    assert region.read_image([], ALL, ALL).shape == (0, 6, 8)
    assert region.read_labels(slice(6, 9), ALL).shape == (0, 8)
    with pytest.raises(ValueError, match="without steps"):
        region.read_labels(slice(0, 6, 2), ALL)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: b"x" * len(data)])
@pytest.mark.filterwarnings("ignore:zarr v3 autosharding")
def test_damaged_chunks_are_named(build, tmp_path, damage):
    rng = np.random.default_rng(0)
    image = da.from_array(rng.integers(0, 999, (3, 64, 64)).astype(np.uint16), (1, 32, 32))
    labels = da.from_array(rng.integers(0, 999, (64, 64)), (32, 32))
    build({"image": image}, {"cells": labels}, channels=["a", "b", "c"]).write(tmp_path / "store.zarr")
    for name in ("images/image", "labels/cells"):
        chunks = (tmp_path / "store.zarr" / name).glob("*/c/**/1/0")
        chunk = next(path for path in chunks if name == "labels/cells" or path.parts[-3] == "1")
        chunk.write_bytes(damage(chunk.read_bytes()))
    (region,) = find_regions(read_zarr(tmp_path / "store.zarr"), channels=["c", "b"], pixel_size=0.5)
    with pytest.raises(OSError, match=r"Image 'image', channel\(s\) 'b', cannot be read in rows 9 to 50, columns 0"):
        region.read_image([0, 1], slice(9, 50), ALL)
    with pytest.raises(OSError, match=r"Labels 'cells' cannot be read in rows 0 to 64, columns 0 to 1 \(.*Error: "):
        region.read_labels(ALL, slice(0, 1))
    assert region.read_image([0], ALL, ALL).shape == (1, 64, 64)
    assert region.read_image([0, 1], slice(0, 32), ALL).shape == (2, 32, 64)


def test_channels_are_read_in_the_order_asked_for(build, pixels, cells):
    sdata = build({"image": pixels(3)}, {"cells": cells()}, channels=["a", "b", "c"])
    (region,) = find_regions(sdata, channels=["c", "a"], pixel_size=1)
    assert region.channels == ["c", "a"]
    np.testing.assert_array_equal(region.read_image([0, 1], ALL, ALL), pixels(3)[[2, 0]])


def test_coarser_labels_are_repeated_and_missing_edges_hold_no_cell(pixels, cells):
    image = pixels(1, 13, 15)
    region = region_of(image, cells(), 2)
    assert (region.shape, region.labels_repeat, region.pixel_size) == ((13, 15), 2, 0.5)
    whole = np.pad(np.kron(cells(), np.ones((2, 2), int)), ((0, 1), (0, 0)))[:, :15]
    np.testing.assert_array_equal(region.read_labels(ALL, ALL), whole)
    assert not region.read_labels(slice(12, 13), ALL).any()
    np.testing.assert_array_equal(region.read_image([0], ALL, ALL), image)


def test_coarser_image_is_repeated_with_its_edge(pixels):
    image, labels = pixels(2, 4, 3), np.arange(13 * 8).reshape(13, 8)
    region = region_of(image, labels, 1 / 3)
    assert (region.shape, region.image_repeat) == ((13, 8), 3)
    assert region.pixel_size == pytest.approx(0.5 / 3)
    whole = np.pad(np.kron(image, np.ones((1, 3, 3), image.dtype)), ((0, 0), (0, 1), (0, 0)), mode="edge")[:, :, :8]
    np.testing.assert_array_equal(region.read_image([0, 1], ALL, ALL), whole)
    np.testing.assert_array_equal(region.read_image([1], slice(12, 13), slice(7, 8)), whole[1:, 12:, 7:])
    np.testing.assert_array_equal(region.read_labels(ALL, ALL), labels)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_window_is_a_part_of_the_whole(data):
    repeat = data.draw(st.integers(1, 4))
    coarse = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    fine = tuple(max(1, n * repeat + data.draw(st.integers(1 - repeat, repeat - 1))) for n in coarse)
    image_is_fine = data.draw(st.booleans())
    image_shape, labels_shape = (fine, coarse) if image_is_fine else (coarse, fine)
    rng = np.random.default_rng(0)
    image = rng.random((2, *image_shape), np.float32)
    labels = rng.integers(0, 9, labels_shape)
    chunks = data.draw(st.integers(1, 5))
    region = region_of(
        da.from_array(image, chunks=(1, chunks, chunks)), labels, float(repeat) if image_is_fine else 1 / repeat
    )
    assert region.shape == fine
    rows, cols = (slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in fine)
    np.testing.assert_array_equal(
        region.read_image([1, 0], rows, cols), region.read_image([1, 0], ALL, ALL)[:, rows, cols]
    )
    np.testing.assert_array_equal(region.read_labels(rows, cols), region.read_labels(ALL, ALL)[rows, cols])


def test_only_the_window_and_its_channels_are_read():
    image = Watched(np.zeros((4, 64, 64), np.uint16))
    region = region_of(da.from_array(image, chunks=(1, 16, 16), asarray=False), np.zeros((64, 64), int))
    image.reads.clear()
    region.read_image([3, 1], slice(16, 48), slice(0, 32))
    assert sum(np.empty(image.shape, bool)[window].size for window in image.reads) == 2 * 32 * 32


def test_coarse_labels_are_read_around_the_window_only():
    labels = Watched(np.ones((64, 64), np.int32))
    region = region_of(np.zeros((1, 256, 256), np.uint8), da.from_array(labels, chunks=8, asarray=False), 4)
    labels.reads.clear()
    region.read_labels(slice(100, 108), slice(0, 4))
    assert sum(np.empty(labels.shape, bool)[window].size for window in labels.reads) <= 8 * 8


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32, np.float64, ">u2", ">f4"])
def test_numbers_keep_their_type_in_the_machines_byte_order(cells, dtype):
    image = np.arange(96).reshape(2, 6, 8).astype(dtype)
    region = region_of(image, cells())
    window = region.read_image([1], slice(1, 5), slice(2, 7))
    assert window.dtype == region.dtype == np.dtype(dtype).newbyteorder("=")
    assert window.dtype.isnative
    assert window.flags.c_contiguous
    np.testing.assert_array_equal(window, image[1:, 1:5, 2:7].astype(float))


def test_bool_images_become_numbers(cells):
    region = region_of(np.ones((1, 6, 8), bool), cells())
    window = region.read_image([0], ALL, ALL)
    assert window.dtype == region.dtype == np.uint8
    assert (window == 1).all()


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">u4"]
)
def test_labels_of_any_integer_type(pixels, dtype):
    largest = min(int(np.iinfo(dtype).max), np.iinfo(np.int64).max)
    labels = np.zeros((6, 8), dtype)
    labels[2, 3], labels[2, 4] = largest, largest - 1
    window = region_of(pixels(), labels).read_labels(slice(2, 3), slice(2, 6))
    assert window.dtype == np.int64
    assert window.tolist() == [[0, largest, largest - 1, 0]]


@pytest.mark.parametrize(("value", "dtype"), [(-1, np.int32), (2**63, np.uint64)])
def test_ids_that_no_table_can_hold_are_an_error(pixels, value, dtype):
    labels = np.full((6, 8), value, dtype)
    with pytest.raises(ValueError, match=f"'cells' hold ids from {value} to {value}; ids must lie between 0"):
        region_of(pixels(), labels).read_labels(ALL, ALL)


def test_transformations_of_the_common_grid(build, square, pixels):
    systems = {"global": Identity(), "slide_um": square(0.6)}
    sdata = build({"image": (pixels(), systems)}, {"cells": (np.zeros((18, 24), int), {"global": square(1 / 3)})})
    (region,) = find_regions(sdata)
    assert region.pixel_size == pytest.approx(0.2)
    assert region.image_transformations == get_transformation(sdata.images["image"], get_all=True)
    scales = {key: t.to_affine_matrix(("y", "x"), ("y", "x"))[0, 0] for key, t in region.transformations.items()}
    assert scales == {"global": pytest.approx(1 / 3), "slide_um": pytest.approx(0.2)}
    # As an image on the common grid has them.
    Image2DModel.parse(np.zeros((1, 18, 24)), transformations=region.transformations)


def test_regions_can_be_sent_to_workers(pixels, cells):
    region = pickle.loads(pickle.dumps(region_of(pixels(), cells())))
    np.testing.assert_array_equal(region.read_image([1], ALL, ALL), pixels()[1:])
    np.testing.assert_array_equal(region.read_labels(ALL, ALL), cells())
