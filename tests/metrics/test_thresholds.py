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


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_otsu_of_whole_numbers_calls_those_above_that_of_skimage(dtype):
    values, _ = two_modes(dtype=dtype)
    np.testing.assert_array_equal(values >= find_threshold(values, "otsu"), values > threshold_otsu(values))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_otsu_of_numbers_is_the_upper_edge_of_the_bin_of_skimage(dtype):
    values, _ = two_modes(dtype=dtype)
    edges = np.histogram_bin_edges(values, 256)
    bin_of_threshold = np.searchsorted(edges, threshold_otsu(values)) - 1
    assert find_threshold(values, "otsu") == pytest.approx(edges[bin_of_threshold + 1], rel=1e-6)


def test_otsu_leaves_all_of_a_narrow_lower_mode_below():
    # skimage gives the centre of the one bin that holds the lower mode, with half of it above.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(1, 0.001, 500), rng.normal(60, 5, 100)])
    assert (values >= find_threshold(values, "otsu")).sum() == 100


def test_otsu_of_two_whole_numbers_parts_them():
    # skimage gives the lower of them: at or above it is everybody.
    values = np.array([3, 3, 3, 7])
    np.testing.assert_array_equal(values >= find_threshold(values, "otsu"), [False, False, False, True])


def test_a_mixture_parts_where_its_gaussians_cross():
    values, _ = two_modes(200_000)
    x = np.linspace(2, 9, 70_001)
    odds = 0.3 * stats.norm.pdf(x, 9, 1.5) - 0.7 * stats.norm.pdf(x, 2, 0.5)
    crossing = x[np.argmax(odds > 0)]
    assert find_threshold(values, "mixture") == pytest.approx(crossing, abs=0.15)
    assert find_threshold(values, "mixture") == find_threshold(values.copy(), "mixture")


@pytest.mark.parametrize("scale", [1e-7, 1e5])
def test_rules_follow_the_unit(scale):
    values, upper = two_modes(dtype=np.float64)
    for rule in ("otsu", "mixture", "quantile", "oracle"):
        expected = scale * find_threshold(values, rule, upper)
        assert find_threshold(scale * values, rule, upper) == pytest.approx(expected, rel=1e-3), rule


def test_a_mixture_in_which_one_covers_the_other_calls_nobody():
    rng = np.random.default_rng(0)
    # A wide lower and a narrow upper heap within it: the lower one is nowhere more likely at its own mean.
    values = np.concatenate([rng.normal(-0.3, 3, 300), rng.normal(0, 0.3, 3000)])
    assert find_threshold(values, "mixture") == np.inf


def test_the_quantile_calls_a_tenth():
    values = np.random.default_rng(0).permutation(1000).astype(np.float32)
    assert (values >= find_threshold(values, "quantile")).sum() == 100
    # Ties are not torn apart: most cells are 0, and 0 is not above it.
    values[:950] = 0
    assert (values >= find_threshold(values, "quantile")).sum() == 50


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
def test_values_that_cannot_be_parted_call_nobody(rule, values):
    assert find_threshold(values, rule) == np.inf


@pytest.mark.parametrize("rule", ["otsu", "mixture", "quantile", "oracle"])
def test_missing_values_are_left_out(rule):
    values, truth = two_modes()
    more, known = np.r_[values, NAN, np.inf, -np.inf], np.r_[truth, True, False, True]
    assert find_threshold(more, rule, known) == find_threshold(values, rule, truth)


def test_bad_input():
    with pytest.raises(ValueError, match="'triangle'; it must be one of 'otsu', 'mixture'"):
        find_threshold([0, 1], "triangle")
    for truth in (None, [True]):
        with pytest.raises(ValueError, match="needs `positive`: the truth of every cell"):
            find_threshold([0, 1], "oracle", truth)
