"""Calibration errors, and how a correction of the level is fitted."""

import numpy as np
import pytest
from benchmark_module import module


@pytest.fixture(scope="module")
def script():
    return module("score_level")


def drawn(n: int, prevalence: float, seed: int = 0):
    """Cells whose scores are their probabilities."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(prevalence, 1 - prevalence, n)
    return scores, rng.random(n) < scores


def test_the_fit_makes_up_for_the_share_of_positive_cells(script):
    cells = [drawn(20_000, 0.1, seed) for seed in range(3)]
    scale, shift = script.fit(cells)
    # Odds of 1 to 9 are made even.
    assert scale == pytest.approx(1, abs=0.05) and shift == pytest.approx(np.log(9), abs=0.1)
    found = script.table(cells, {"as it is": (1, 0), "fitted": (scale, shift)})
    assert found.loc["fitted", "ECE, balanced"] < 0.02 < found.loc["as it is", "ECE, balanced"]
    assert found.loc["as it is", "ECE"] < 0.01 < found.loc["fitted", "ECE"]
    # A threshold of 0.1 becomes one of 0.5.
    assert found.loc["fitted", "F1 at 0.5"] == pytest.approx(found.loc["as it is", "F1 at 0.1"], abs=0.01)


def test_cells_of_both_sources(script):
    own, frozen = script.training_cells("compact", tissues=2), script.benchmark_cells("compact", 1)
    for scores, positive in own + frozen:
        assert scores.shape == positive.shape and positive.dtype == bool
        assert 0 <= scores.min() <= scores.max() <= 1 and 0 < positive.sum() < len(positive)
