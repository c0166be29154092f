"""Curves: each point against sklearn, and the same as a single threshold gives."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from metric_tables import judged, table
from sklearn import metrics

from nimbus_sd.metrics import marker_metrics, pr_curve, roc_curve, threshold_curve

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
    y, score = judged(adata, "nimbus", 0)
    false, true, cuts = metrics.roc_curve(y, score)
    found = of(roc_curve(adata), "nimbus", "A")
    assert list(found.columns) == ["layer", "channel", "threshold", "false_positive_rate", "true_positive_rate"]
    np.testing.assert_array_equal(found.iloc[:, 2:], np.c_[cuts, false, true])
    precision, recall, cuts = metrics.precision_recall_curve(y, score, drop_intermediate=True)
    found = of(pr_curve(adata), "nimbus", "A")
    assert list(found.columns) == ["layer", "channel", "threshold", "recall", "precision"]
    np.testing.assert_array_equal(found.iloc[:, 2:], np.c_[np.append(cuts, np.inf), recall, precision])


def test_markers_of_one_class_have_a_row_without_points(adata):
    roc, pr = roc_curve(adata), pr_curve(adata)
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
