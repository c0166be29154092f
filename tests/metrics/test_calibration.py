import numpy as np
import pandas as pd
import pytest
from metric_tables import judged, table
from sklearn.calibration import calibration_curve as sklearn_curve
from sklearn.metrics import brier_score_loss

from nimbus_sd.metrics import calibration_curve, calibration_error

NAN = float("nan")


def scored(pred, truth, **layers):
    return table(np.float64, nimbus=pred, gold=truth, **layers)


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    score = rng.random((400, 2))
    gold = rng.choice([0, 0.25, 0.5, 0.75, 1, NAN], (400, 2))
    score[rng.random((400, 2)) < 0.1] = NAN
    return scored(score, gold, other=score**2)


@pytest.mark.parametrize("likely", [True, False])
@pytest.mark.parametrize("by_channel", [True, False])
def test_the_curve_is_that_of_sklearn(adata, by_channel, likely):
    found = calibration_curve(adata, n_bins=7, by_channel=by_channel, likely=likely)
    for channel, name in [(0, "CD3"), (1, "CD8")] if by_channel else [([0, 1], "all")]:
        positive, score = judged(adata, "nimbus", channel, likely)
        observed, mean = sklearn_curve(positive, score, n_bins=7)
        curve = found[found["channel"] == name]
        np.testing.assert_allclose(curve[["score", "observed"]], np.c_[mean, observed])
        assert curve["bin"].to_list() == list(range(7)) and curve["cells"].sum() == len(score)


def test_errors_counted_by_hand():
    # Two bins: 0.2 and 0.4 with one positive of two, 0.6 and 1 with two of two.
    found = calibration_error(scored([0.2, 0.4, 0.6, 1.0], [0, 1, 1, 1]), n_bins=2).loc["CD3"]
    assert found["cells"] == 4 and found["positives"] == 3
    assert found["brier"] == pytest.approx((0.04 + 0.36 + 0.16 + 0) / 4)
    assert found["ece"] == pytest.approx(0.5 * abs(0.3 - 0.5) + 0.5 * abs(0.8 - 1))
    # The negative cell weighs 1/2, each positive one 1/6.
    first = abs((0.2 * 1 / 2 + 0.4 * 1 / 6) - 1 / 6)
    assert found["ece_balanced"] == pytest.approx(first + abs((0.6 + 1) / 6 - 2 / 6))


def test_several_layers_and_the_row_of_all(adata):
    found = calibration_error(adata, ["nimbus", "other"])
    assert found.index.names == ["layer", "channel"] and list(found.loc["other"].index) == ["CD3", "CD8", "all"]
    pd.testing.assert_frame_equal(found.loc["other"], calibration_error(adata, "other"))
    positive, score = judged(adata, "other", [0, 1])
    assert found.loc[("other", "all"), "brier"] == pytest.approx(brier_score_loss(positive, score))
    assert list(calibration_curve(adata, ["nimbus", "other"])["layer"].unique()) == ["nimbus", "other"]


def test_rare_markers_and_one_class_or_none():
    # Balanced, a rare marker's positive cells count that are missed.
    found = calibration_error(scored([0.01] * 1000, [0] * 990 + [1] * 10)).loc["CD3"]
    assert found["ece"] == pytest.approx(0) and found["ece_balanced"] == pytest.approx(0.49)
    adata = scored(np.full((20, 3), 0.25), np.stack([np.ones(20), np.full(20, NAN), np.zeros(20)], axis=1))
    found = calibration_error(adata)
    assert found.loc["CD3", "ece"] == 0.75 and np.isnan(found.loc["CD3", "ece_balanced"])
    assert found.loc["CD8", "cells"] == 0 and found.loc["CD8", ["brier", "ece", "ece_balanced"]].isna().all()
    assert found.loc["CD20", "brier"] == 0.0625
    empty = calibration_curve(adata, by_channel=True).query("channel == 'CD8'")
    assert (empty["cells"] == 0).all() and empty["observed"].isna().all()


@pytest.mark.parametrize("function", [calibration_curve, calibration_error])
def test_warnings_and_errors(adata, function):
    adata.uns["nimbus"] = {"fitted_cells": "fitted"}
    adata.obs["fitted"] = np.arange(400) < 40
    with pytest.warns(UserWarning, match=r"'nimbus' was fitted on the cells of obs\['fitted'\]") as caught:
        function(adata)
    assert caught[0].filename == __file__
    adata.layers["big"] = adata.layers["nimbus"] * 100
    with pytest.raises(ValueError, match="`n_bins` is 0"):
        function(adata, n_bins=0)
    with pytest.raises(ValueError, match=r"'big' has values outside \[0, 1\]"):
        function(adata, "big")
