import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from nimbus_sd.metrics import score_shape

NAN = float("nan")


def table(**layers):
    arrays = {name: np.asarray(values, np.float64).reshape(len(values), -1) for name, values in layers.items()}
    shape = next(iter(arrays.values())).shape
    names = ["CD3", "CD8", "CD20"][: shape[1]]
    return AnnData(np.zeros(shape, np.float32), var=pd.DataFrame(index=names), layers=arrays)


def test_bimodality_is_sarles_with_sample_correction():
    values = np.random.default_rng(0).beta(2, 5, 40)
    n = len(values)
    deviation = values - values.mean()
    m2, m3, m4 = (np.mean(deviation**k) for k in (2, 3, 4))
    skewness = np.sqrt(n * (n - 1)) / (n - 2) * m3 / m2**1.5
    kurtosis = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6)
    expected = (skewness**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
    assert score_shape(table(nimbus=values)).loc["CD3", "bimodality"] == pytest.approx(expected)


def test_bimodality_of_known_distributions():
    rng = np.random.default_rng(1)
    found = [
        score_shape(table(nimbus=values)).loc["CD3", "bimodality"]
        for values in (rng.random(20_000), rng.normal(0.5, 0.05, 20_000), np.repeat([0.0, 1.0], 10_000))
    ]
    assert found == pytest.approx([5 / 9, 1 / 3, 1], abs=0.01)


@pytest.mark.parametrize("apart", [0, 1, 2, 4])
def test_overlap_of_two_normal_distributions(apart):
    rng = np.random.default_rng(2)
    state = np.arange(20_000) % 2
    values = rng.standard_normal(20_000) + apart * state
    found = score_shape(table(nimbus=values, gold=state), truth="gold").loc["CD3"]
    # The kernel, a sixth of the width, adds at most 0.01.
    assert found["overlap"] == pytest.approx(2 * stats.norm.cdf(-apart / 2), abs=0.02)
    assert np.isnan(found["middle"])


def test_overlap_does_not_depend_on_the_share_of_positive_cells_or_the_unit():
    rng = np.random.default_rng(3)
    state = rng.random(20_000) < 0.05
    values = np.where(state, rng.beta(6, 4, 20_000), rng.beta(2, 8, 20_000))
    rare = score_shape(table(nimbus=values, gold=state), truth="gold").loc["CD3", "overlap"]
    grid = np.linspace(0, 1, 10_001)
    expected = np.minimum(stats.beta.pdf(grid, 6, 4), stats.beta.pdf(grid, 2, 8)).mean()
    assert rare == pytest.approx(expected, abs=0.03)
    scaled = score_shape(table(nimbus=1000 * values, gold=state), truth="gold").loc["CD3", "overlap"]
    assert scaled == pytest.approx(rare)


def test_the_two_classes_apart():
    state = np.repeat([0.0, 1.0], 50)
    assert score_shape(table(nimbus=state, gold=state), truth="gold").loc["CD3", "overlap"] < 1e-6


def test_the_middle_has_both_its_ends():
    values = [0.0, 0.1, 0.24, 0.25, 0.5, 0.75, 0.76, 0.9, 1.0, NAN, 0.3]
    found = score_shape(table(nimbus=values)).loc["CD3"]
    assert found["middle"] == pytest.approx(0.4) and found["cells"] == 10 and np.isnan(found["overlap"])
    assert score_shape(table(nimbus=values), middle=(0, 1)).loc["CD3", "middle"] == 1


def test_undetermined_and_doubtful_labels():
    rng = np.random.default_rng(4)
    values = rng.random(200)
    gold = np.where(values > 0.5, 1.0, 0.0)
    gold[:100] = np.where(values[:100] > 0.5, 0.25, 0.75)
    with_doubt = score_shape(table(nimbus=values, gold=gold), truth="gold").loc["CD3", "overlap"]
    without = score_shape(table(nimbus=values, gold=gold), truth="gold", likely=False).loc["CD3", "overlap"]
    gold[:100] = 0.5
    undetermined = score_shape(table(nimbus=values, gold=gold), truth="gold").loc["CD3", "overlap"]
    assert with_doubt > without == undetermined


def test_several_layers_and_too_few_cells():
    rng = np.random.default_rng(5)
    values = rng.random((30, 3))
    values[9:, 1] = NAN
    values[:, 2] = 0.4
    gold = (values > 0.5).astype(float)
    adata = table(nimbus=values, gold=gold, integrated_expression=values * 50)
    found = score_shape(adata, ["nimbus", "integrated_expression"], "gold")
    assert found.index.names == ["layer", "channel"]
    pd.testing.assert_frame_equal(found.loc["nimbus"], score_shape(adata, truth="gold"))
    few, same = found.loc[("nimbus", "CD8")], found.loc[("nimbus", "CD20")]
    assert few["cells"] == 9 and few[["bimodality", "overlap", "middle"]].isna().all()
    assert same["middle"] == 1 and same[["bimodality", "overlap"]].isna().all()
    assert found.loc[("nimbus", "all"), "cells"] == 69
    scaled = found.loc[("integrated_expression", "CD3")]
    assert scaled["bimodality"] == pytest.approx(found.loc[("nimbus", "CD3"), "bimodality"])


def test_what_is_not_allowed():
    adata = table(nimbus=np.ones(20), gold=np.full(20, 0.5))
    for middle in ((0.7, 0.3), (-1, 1)):
        with pytest.raises(ValueError, match="`middle` is"):
            score_shape(adata, middle=middle)
    with pytest.raises(ValueError, match="labels no cell"):
        score_shape(adata, truth="gold")
    with pytest.raises(KeyError, match="no layer 'x'"):
        score_shape(adata, "x")
