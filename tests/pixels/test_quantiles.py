"""Quantiles of positive pixels from counts, and normalisation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_sd.pixels import Histogram, normalize

QUANTILES = [0.0, 0.25, 0.5, 0.9, 0.999, 0.9999, 1.0]
no_deadline = settings(derandomize=True, deadline=None, max_examples=50)


def counted(values, *chunks):
    histogram = Histogram(values.dtype)
    for chunk in chunks or (values,):
        histogram.add(chunk)
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


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint32", "int32", "int64", "uint64"])
@pytest.mark.parametrize("decades", [0.1, 3, 12])
def test_other_numbers_are_within_a_ten_thousandth(dtype, decades):
    rng = np.random.default_rng(7)
    values = 10 ** rng.uniform(-decades / 2, decades / 2, 20_000)
    if np.dtype(dtype).kind in "iu":
        values = (values * 1e3).clip(0, 4e9 if dtype == "uint32" else 2e9)
    values = values.clip(0, np.finfo("float16").max if dtype == "float16" else None).astype(dtype)
    positive = values[values > 0].astype(float)
    for q in QUANTILES:
        assert counted(values).quantile(q) == pytest.approx(np.quantile(positive, q), rel=1e-4)


def test_what_is_no_positive_number_does_not_count():
    values = np.array([np.nan, np.inf, -np.inf, -5, 0, -0.0, 3], np.float32)
    histogram = counted(values)
    assert histogram.total == 1
    assert histogram.quantile(0.5) == pytest.approx(3, rel=1e-4)
    assert np.isnan(counted(np.zeros(10, np.float32)).quantile(0.999))


@no_deadline
@given(st.sampled_from(["uint16", "float32"]), st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_order_and_size_of_chunks_do_not_matter(dtype, seed, n_chunks):
    rng = np.random.default_rng(seed)
    values = (rng.lognormal(3, 3, 500)).clip(0, 60000).astype(dtype)
    chunks = np.array_split(values, n_chunks)
    other = [chunks[i] for i in rng.permutation(n_chunks)]
    whole = counted(values)
    joined = Histogram(values.dtype)
    for chunk in chunks:
        joined.update(counted(chunk))
    for q in QUANTILES:
        assert counted(values, *other).quantile(q) == whole.quantile(q) == joined.quantile(q)


def test_one_histogram_takes_several_types():
    both = Histogram(np.dtype("uint8"), np.dtype("float32"))
    both.add(np.full(100, 7, np.uint8))
    both.add(np.full(100, 7.5, np.float32))
    assert both.total == 200
    assert both.quantile(0.0) == pytest.approx(7, rel=1e-4)
    assert both.quantile(1.0) == pytest.approx(7.5, rel=1e-4)
    assert not both.exact and Histogram(np.dtype("uint8"), np.dtype("int16")).exact


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint64", "float32", "float64", ">u2"])
def test_normalize(dtype):
    image = np.array([[[0, 5], [10, 40]], [[1, 2], [4, 100]], [[9, 9], [9, 9]]]).astype(dtype)
    scaled = normalize(image, np.array([20.0, 4.0, np.nan]))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0], [[0, 0.25], [0.5, 1]], rtol=1e-6)
    np.testing.assert_allclose(scaled[1], [[0.25, 0.5], [1, 1]], rtol=1e-6)
    np.testing.assert_array_equal(scaled[2], 0)


def test_negative_pixels_become_zero():
    np.testing.assert_array_equal(normalize(np.array([[[-3, -1, 2]]], np.int16), np.array([2.0])), [[[0, 0, 1]]])


@pytest.mark.parametrize("factor", [1e-8, 1e-30, 1e30])
def test_extreme_factors_give_finite_pixels(factor):
    image = np.array([[[0, 0.5 * factor, factor, 2 * factor]]], np.float32)
    np.testing.assert_allclose(normalize(image, np.array([factor])), [[[0, 0.5, 1, 1]]], rtol=1e-6)


def test_bins_are_the_values_that_occur():
    exact, rounded = Histogram(np.dtype(np.uint16)), Histogram(np.dtype(np.float32))
    for part in ([5, 0, 9], [5, 70, 0]):
        exact.add(np.array(part, np.uint16))
        rounded.add(np.array(part, np.float32) / 3)
    for histogram, scale in ((exact, 1), (rounded, 3)):
        values, counts = histogram.bins()
        np.testing.assert_allclose(values * scale, [5, 9, 70], rtol=5e-5)
        assert counts.tolist() == [2, 1, 1]
    assert exact.bins()[0].tolist() == [5, 9, 70]
    assert all(part.size == 0 for part in Histogram(np.dtype(np.uint8)).bins())


@pytest.mark.parametrize("zeros", [0, 300])
def test_otsu_agrees_with_scikit_image(zeros):
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(25, 7, 9000), rng.normal(60, 12, 3000), np.zeros(zeros), [-4.0] * 5])
    values = values.astype(np.float32)
    histogram = Histogram(values.dtype)
    for part in np.array_split(values, 3):
        other = Histogram(values.dtype)
        other.add(part, zeros=True)
        histogram.update(other)
    # Negative values count as 0.
    assert histogram.otsu() == pytest.approx(threshold_otsu(np.maximum(values, 0), nbins=4000), rel=0.02)
    plain = Histogram(values.dtype)
    plain.add(values)
    assert plain.otsu() == pytest.approx(threshold_otsu(values[values > 0], nbins=4000), rel=0.02)


def test_otsu_does_not_follow_a_few_outliers():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 8000), rng.normal(50, 5, 2000)]).astype(np.float32)
    plain, outliers = Histogram(np.dtype(np.float32)), Histogram(np.dtype(np.float32))
    plain.add(values, zeros=True)
    outliers.add(np.append(values, [1e5, 2e5, 3e5]).astype(np.float32), zeros=True)
    assert plain.otsu() == pytest.approx(30, rel=0.05)
    assert outliers.otsu() == pytest.approx(plain.otsu(), rel=0.01)


def test_otsu_counts_all_where_hardly_a_value_is_positive():
    histogram = Histogram(np.dtype(np.float32))
    histogram.add(np.append(np.zeros(100_000), [5.0, 7.0]).astype(np.float32), zeros=True)
    assert 0 < histogram.otsu() < 5


def test_otsu_of_few_values():
    histogram = Histogram(np.dtype(np.uint8))
    histogram.add(np.zeros(4, np.uint8), zeros=True)
    assert np.isnan(histogram.otsu())
    # One bright value among zeros: half-way.
    histogram.add(np.array([8], np.uint8), zeros=True)
    assert histogram.otsu() == 4
    alike = Histogram(np.dtype(np.uint8))
    alike.add(np.full(9, 8, np.uint8), zeros=True)
    assert 0 < alike.otsu() <= 8
