import numpy as np
import pandas as pd
import pytest
from metric_tables import table
from scipy import stats

from nimbus_sd.metrics import describe, image_statistics, outside, score_shape

NAN = float("nan")


def image_table(expression, factors, key):
    adata = table(np.float64, integrated_expression=expression)
    adata.varm[f"{key}_normalization"] = pd.DataFrame({"factor": factors}, index=adata.var_names)
    return adata


def test_image_statistics_counted_by_hand():
    cells = np.array([0.0] * 10 + [5.0] * 50 + [10.0] * 30 + [40.0] * 10)
    # Cells without a value do not count.
    gaps = np.full((7, 2), NAN)
    adata = image_table(np.concatenate([np.stack([cells, cells], axis=1), gaps]), [20.0, NAN], "other")
    found = image_statistics(adata, "other")
    clipped = np.minimum(cells / 20, 1)
    assert list(found.columns) == ["median", "q10", "q99", "zeros", "cv"]
    expected = [0.25, np.quantile(clipped, 0.1), 1.0, 0.1, clipped.std() / clipped.mean()]
    assert found.loc["CD3"].to_list() == pytest.approx(expected)
    assert found.loc["CD8"].isna().all()
    with pytest.raises(KeyError, match=r"no varm\['nimbus_normalization'\]"):
        image_statistics(adata)


def test_too_few_cells_or_no_signal():
    assert all(np.isnan(value) for value in describe(np.ones(19)).values())
    dark = describe(np.zeros(20))
    assert dark["zeros"] == 1 and np.isnan(dark["cv"])


def test_outside_names_the_statistic_and_its_side():
    ranges = {
        "median": {"low": 0.1, "high": 0.5, "false_alarm": 0.0125},
        "cv": {"low": 0.2, "high": 6.0, "false_alarm": 0.02},
        "unheard": {"low": 0.0, "high": 0.0, "false_alarm": 0.0},
    }
    assert outside({"median": 0.5, "cv": 0.2}, ranges) == []
    assert outside({"median": NAN, "cv": 6.5}, ranges) == [("cv", "high")]
    assert len(outside({"median": 0.0, "cv": 0.1}, ranges)) == 2


def shape(values, gold=None, **options):
    adata = table(np.float64, nimbus=values, gold=values if gold is None else gold)
    return score_shape(adata, truth=None if gold is None else "gold", **options).loc["CD3"]


def test_bimodality_is_sarles_with_sample_correction():
    values = np.random.default_rng(0).beta(2, 5, 40)
    n = len(values)
    m2, m3, m4 = (np.mean((values - values.mean()) ** k) for k in (2, 3, 4))
    skewness = np.sqrt(n * (n - 1)) / (n - 2) * m3 / m2**1.5
    kurtosis = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6)
    expected = (skewness**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
    assert shape(values)["bimodality"] == pytest.approx(expected)


@pytest.mark.parametrize("apart", [0, 1, 2, 4])
def test_overlap_of_two_normal_distributions(apart):
    rng = np.random.default_rng(2)
    state = np.arange(20_000) % 2
    found = shape(rng.standard_normal(20_000) + apart * state, state)
    # The kernel, a sixth of the width, adds at most 0.01.
    assert found["overlap"] == pytest.approx(2 * stats.norm.cdf(-apart / 2), abs=0.02)
    assert np.isnan(found["middle"])


def test_overlap_does_not_depend_on_the_share_of_positive_cells_or_the_unit():
    rng = np.random.default_rng(3)
    state = rng.random(20_000) < 0.05
    values = np.where(state, rng.beta(6, 4, 20_000), rng.beta(2, 8, 20_000))
    rare = shape(values, state)["overlap"]
    grid = np.linspace(0, 1, 10_001)
    expected = np.minimum(stats.beta.pdf(grid, 6, 4), stats.beta.pdf(grid, 2, 8)).mean()
    assert rare == pytest.approx(expected, abs=0.03)
    assert shape(1000 * values, state)["overlap"] == pytest.approx(rare)
    assert shape(np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], 50))["overlap"] < 1e-6


def test_the_middle_has_both_its_ends():
    values = [0.0, 0.1, 0.24, 0.25, 0.5, 0.75, 0.76, 0.9, 1.0, NAN, 0.3]
    found = shape(values)
    assert found["middle"] == pytest.approx(0.4) and found["cells"] == 10 and np.isnan(found["overlap"])
    assert shape(values, middle=(0, 1))["middle"] == 1
    for middle in ((0.7, 0.3), (-1, 1)):
        with pytest.raises(ValueError, match="`middle` is"):
            shape(values, middle=middle)


def test_undetermined_and_doubtful_labels():
    values = np.random.default_rng(4).random(200)
    gold = np.where(values > 0.5, 1.0, 0.0)
    gold[:100] = np.where(values[:100] > 0.5, 0.25, 0.75)
    with_doubt, without = (shape(values, gold, likely=likely)["overlap"] for likely in (True, False))
    gold[:100] = 0.5
    assert with_doubt > without == shape(values, gold)["overlap"]


def test_several_layers_and_too_few_cells():
    values = np.random.default_rng(5).random((30, 3))
    values[9:, 1] = NAN
    values[:, 2] = 0.4
    adata = table(np.float64, nimbus=values, gold=(values > 0.5).astype(float), integrated_expression=values * 50)
    found = score_shape(adata, ["nimbus", "integrated_expression"], "gold")
    assert found.index.names == ["layer", "channel"]
    pd.testing.assert_frame_equal(found.loc["nimbus"], score_shape(adata, truth="gold"))
    few, same = found.loc[("nimbus", "CD8")], found.loc[("nimbus", "CD20")]
    assert few["cells"] == 9 and few[["bimodality", "overlap", "middle"]].isna().all()
    assert same["middle"] == 1 and same[["bimodality", "overlap"]].isna().all()
    assert found.loc[("nimbus", "all"), "cells"] == 69
    scaled = found.loc[("integrated_expression", "CD3")]
    assert scaled["bimodality"] == pytest.approx(found.loc[("nimbus", "CD3"), "bimodality"])
