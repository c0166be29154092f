"""Numbers, medians and sums of cells; sums tile by tile, against averaging an enlarged map."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from nimbus_sd.pixels import CellSums, Footprint, Grid, cell_medians, numbered, tiles


@pytest.mark.parametrize("labels", [[], [7], [5, 2, 2, 9, 0, 5], [2**62, 1, 2**40, 1]])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_numbering_is_numpys_unique(labels, dtype):
    labels = np.array(labels, dtype)
    ids, number = numbered(labels)
    expected_ids, expected = np.unique(labels, return_inverse=True)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(number, expected)
    assert ids.dtype == dtype and number.dtype == np.int64


@given(st.integers(1, 6), st.integers(0, 40), st.data())
def test_medians_are_numpys(n, size, data):
    cell = data.draw(arrays.arrays(np.int64, size, elements=st.integers(0, n - 1)))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0])
    values = data.draw(arrays.arrays(np.float32, size, elements=finite))
    expected = [np.median(values[cell == i].astype(np.float64)) if (cell == i).any() else np.nan for i in range(n)]
    np.testing.assert_array_equal(cell_medians(cell, values, n), np.array(expected, np.float32))


def summed(labels, image, score_map, grid, tile_size):
    sums = CellSums(len(image))
    for tile in tiles(grid, tile_size, 0):
        rows, cols = (grid.image_range(core.start, core.stop, axis) for axis, core in enumerate(tile.core))
        index = [grid.model_index(pixels, axis) - tile.core[axis].start for axis, pixels in enumerate((rows, cols))]
        width = tile.core[1].stop - tile.core[1].start
        footprint = Footprint.of(labels[rows, cols], *index, width, (rows.start, cols.start))
        if len(footprint.ids):
            expression = np.stack([footprint.sum_image(channel[rows, cols]) for channel in image], axis=1)
            scores = np.stack([footprint.sum_map(channel[tile.core]) for channel in score_map], axis=1)
            sums.add(footprint.ids, footprint.geometry, expression, scores)
    return sums.result()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from([0.29, 0.38, 0.5, 1.0, 1.7, 2.0]),
    st.sampled_from([4, 8, 1000]),
)
def test_means_are_those_of_a_map_enlarged_by_nearest_neighbour(seed, shape, scale, tile_size):
    rng, grid = np.random.default_rng(seed), Grid(shape, scale, 4)
    # Labels with gaps that reach over tiles, some of them in several pieces.
    labels = rng.choice([0, 0, 1, 4, 5, 900], [-(-n // 3) for n in shape]).astype(np.int64)
    labels = labels.repeat(3, 0).repeat(3, 1)[: shape[0], : shape[1]]
    image, score_map = rng.integers(0, 1000, (2, *shape)), rng.random((2, *grid.model_shape), dtype=np.float32)
    ids, area, centroid, mean, score = summed(labels, image, score_map, grid, tile_size)

    np.testing.assert_array_equal(ids, np.unique(labels[labels > 0]))
    assert centroid.shape == (len(ids), 2) and mean.shape == score.shape == (len(ids), 2)
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


def test_large_ids_take_no_memory_and_sums_do_not_overflow():
    labels = np.zeros((300, 300), np.int64)
    labels[:150], labels[150:] = 2_000_000_000, 2**62
    footprint = Footprint.of(labels, np.arange(300), np.arange(300), 300)
    assert footprint.ids.tolist() == [2_000_000_000, 2**62]
    assert footprint.sum_map(np.ones((300, 300))).tolist() == [45_000, 45_000]
    for dtype in ("uint8", "uint16", "float32"):
        assert footprint.sum_image(np.full((300, 300), 250, dtype)).tolist() == [250 * 45_000] * 2


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
