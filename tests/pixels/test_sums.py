"""Sums over cells, tile by tile, against averaging an enlarged map."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nimbus_sd.pixels import CellSums, Footprint, Grid, tiles

no_deadline = settings(derandomize=True, deadline=None, max_examples=50)


def blobs(rng, shape, coarseness=3):
    """Labels with gaps that reach over tiles, some of them in several pieces."""
    small = [-(-n // coarseness) for n in shape]
    labels = rng.choice([0, 0, 1, 4, 5, 900], small).astype(np.int64)
    return labels.repeat(coarseness, 0).repeat(coarseness, 1)[: shape[0], : shape[1]]


def summed(labels, image, score_map, grid, tile_size):
    """Sum over all tiles."""
    sums = CellSums(len(image))
    for tile in tiles(grid, tile_size, 0):
        rows, cols = (grid.image_range(core.start, core.stop, axis) for axis, core in enumerate(tile.core))
        index = [grid.model_index(pixels, axis) - tile.core[axis].start for axis, pixels in enumerate((rows, cols))]
        width = tile.core[1].stop - tile.core[1].start
        footprint = Footprint.of(labels[rows, cols], *index, width, (rows.start, cols.start))
        core = score_map[:, tile.core[0], tile.core[1]]
        if len(footprint.ids):
            sums.add(
                footprint.ids,
                footprint.geometry,
                np.stack([footprint.sum_image(channel[rows, cols]) for channel in image], axis=1),
                np.stack([footprint.sum_map(one) for one in core], axis=1),
            )
    return sums.result()


@no_deadline
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from([0.29, 0.38, 0.5, 1.0, 1.7, 2.0]),
    st.sampled_from([4, 8, 1000]),
)
def test_means_are_those_of_a_map_enlarged_by_nearest_neighbour(seed, shape, scale, tile_size):
    rng = np.random.default_rng(seed)
    labels, grid = blobs(rng, shape), Grid(shape, scale, 4)
    image, score_map = rng.integers(0, 1000, (2, *shape)), rng.random((2, *grid.model_shape), dtype=np.float32)
    ids, area, centroid, mean, score = summed(labels, image, score_map, grid, tile_size)

    np.testing.assert_array_equal(ids, np.unique(labels[labels > 0]))
    if not len(ids):
        return
    np.testing.assert_array_equal(area, [np.sum(labels == i) for i in ids])
    np.testing.assert_allclose(centroid, np.array(ndimage.center_of_mass(labels > 0, labels, ids)) + 0.5, rtol=1e-12)
    index = np.ix_(*(grid.model_index(slice(0, n), axis) for axis, n in enumerate(shape)))
    for channel in range(2):
        enlarged = score_map[channel].astype(float)[index]
        # Sums are float64, results are rounded to float32.
        np.testing.assert_allclose(score[:, channel], ndimage.mean(enlarged, labels, ids), rtol=1e-6)
        np.testing.assert_allclose(mean[:, channel], ndimage.mean(image[channel], labels, ids), rtol=1e-6)


def test_no_cell():
    ids, area, centroid, mean, score = CellSums(3).result()
    assert [len(part) for part in (ids, area, centroid, mean, score)] == [0] * 5
    assert mean.shape == score.shape == (0, 3) and centroid.shape == (0, 2)


def test_large_ids_take_no_memory():
    labels = np.zeros((8, 8), np.int64)
    labels[:4], labels[4:] = 2_000_000_000, 2**62
    index = np.arange(8)
    footprint = Footprint.of(labels, index, index, 8)
    assert footprint.ids.tolist() == [2_000_000_000, 2**62]
    assert footprint.sum_map(np.ones((8, 8))).tolist() == [32, 32]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_sums_do_not_overflow(dtype):
    labels = np.ones((300, 300), np.int64)
    image = np.full((300, 300), 250).astype(dtype)
    index = np.arange(300)
    assert Footprint.of(labels, index, index, 300).sum_image(image).tolist() == [250 * 90_000]


def test_result_copies_the_sums_only_some_columns_at_a_time():
    sums, part = CellSums(40), np.ones((1000, 40))
    for first in range(0, 20_000, 1000):
        sums.add(np.arange(first, first + 1000), np.ones((1000, 3)), part.copy(), part.copy())
    tracemalloc.start()
    *_, mean, score = sums.result()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Of float64, one of them alone would take twice as much as its result.
    assert mean.nbytes + score.nbytes < peak < 1.6 * (mean.nbytes + score.nbytes)
