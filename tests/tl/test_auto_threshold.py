"""The automatic threshold, judged by the F1 of its calls on score distributions whose classes are known."""

import itertools

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from nimbus_sd.tl.auto_threshold import auto_threshold


def betas(rng, n, prevalence, negative, positive):
    state = rng.random(n) < prevalence
    return np.where(state, rng.beta(*positive, n), rng.beta(*negative, n)), state


def calibrated(rng, n, prevalence):
    """Two equally wide normal distributions of evidence: the score is exactly the probability."""
    state, apart = rng.random(n) < prevalence, rng.uniform(2.5, 4.5)
    evidence = np.where(state, 1, -1) * apart**2 / 2 + apart * rng.standard_normal(n)
    return expit(evidence + logit(prevalence)), state


def confident(rng, n, prevalence):
    """A network that is right at 0.5: most scores near 0 and 1."""
    negative = rng.uniform(0.4, 1.5), rng.uniform(4, 14)
    return betas(rng, n, prevalence, negative, (rng.uniform(3, 10), rng.uniform(0.5, 2)))


def too_low(rng, n, prevalence):
    """A network that is never sure: positive cells score 0.3 to 0.5 on average."""
    size, mean = rng.uniform(12, 30), rng.uniform(0.3, 0.5)
    negative = rng.uniform(0.4, 1.2), rng.uniform(20, 40)
    return betas(rng, n, prevalence, negative, (size * mean, size * (1 - mean)))


def gains(draw):
    """F1 of the automatic threshold minus F1 of 0.5, over prevalences and numbers of cells."""
    rng = np.random.default_rng(0)
    differences = []
    for prevalence, n, _ in itertools.product((0.005, 0.02, 0.1, 0.3, 0.6), (500, 5000), range(6)):
        score, state = draw(rng, n, prevalence)
        if state.any():
            cut = auto_threshold(score, n_boot=0).threshold
            differences.append(f1_score(state, score >= cut) - f1_score(state, score >= 0.5))
    return np.array(differences)


# Means over 300 draws each were -0.004, 0.012 and 0.39. Where 0.5 is right, little may be lost: where few cells
# are positive the valley lies on their side of it.
@pytest.mark.parametrize(
    ("draw", "mean", "worst"),
    [(calibrated, -0.01, (0.05, -0.05)), (confident, -0.01, (0.05, -0.05)), (too_low, 0.25, (0.02, -0.02))],
)
def test_costs_little_where_half_is_right_and_is_worth_it_where_it_is_wrong(draw, mean, worst):
    difference = gains(draw)
    assert difference.mean() > mean and np.quantile(difference, worst[0]) > worst[1]


@pytest.mark.parametrize(
    ("prevalence", "negative", "positive", "reason", "low", "high"),
    [
        (0.2, (2, 40), (20, 30), "valley between two modes", 0.12, 0.35),
        (0.4, (4, 10), (10, 7), "mixture of two beta distributions", 0.3, 0.5),
    ],
)
def test_two_groups(prevalence, negative, positive, reason, low, high):
    score, state = betas(np.random.default_rng(2), 4000, prevalence, negative, positive)
    cut = auto_threshold(score)
    assert cut.reason == reason and cut.two_groups
    assert low < cut.threshold < high and cut.low <= cut.threshold <= cut.high < cut.low + 0.1
    assert f1_score(state, score >= cut.threshold) > f1_score(state, score >= 0.5)
    assert auto_threshold(1 - score, n_boot=0).threshold == pytest.approx(1 - cut.threshold, abs=0.02)
    assert auto_threshold(np.append(score, np.full(50, np.nan))) == cut


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (np.random.default_rng(0).beta(40, 1, 5000), "0.5: too few cells beyond"),
        (np.random.default_rng(0).beta(5, 6, 5000), "0.5: no two separate groups"),
        (np.array([0.0] * 10 + [1.0] * 9), "0.5: too few cells"),
        (np.full(100, 0.3), "0.5: too few cells beyond"),
        (np.full(5, np.nan), "0.5: too few cells"),
    ],
)
def test_one_half_where_nothing_else_is_known(score, reason):
    cut = auto_threshold(score)
    assert (cut.threshold, cut.reason, cut.two_groups) == (0.5, reason, False) and cut.low <= 0.5 <= cut.high


def test_one_kind_of_cell_is_rarely_taken_for_two():
    rng = np.random.default_rng(3)
    shapes = np.exp(rng.uniform(np.log(0.5), np.log(20), (80, 2)))
    split = [auto_threshold(rng.beta(a, b, 2000), n_boot=0).two_groups for a, b in shapes]
    assert np.mean(split) < 0.05


def test_the_interval_shrinks_with_cells_and_covers_what_many_cells_give():
    rng, shapes = np.random.default_rng(4), ((2, 30), (12, 20))
    truth = auto_threshold(betas(rng, 300_000, 0.2, *shapes)[0], n_boot=0).threshold
    few, many = (
        [auto_threshold(betas(rng, n, 0.2, *shapes)[0], n_boot=50, rng=i) for i in range(20)] for n in (300, 5000)
    )
    assert np.mean([cut.low - 0.02 <= truth <= cut.high + 0.02 for cut in few]) >= 0.85
    assert np.median([cut.high - cut.low for cut in many]) < np.median([cut.high - cut.low for cut in few]) / 1.5
