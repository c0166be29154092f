"""Rules for a threshold: against their definition, and against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage.filters import threshold_otsu
from sklearn.metrics import f1_score

from nimbus_sd.metrics import find_threshold

NAN = float("nan")


def two_modes(n: int = 2000, share: float = 0.3, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    upper = rng.random(n) < share
    return np.where(upper, rng.normal(9, 1.5, n), rng.normal(2, 0.5, n)).astype(dtype), upper


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_otsu_is_just_above_that_of_skimage(dtype):
    values, _ = two_modes(dtype=dtype)
    cut, expected = find_threshold(values, "otsu"), threshold_otsu(values)
    if np.issubdtype(dtype, np.integer):
        np.testing.assert_array_equal(values >= cut, values > expected)
    else:
        # The upper edge of the bin of which skimage gives the centre.
        edges = np.histogram_bin_edges(values, 256)
        assert cut == pytest.approx(edges[np.searchsorted(edges, expected)], rel=1e-6)


def test_otsu_splits_where_skimage_would_not_and_the_quantile_calls_a_tenth():
    # skimage gives the centre of the one bin that holds the lower mode, with half of it above.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(1, 0.001, 500), rng.normal(60, 5, 100)])
    assert (values >= find_threshold(values, "otsu")).sum() == 100
    assert (values >= find_threshold(values, "quantile")).sum() == 60
    # Of two whole numbers skimage gives the lower: at or above it is everybody.
    values = np.array([3, 3, 3, 7])
    np.testing.assert_array_equal(values >= find_threshold(values, "otsu"), [False, False, False, True])
    # Ties are not torn apart: most cells are 0, and 0 is not above it.
    values = np.float32([0] * 950 + [*range(50)])
    assert (values >= find_threshold(values, "quantile")).sum() == 49


def test_a_mixture_parts_where_its_gaussians_cross():
    values, _ = two_modes(200_000)
    x = np.linspace(2, 9, 70_001)
    odds = 0.3 * stats.norm.pdf(x, 9, 1.5) - 0.7 * stats.norm.pdf(x, 2, 0.5)
    crossing = x[np.argmax(odds > 0)]
    assert find_threshold(values, "mixture") == pytest.approx(crossing, abs=0.15)
    # A narrow upper heap within a wide lower one, which is not even more likely at its own mean: nobody is called.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-0.3, 3, 300), rng.normal(0, 0.3, 3000)])
    assert find_threshold(values, "mixture") == np.inf


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_no_threshold_is_better_than_the_oracle(cells):
    values, truth = np.array([value for value, _ in cells], float), np.array([positive for _, positive in cells])
    cut = find_threshold(values, "oracle", truth)
    if not truth.any():
        assert cut == np.inf
    else:
        best = max(f1_score(truth, values >= value) for value in np.unique(values))
        assert f1_score(truth, values >= cut) == pytest.approx(best)


@pytest.mark.parametrize("rule", ["otsu", "mixture", "quantile"])
@pytest.mark.parametrize("values", [[], [NAN, NAN], [3.0, 3.0, 3.0], [0.0, NAN]])
def test_values_that_cannot_be_split_call_nobody(rule, values):
    assert find_threshold(values, rule) == np.inf
    assert find_threshold([0.0, 1e-200], "mixture") == np.inf


@pytest.mark.parametrize("rule", ["otsu", "mixture", "quantile", "oracle"])
def test_rules_leave_out_missing_values_and_follow_the_unit(rule):
    values, truth = two_modes(dtype=np.float64)
    expected = find_threshold(values, rule, truth)
    more, more_truth = np.r_[values, NAN, np.inf, -np.inf], np.r_[truth, True, False, True]
    assert find_threshold(more, rule, more_truth) == expected
    for scale in (1e-7, 1e5):
        assert find_threshold(scale * values, rule, truth) == pytest.approx(scale * expected, rel=1e-3)


def test_bad_input():
    with pytest.raises(ValueError, match="'triangle'; it must be one of 'otsu', 'mixture'"):
        find_threshold([0, 1], "triangle")
    for truth in (None, [True]):
        with pytest.raises(ValueError, match="needs `positive`: the truth of every cell"):
            find_threshold([0, 1], "oracle", truth)
