"""The images that the bundled model is judged on, and how it is judged."""

import numpy as np
import pytest
from benchmark_module import module
from sklearn.metrics import f1_score


@pytest.fixture(scope="module")
def benchmark():
    return module("bundled_model")


@pytest.mark.parametrize("number", range(3))
def test_images_are_those_that_were_fixed(benchmark, number):
    lines = benchmark.CHECKSUMS.read_text().splitlines()
    assert len(lines) == len(set(lines)) == benchmark.N_IMAGES
    assert f"{benchmark.checksum(number)}  {number}" == lines[number]


def test_f1_and_the_best_f1_are_those_of_all_thresholds(benchmark):
    rng = np.random.default_rng(0)
    for _ in range(20):
        # With ties, which one threshold cannot part.
        values, positive = rng.integers(0, 8, 30) / 10, np.append(rng.random(29) < 0.4, True)
        best = max(f1_score(positive, values >= cut, zero_division=0) for cut in np.unique(values))
        assert benchmark.best_f1(values, positive) == pytest.approx(best)
        at_half = f1_score(positive, values >= 0.5, zero_division=0)
        assert benchmark.f1(values >= 0.5, positive) == pytest.approx(at_half)


def test_a_model_is_judged_image_by_image(benchmark, small, monkeypatch):
    monkeypatch.setattr(benchmark, "N_IMAGES", 1)
    table = benchmark.evaluate(str(small))
    _, _, known, _ = benchmark.simulated_image(0)
    row = table.loc[0]
    assert row["cells"] == (known[1:] != 0.5).sum()
    assert row["share_positive"] == pytest.approx((known[1:] == 1).sum() / row["cells"])
    assert 0 <= row["f1_score_0.5"] <= row["f1_score_best"] <= 1
    # This image is one where the mean intensity does well, whatever the model.
    assert row["f1_expression_best"] > 2 * row["share_positive"] / (1 + row["share_positive"])
    assert 0 <= row["auroc_score"] <= 1 and row["auroc_expression"] > 0.6
