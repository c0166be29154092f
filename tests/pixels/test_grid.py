"""The model's grid over an image, the cell interior, and resizing."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import find_boundaries

from nimbus_sd.pixels import Grid, interior, resize_image, resize_labels

SCALES = ["0.29", "0.38", "0.5", "0.65", "1", "1.7", "2", "4.3"]
grids = st.builds(
    lambda shape, scale, stride: (Grid(shape, float(scale), stride), Fraction(scale)),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.sampled_from(SCALES),
    st.sampled_from([1, 4, 16]),
)
no_deadline = settings(derandomize=True, deadline=None, max_examples=60)


def everything(grid: Grid):
    rows, cols = (np.arange(n) for n in grid.model_shape)
    return rows, cols


@no_deadline
@given(grids)
def test_shapes(drawn):
    grid, scale = drawn
    assert grid.model_shape == tuple(ceil(n * scale) for n in grid.shape)
    for padded, model in zip(grid.padded_shape, grid.model_shape, strict=True):
        assert padded % grid.stride == 0 and padded >= max(model, 2 * grid.stride)
        # No more than needed: the network pads by reflection, which needs two pixels at its coarsest level.
        assert padded < model + grid.stride or padded == 2 * grid.stride


@pytest.mark.parametrize("n, scale, expected", [(100, 0.29, 29), (1000, 0.29, 290), (1024, 0.5, 512), (1, 0.01, 1)])
def test_rounding_errors_of_the_scale_do_not_add_a_pixel(n, scale, expected):
    assert Grid((n, n), scale, 16).model_shape == (expected, expected)


@no_deadline
@given(grids, st.sampled_from([1, 16, 48]), st.sampled_from([0, 1]))
def test_image_ranges_partition_the_image_and_agree_with_the_index(drawn, side, axis):
    grid, scale = drawn
    end = 0
    for start in range(0, grid.model_shape[axis], side):
        stop = min(start + side, grid.model_shape[axis])
        pixels = grid.image_range(start, stop, axis)
        assert pixels.start == end
        end = pixels.stop
        index = grid.model_index(pixels, axis)
        assert ((index >= start) & (index < stop)).all()
        np.testing.assert_array_equal(index, [int(y * scale) for y in range(pixels.start, pixels.stop)])
    assert end == grid.shape[axis]


@no_deadline
@given(st.integers(1, 300), st.floats(0.02, 8), st.integers(1, 40))
def test_image_ranges_agree_with_the_index_at_any_scale(n, scale, side):
    grid = Grid((n, n), scale, 1)
    end = 0
    for start in range(0, grid.model_shape[0], side):
        stop = min(start + side, grid.model_shape[0])
        pixels = grid.image_range(start, stop, 0)
        index = grid.model_index(pixels, 0)
        assert pixels.start == end and ((index >= start) & (index < stop)).all()
        end = pixels.stop
    assert end == n


@pytest.mark.parametrize("n", [1, 2, 3, 7, 17, 32])
def test_mirroring_is_numpys_reflect(n):
    grid = Grid((n, n), 1.0, 16)
    padded = grid.padded_shape[0]
    np.testing.assert_array_equal(grid.mirrored(0, padded, 0), np.pad(np.arange(n), (0, padded - n), mode="reflect"))
    np.testing.assert_array_equal(grid.mirrored(16, padded, 0), grid.mirrored(0, padded, 0)[16:])


@no_deadline
@given(grids, st.sampled_from([0, 1]))
def test_nearest_is_the_pixel_at_the_exact_position(drawn, axis):
    grid, scale = drawn
    index = np.arange(grid.model_shape[axis])
    np.testing.assert_array_equal(grid.nearest(index, axis), [int(int(i) / scale) for i in index])


@no_deadline
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_interior_is_what_skimage_leaves(height, width, seed, coarseness):
    labels = np.random.default_rng(seed).integers(0, 4, (height, width))
    labels = labels.repeat(coarseness, 0).repeat(coarseness, 1)
    expected = (labels > 0) & ~find_boundaries(labels, connectivity=1, mode="inner")
    np.testing.assert_array_equal(interior(labels), expected)


def test_interior_of_large_unsigned_ids():
    labels = np.zeros((9, 9), np.uint64)
    labels[1:8, 1:5], labels[1:8, 5:8] = 2**63 + 1, 2**63 + 2
    small = np.where(labels > 0, labels - np.uint64(2**63), 0).astype(np.int64)
    np.testing.assert_array_equal(interior(labels), interior(small))


def test_half_the_resolution_is_the_mean_of_two_by_two():
    image = np.random.default_rng(0).random((3, 64, 48), dtype=np.float32)
    grid = Grid((64, 48), 0.5, 16)
    half = resize_image(image, grid, everything(grid), (0, 0))
    assert half.dtype == np.float32
    # Four float32 numbers in [0, 1] added in another order.
    np.testing.assert_allclose(half, image.reshape(3, 32, 2, 24, 2).mean((2, 4)), atol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.2, 0.5, 1.0, 2.0, 3.0])
def test_bilinear_is_torchs_at_sizes_that_divide(scale):
    image = np.random.default_rng(1).random((2, 60, 40), dtype=np.float32)
    grid = Grid((60, 40), scale, 4)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None], size=grid.model_shape, mode="bilinear", align_corners=False
    )[0]
    # torch computes positions in float32, whose last digit is 4e-6 at pixel 60.
    np.testing.assert_allclose(resize_image(image, grid, everything(grid), (0, 0)), expected, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(203, 157), (1, 50), (50, 1), (1, 1)])
def test_bilinear_at_any_size(scale, shape):
    image = np.random.default_rng(2).random((1, *shape), dtype=np.float32)
    grid = Grid(shape, float(scale), 16)
    exact = [[(i + Fraction(1, 2)) / Fraction(scale) - Fraction(1, 2) for i in range(n)] for n in grid.model_shape]
    coordinates = np.meshgrid(*(np.array(axis, float) for axis in exact), indexing="ij")
    expected = ndimage.map_coordinates(image[0].astype(float), coordinates, order=1, mode="nearest")
    found = resize_image(image, grid, everything(grid), (0, 0))[0]
    # Neighbours differ by up to 1, and the weight is rounded to float32.
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [0.38, 0.5, 1.7])
def test_a_window_gives_what_the_whole_gives(scale):
    rng = np.random.default_rng(3)
    image, mask = rng.random((2, 203, 157), dtype=np.float32), rng.random((203, 157)) < 0.5
    grid = Grid((203, 157), scale, 16)
    whole = everything(grid)
    part = whole[0][17:40], whole[1][5:29]
    rows, cols = (slice(int(i[0] / scale) - 3, int(i[-1] / scale) + 6) for i in part)
    origin = max(rows.start, 0), max(cols.start, 0)
    window = (slice(origin[0], rows.stop), slice(origin[1], cols.stop))
    image_part = resize_image(image[:, window[0], window[1]], grid, part, origin)
    np.testing.assert_array_equal(image_part, resize_image(image, grid, whole, (0, 0))[:, 17:40, 5:29])
    mask_part = resize_labels(mask[window], grid, part, origin)
    np.testing.assert_array_equal(mask_part, resize_labels(mask, grid, whole, (0, 0))[17:40, 5:29])


def test_resizing_leaves_the_image_alone():
    image = np.random.default_rng(4).random((1, 21, 21), dtype=np.float32)
    before = image.copy()
    for scale in (0.5, 0.7, 1.0):
        grid = Grid((21, 21), scale, 1)
        resize_image(image, grid, everything(grid), (0, 0))
    np.testing.assert_array_equal(image, before)
