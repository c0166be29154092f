"""The model's grid over an image, its tiles, the cell interior, and resizing."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import find_boundaries

from nimbus_sd.pixels import Grid, interior, resize_image, resize_interior, tiles

SCALES = ["0.29", "0.38", "0.5", "0.65", "1", "1.7", "2", "4.3"]
shapes = st.tuples(st.integers(1, 400), st.integers(1, 400))
no_deadline = settings(derandomize=True, deadline=None, max_examples=40)


def everything(grid):
    rows, cols = (np.arange(n) for n in grid.model_shape)
    return rows, cols


@no_deadline
@given(shapes, st.sampled_from(SCALES), st.sampled_from([1, 4, 16]))
def test_shapes_and_nearest_pixels(shape, scale, stride):
    grid, scale = Grid(shape, float(scale), stride), Fraction(scale)
    assert grid.model_shape == tuple(ceil(n * scale) for n in grid.shape)
    # Rounding errors do not add a pixel.
    assert Grid((100, 1000), 0.29, 16).model_shape == (29, 290)
    for axis, (padded, model) in enumerate(zip(grid.padded_shape, grid.model_shape, strict=True)):
        assert padded % grid.stride == 0 and padded >= max(model, 2 * grid.stride)
        # No more than needed: the network pads by reflection, which needs two pixels at its coarsest level.
        assert padded < model + grid.stride or padded == 2 * grid.stride
        nearest = [int(i / scale) for i in range(model)]
        np.testing.assert_array_equal(grid.nearest(np.arange(model), axis), nearest)


@no_deadline
@given(st.integers(1, 300), st.sampled_from(SCALES) | st.floats(0.02, 8), st.integers(1, 48))
def test_image_ranges_partition_the_image_and_agree_with_the_index(n, scale, side):
    grid, end = Grid((n, n), float(scale), 1), 0
    for start in range(0, grid.model_shape[0], side):
        stop = min(start + side, grid.model_shape[0])
        pixels = grid.image_range(start, stop, 0)
        index = grid.model_index(pixels, 0)
        assert pixels.start == end and ((index >= start) & (index < stop)).all()
        end = pixels.stop
        if isinstance(scale, str):
            np.testing.assert_array_equal(index, [int(y * Fraction(scale)) for y in range(pixels.start, end)])
    assert end == n


@no_deadline
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_interior_is_what_skimage_leaves(height, width, seed, coarseness):
    labels = np.random.default_rng(seed).integers(0, 4, (height, width))
    labels = labels.repeat(coarseness, 0).repeat(coarseness, 1)
    expected = (labels > 0) & ~find_boundaries(labels, connectivity=1, mode="inner")
    np.testing.assert_array_equal(interior(labels), expected)
    large = np.where(labels > 0, labels.astype(np.uint64) + np.uint64(2**63), 0)
    np.testing.assert_array_equal(interior(large), expected)


@no_deadline
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9), st.integers(1, 4), st.integers(1, 3))
def test_the_resized_interior_is_a_property_of_the_models_grid(height, width, seed, times, boundary):
    """As of labels as fine as the boundary is wide, however much finer the image is."""
    labels = np.random.default_rng(seed).integers(0, 4, (height, width)).repeat(3, 0).repeat(3, 1)
    fine = labels.repeat(times, 0).repeat(times, 1)
    grid = Grid(fine.shape, 1 / (times * boundary), 1)
    expected = interior(labels)[::boundary, ::boundary]
    inside = resize_interior(fine, grid, everything(grid), (0, 0), 1 / boundary)
    np.testing.assert_array_equal(inside, expected)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(203, 157), (1, 50), (50, 1), (1, 1)])
def test_bilinear_at_any_size(scale, shape):
    image = np.random.default_rng(2).random((1, *shape), dtype=np.float32)
    grid = Grid(shape, float(scale), 16)
    exact = [[(i + Fraction(1, 2)) / Fraction(scale) - Fraction(1, 2) for i in range(n)] for n in grid.model_shape]
    coordinates = np.meshgrid(*(np.array(axis, float) for axis in exact), indexing="ij")
    expected = ndimage.map_coordinates(image[0].astype(float), coordinates, order=1, mode="nearest")
    before = image.copy()
    resized = resize_image(image, grid, everything(grid), (0, 0))
    assert resized.dtype == np.float32 and (image == before).all()
    # Neighbours differ by up to 1, and the weight is rounded to float32.
    np.testing.assert_allclose(resized[0], expected, atol=1e-6)


@no_deadline
@given(
    shapes, st.sampled_from(SCALES[:6]), st.sampled_from([(4, 24), (16, 96)]), st.sampled_from([1, 16, 48, 100, 1024])
)
def test_cores_cover_the_model_shape_once_and_windows_suit_the_network(shape, scale, network, tile_size):
    stride, halo = network
    grid = Grid(shape, float(scale), stride)
    covered = np.zeros(grid.model_shape, np.int8)
    for tile in tiles(grid, max(tile_size, min(shape) // 4), halo):
        covered[tile.core] += 1
        for core, window, size, padded in zip(tile.core, tile.window, grid.model_shape, grid.padded_shape, strict=True):
            assert core.start % stride == window.start % stride == window.stop % stride == 0
            assert window.start >= 0 and window.stop <= padded and window.stop - window.start >= 2 * stride
            # The network's reach on each side, or the edge.
            assert window.start == max(0, core.start - halo)
            assert window.stop >= min(core.stop + halo, padded)
            assert core.stop == size or core.stop % stride == 0
        inner = tile.core_in_window
        assert all(i.stop - i.start == c.stop - c.start for i, c in zip(inner, tile.core, strict=True))
    assert (covered == 1).all()


@pytest.mark.parametrize("root_filters, depth", [(2, 5), (3, 4)])
def test_a_network_gives_the_same_on_tiles_as_on_the_whole(random_network, root_filters, depth):
    network = random_network(root_filters, depth).double()
    image = torch.rand(2, 400, 336, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grid = Grid((400, 336), 1.0, network.stride)

    @torch.no_grad()
    def scores(pixels):
        return torch.sigmoid(network(pixels[None]))[0, 0]

    whole = scores(image)

    def furthest(halo):
        return max(
            (scores(image[:, *tile.window])[tile.core_in_window] - whole[tile.core]).abs().max().item()
            for tile in tiles(grid, 112, halo)
        )

    # Not "nearly the same": these are the rounding errors of float64.
    assert furthest(6 * network.stride) < 1e-12
    # The test would see a halo that is too small.
    assert furthest(2 * network.stride) > 1e-4
