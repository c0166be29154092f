"""Curves: each point against sklearn, and the same as a single threshold gives."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from metric_tables import judged, table
from sklearn import calibration, metrics

from nimbus_sd.metrics import calibration_curve, calibration_error, marker_metrics, pr_curve, roc_curve, threshold_curve

NAN = float("nan")
RATES = ["precision", "recall", "specificity", "f1", "accuracy"]


@pytest.fixture
def adata() -> AnnData:
    """Four markers: usual, without positive cells, without negative cells, not judged."""
    rng = np.random.default_rng(0)
    gold = rng.choice([0, 0.25, 0.5, 0.75, 1], (3000, 4)).astype(np.float32)
    gold[:, 1], gold[:, 2], gold[:, 3] = 0, 1, np.nan
    scores = np.clip(np.nan_to_num(gold) * 0.5 + rng.random((3000, 4)) * 0.6, 0, 1).astype(np.float32)
    scores[::50] = np.nan
    adata = table(nimbus=scores, expression=scores * 200 - 20, gold=gold)
    adata.var_names = list("ABCD")
    return adata


def of(curve: pd.DataFrame, layer: str, channel: str) -> pd.DataFrame:
    return curve[(curve["layer"] == layer) & (curve["channel"] == channel)]


@pytest.mark.parametrize("likely", [True, False])
def test_each_threshold_is_as_marker_metrics_has_it(adata, likely):
    steps = [0.0, 0.3, 0.35, 0.7, 2.0]
    curve = threshold_curve(adata, thresholds=steps, likely=likely)
    assert list(curve.columns) == ["layer", "channel", "threshold", *RATES]
    for step in steps:
        points = curve[curve["threshold"] == step].set_index("channel")
        expected = marker_metrics(adata, threshold=step, likely=likely).loc[["A", "B", "C"], RATES]
        pd.testing.assert_frame_equal(points[RATES], expected)
    # Cells at a threshold are called.
    assert threshold_curve(table(nimbus=[0.3, 0.29], gold=[1, 0]), thresholds=[0.3])["f1"].tolist() == [1]
    # Nobody is judged.
    assert len(of(curve, "nimbus", "D")) == 1 and of(curve, "nimbus", "D")[["threshold", *RATES]].isna().all(axis=None)


def test_steps_cover_the_values_of_a_layer(adata):
    curve = threshold_curve(adata, ["nimbus", "expression"])
    np.testing.assert_allclose(of(curve, "nimbus", "A")["threshold"], np.linspace(0, 1, 101))
    _, values = judged(adata, "expression", 0)
    expected = np.linspace(values.min(), values.max(), 101)
    np.testing.assert_allclose(of(curve, "expression", "A")["threshold"], expected, rtol=1e-5)
    assert of(curve, "expression", "A")["recall"].iloc[0] == 1


def test_points_are_those_of_sklearn(adata):
    adata = adata[:200].copy()
    roc, pr = roc_curve(adata), pr_curve(adata)
    y, score = judged(adata, "nimbus", 0)
    false, true, cuts = metrics.roc_curve(y, score)
    assert list(roc.columns) == ["layer", "channel", "threshold", "false_positive_rate", "true_positive_rate"]
    np.testing.assert_array_equal(of(roc, "nimbus", "A").iloc[:, 2:], np.c_[cuts, false, true])
    precision, recall, cuts = metrics.precision_recall_curve(y, score, drop_intermediate=True)
    assert list(pr.columns) == ["layer", "channel", "threshold", "recall", "precision"]
    np.testing.assert_array_equal(of(pr, "nimbus", "A").iloc[:, 2:], np.c_[np.append(cuts, np.inf), recall, precision])
    # Markers of one class have a row without points.
    for curve in (*(of(roc, "nimbus", channel) for channel in "BCD"), of(pr, "nimbus", "B")):
        assert len(curve) == 1 and curve.iloc[:, 2:].isna().all(axis=None)
    assert (of(pr, "nimbus", "C")["precision"] == 1).all()


def test_pooled_curves_are_short_and_keep_their_ends(adata):
    roc, pr = roc_curve(adata, average="pooled"), pr_curve(adata, average="pooled")
    assert len(roc) <= 1000 and len(pr) == 1000
    assert roc[["false_positive_rate", "true_positive_rate"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]
    assert pr["recall"].iloc[[0, -1]].tolist() == [1, 0]
    curve = threshold_curve(adata, thresholds=[0.4], average="pooled")
    y, score = judged(adata, "nimbus", slice(None))
    assert curve["channel"].tolist() == ["all"]
    assert curve["f1"].item() == pytest.approx(metrics.f1_score(y, score >= np.float32(0.4)))


@pytest.mark.parametrize("function", [threshold_curve, roc_curve, pr_curve])
def test_bad_input(adata, function):
    with pytest.raises(KeyError, match="no layer 'silver'"):
        function(adata, ["nimbus", "silver"])
    with pytest.raises(ValueError, match="`average` is 'macro'"):
        function(adata, average="macro")


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    score = rng.random((400, 2))
    gold = rng.choice([0, 0.25, 0.5, 0.75, 1, NAN], (400, 2))
    score[rng.random((400, 2)) < 0.1] = NAN
    return table(np.float64, nimbus=score, gold=gold, other=score**2, big=score * 100)


@pytest.mark.parametrize("likely", [True, False])
@pytest.mark.parametrize("by_channel", [True, False])
def test_the_calibration_curve_is_that_of_sklearn(scores, by_channel, likely):
    found = calibration_curve(scores, n_bins=7, by_channel=by_channel, likely=likely)
    for channel, name in [(0, "CD3"), (1, "CD8")] if by_channel else [([0, 1], "all")]:
        positive, score = judged(scores, "nimbus", channel, likely)
        observed, mean = calibration.calibration_curve(positive, score, n_bins=7)
        curve = found[found["channel"] == name]
        np.testing.assert_allclose(curve[["score", "observed"]], np.c_[mean, observed])
        assert curve["bin"].to_list() == list(range(7)) and curve["cells"].sum() == len(score)


def test_errors_counted_by_hand():
    # Two bins: 0.2 and 0.4 with one positive of two, 0.6 and 1 with two of two.
    found = calibration_error(table(np.float64, nimbus=[0.2, 0.4, 0.6, 1.0], gold=[0, 1, 1, 1]), n_bins=2).loc["CD3"]
    assert found["cells"] == 4 and found["positives"] == 3
    assert found["brier"] == pytest.approx((0.04 + 0.36 + 0.16 + 0) / 4)
    assert found["ece"] == pytest.approx(0.5 * abs(0.3 - 0.5) + 0.5 * abs(0.8 - 1))
    # The negative cell weighs 1/2, each positive one 1/6.
    first = abs((0.2 * 1 / 2 + 0.4 * 1 / 6) - 1 / 6)
    assert found["ece_balanced"] == pytest.approx(first + abs((0.6 + 1) / 6 - 2 / 6))


def test_several_layers_and_the_row_of_all(scores):
    found = calibration_error(scores, ["nimbus", "other"])
    assert found.index.names == ["layer", "channel"] and list(found.loc["other"].index) == ["CD3", "CD8", "all"]
    pd.testing.assert_frame_equal(found.loc["other"], calibration_error(scores, "other"))
    positive, score = judged(scores, "other", [0, 1])
    assert found.loc[("other", "all"), "brier"] == pytest.approx(metrics.brier_score_loss(positive, score))
    assert list(calibration_curve(scores, ["nimbus", "other"])["layer"].unique()) == ["nimbus", "other"]


def test_markers_of_one_class_or_none_have_no_balanced_error():
    gold = np.stack([np.ones(20), np.full(20, NAN), np.zeros(20)], axis=1)
    adata = table(np.float64, nimbus=np.full((20, 3), 0.25), gold=gold)
    found = calibration_error(adata)
    assert found.loc["CD3", "ece"] == 0.75 and np.isnan(found.loc["CD3", "ece_balanced"])
    assert found.loc["CD8", "cells"] == 0 and found.loc["CD8", ["brier", "ece", "ece_balanced"]].isna().all()
    assert found.loc["CD20", "brier"] == 0.0625
    empty = calibration_curve(adata, by_channel=True).query("channel == 'CD8'")
    assert (empty["cells"] == 0).all() and empty["observed"].isna().all()


@pytest.mark.parametrize("function", [calibration_curve, calibration_error])
def test_warnings_and_errors_of_calibration(scores, function):
    scores.uns["nimbus"] = {"fitted_cells": "fitted"}
    scores.obs["fitted"] = np.arange(400) < 40
    with pytest.warns(UserWarning, match=r"'nimbus' was fitted on the cells of obs\['fitted'\]") as caught:
        function(scores)
    assert caught[0].filename == __file__
    for options, message in (({"n_bins": 0}, "`n_bins` is 0"), ({"pred": "big"}, r"'big' has values outside \[0, 1\]")):
        with pytest.raises(ValueError, match=message):
            function(scores, **options)
