"""Levels of channels from counts of their values, normalisation, and means over squares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from nimbus_sd.pixels import Histogram, normalize, square_means

QUANTILES = [0.0, 0.25, 0.5, 0.9, 0.999, 0.9999, 1.0]
no_deadline = settings(derandomize=True, deadline=None, max_examples=40)


def counted(*chunks, zeros=False):
    histogram = Histogram(chunks[0].dtype)
    for chunk in chunks:
        histogram.add(chunk, zeros=zeros)
    return histogram


@no_deadline
@given(
    st.sampled_from(["uint8", "uint16", "int8", "int16", "bool"]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 3000),
    st.sampled_from(QUANTILES),
)
def test_small_integers_are_exact(dtype, seed, n, q):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        values = rng.random(n) < 0.3
    else:
        info = np.iinfo(dtype)
        values = (info.max * rng.random(n) ** 4 * rng.choice([-1, 1], n)).clip(info.min).astype(dtype)
    positive = values[values > 0]
    histogram = counted(values)
    assert histogram.total == len(positive)
    if len(positive):
        # The same two values; interpolating between them may round the last digit of float64 otherwise.
        assert histogram.quantile(q) == pytest.approx(np.quantile(positive.astype(float), q), rel=1e-14)
    else:
        assert np.isnan(histogram.quantile(q))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("decades", [0.1, 3, 12])
def test_other_numbers_are_within_a_ten_thousandth(dtype, decades):
    values = 10 ** np.random.default_rng(7).uniform(-decades / 2, decades / 2, 20_000)
    if np.dtype(dtype).kind in "iu":
        values = (values * 1e3).clip(0, 4e9 if dtype == "uint32" else 2e9)
    values = values.clip(0, np.finfo("float16").max if dtype == "float16" else None).astype(dtype)
    positive, histogram = values[values > 0].astype(float), counted(values)
    for q in QUANTILES:
        assert histogram.quantile(q) == pytest.approx(np.quantile(positive, q), rel=1e-4)


def test_what_is_no_positive_number_does_not_count():
    histogram = counted(np.array([np.nan, np.inf, -np.inf, -5, 0, -0.0, 3], np.float32))
    assert histogram.total == 1
    assert histogram.quantile(0.5) == pytest.approx(3, rel=1e-4)
    assert np.isnan(counted(np.zeros(10, np.float32)).quantile(0.999))


@no_deadline
@given(st.sampled_from(["uint16", "float32"]), st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_order_and_size_of_chunks_do_not_matter(dtype, seed, n_chunks):
    rng = np.random.default_rng(seed)
    values = (rng.lognormal(3, 1, 500)).clip(0, 60000).astype(dtype)
    chunks = np.array_split(values, n_chunks)
    joined = Histogram(values.dtype)
    for i in rng.permutation(n_chunks):
        joined.update(counted(chunks[i]))
    for q in QUANTILES:
        assert counted(*chunks).quantile(q) == counted(values).quantile(q) == joined.quantile(q)


def test_bins_are_the_values_that_occur():
    parts = np.array([[5, 0, 9], [5, 70, 0]])
    exact, rounded = counted(*parts.astype(np.uint16)), counted(*parts.astype(np.float32) / 3)
    for histogram, scale in ((exact, 1), (rounded, 3)):
        values, counts = histogram.bins()
        np.testing.assert_allclose(values * scale, [5, 9, 70], rtol=5e-5)
        assert counts.tolist() == [2, 1, 1]
    assert exact.bins()[0].tolist() == [5, 9, 70] and exact.end_of_bin(9) == 9
    assert all(part.size == 0 for part in Histogram(np.dtype(np.uint8)).bins())
    end = np.float32(rounded.end_of_bin(3.0))
    assert counted(np.array([3, end], np.float32)).bins()[0].size == 1
    assert counted(np.array([3, np.nextafter(end, np.float32(4))], np.float32)).bins()[0].size == 2


@pytest.mark.parametrize("n_zeros", [0, 300])
def test_otsu_agrees_with_scikit_image(n_zeros):
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(25, 7, 9000), rng.normal(60, 12, 3000), np.zeros(n_zeros), [-4.0] * 5])
    values = values.astype(np.float32)
    histogram = Histogram(values.dtype)
    for part in np.array_split(values, 3):
        histogram.update(counted(part, zeros=True))
    # Negative values count as 0.
    assert histogram.otsu() == pytest.approx(threshold_otsu(np.maximum(values, 0), nbins=4000), rel=0.02)
    assert counted(values).otsu() == pytest.approx(threshold_otsu(values[values > 0], nbins=4000), rel=0.02)


def test_otsu_does_not_follow_a_few_outliers():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 8000), rng.normal(50, 5, 2000)]).astype(np.float32)
    plain = counted(values, zeros=True).otsu()
    assert plain == pytest.approx(30, rel=0.05)
    outliers = np.array([1e5, 2e5, 3e5], np.float32)
    assert counted(values, outliers, zeros=True).otsu() == pytest.approx(plain, rel=0.01)
    # All count where hardly a value is positive.
    assert 0 < counted(np.append(np.zeros(100_000), [5, 7]).astype(np.float32), zeros=True).otsu() < 5


def test_otsu_of_few_values():
    zeros = np.zeros(4, np.uint8)
    assert np.isnan(counted(zeros, zeros=True).otsu())
    # One bright value among zeros: half-way.
    assert counted(zeros, np.array([8], np.uint8), zeros=True).otsu() == 4
    joined = counted(bright := np.array([40, 41, 60, 61], np.uint8))
    joined.update(counted(zeros, zeros=True))
    assert joined.otsu() == counted(zeros, bright, zeros=True).otsu() < 40 < counted(bright).otsu()
    assert 0 < counted(np.full(9, 8, np.uint8), zeros=True).otsu() <= 8


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint64", "float32", "float64", ">u2"])
def test_normalize(dtype):
    image = np.array([[[0, 5], [10, 40]], [[1, 2], [4, 100]], [[9, 9], [9, 9]]]).astype(dtype)
    scaled = normalize(image, np.array([20.0, 4.0, np.nan]))
    assert scaled.dtype == np.float32
    expected = [[[0, 0.25], [0.5, 1]], [[0.25, 0.5], [1, 1]], np.zeros((2, 2))]
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    np.testing.assert_array_equal(normalize(np.array([[[-3, -1, 2]]], np.int16), np.array([2.0])), [[[0, 0, 1]]])
    for factor in (1e-30, 1e30):
        extreme = np.array([[[0, 0.5 * factor, 2 * factor]]], np.float32)
        np.testing.assert_allclose(normalize(extreme, np.array([factor])), [[[0, 0.5, 1]]], rtol=1e-6)


@pytest.mark.parametrize("side", [1, 4, 7, 100])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_means_of_squares_are_those_of_cells_pixels(side, dtype):
    rng = np.random.default_rng(0)
    image = (rng.random((3, 37, 50)) * 900).astype(dtype)
    inside = rng.random((37, 50)) < np.linspace(0, 1, 50)
    inside[:8] = True
    squares = [np.s_[top : top + side, left : left + side] for top in range(0, 37, side) for left in range(0, 50, side)]
    expected = [image[:, *s][:, inside[s]].mean(axis=1) for s in squares if inside[s].mean() >= 0.25]
    means = square_means(image, inside, side)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, np.stack(expected, axis=1), rtol=1e-5)


def test_glass_does_not_count_and_sparse_cells_do():
    image, inside = np.full((1, 40, 40), 5.0), np.zeros((40, 40), bool)
    assert square_means(image, inside, 8).shape == (1, 0)
    # No square is a quarter full; the one with most of the cell is taken.
    inside[2:5, 2:5] = inside[20, 20] = True
    image[:, 2:5, 2:5] = 9
    np.testing.assert_array_equal(square_means(image, inside, 8), [[9]])
