"""Curves: each point against sklearn, and the same as a single threshold gives."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
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
    layers = {"nimbus": scores, "expression": scores * 200 - 20, "gold": gold}
    return AnnData(np.zeros((3000, 4), np.float32), var=pd.DataFrame(index=list("ABCD")), layers=layers)


def cells(adata: AnnData, layer: str, channel: int | slice) -> tuple[np.ndarray, np.ndarray]:
    values, gold = adata.layers[layer][:, channel].ravel(), adata.layers["gold"][:, channel].ravel()
    keep = np.isfinite(values) & np.isfinite(gold) & (gold != 0.5)
    return gold[keep] > 0.5, values[keep]


def of(curve: pd.DataFrame, layer: str, channel: str) -> pd.DataFrame:
    return curve[(curve["layer"] == layer) & (curve["channel"] == channel)]


def test_each_threshold_is_as_marker_metrics_has_it(adata):
    steps = [0.0, 0.3, 0.35, 0.7, 2.0]
    curve = threshold_curve(adata, thresholds=steps)
    assert list(curve.columns) == ["layer", "channel", "threshold", *RATES]
    for step in steps:
        points = curve[curve["threshold"] == step].set_index("channel")
        expected = marker_metrics(adata, threshold=step).loc[["A", "B", "C"], RATES]
        pd.testing.assert_frame_equal(points[RATES], expected)
    # Nobody is judged.
    assert len(of(curve, "nimbus", "D")) == 1 and of(curve, "nimbus", "D")[["threshold", *RATES]].isna().all(axis=None)


def test_cells_at_a_threshold_are_called():
    gold = np.array([[1], [0]], np.float32)
    adata = AnnData(gold, layers={"nimbus": np.array([[0.3], [0.29]], np.float32), "gold": gold})
    assert threshold_curve(adata, thresholds=[0.3])["f1"].tolist() == [1]


def test_steps_cover_the_values_of_a_layer(adata):
    curve = threshold_curve(adata, ["nimbus", "expression"])
    np.testing.assert_allclose(of(curve, "nimbus", "A")["threshold"], np.linspace(0, 1, 101))
    _, values = cells(adata, "expression", 0)
    np.testing.assert_allclose(
        of(curve, "expression", "A")["threshold"], np.linspace(values.min(), values.max(), 101), rtol=1e-5
    )
    assert of(curve, "expression", "A")["recall"].iloc[0] == 1


@pytest.mark.parametrize("layer", ["nimbus", "expression"])
def test_areas_are_those_of_the_metrics(adata, layer):
    found = marker_metrics(adata, layer)
    roc, pr = of(roc_curve(adata, layer), layer, "A"), of(pr_curve(adata, layer), layer, "A")
    area = metrics.auc(roc["false_positive_rate"], roc["true_positive_rate"])
    assert area == pytest.approx(found.loc["A", "auroc"], abs=1e-3)
    step = -np.diff(pr["recall"]) @ pr["precision"].iloc[:-1]
    assert step == pytest.approx(found.loc["A", "average_precision"], abs=5e-3)


def test_points_are_those_of_sklearn(adata):
    adata = adata[:200].copy()
    y, score = cells(adata, "nimbus", 0)
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
    for channel in "BCD":
        assert of(roc, "nimbus", channel).iloc[:, 2:].isna().to_numpy().tolist() == [[True] * 3]
    assert of(pr, "nimbus", "B").iloc[:, 2:].isna().to_numpy().tolist() == [[True] * 3]
    assert (of(pr, "nimbus", "C")["precision"] == 1).all()


def test_curves_are_short_and_keep_their_ends(adata):
    roc = of(roc_curve(adata, average="pooled"), "nimbus", "all")
    pr = of(pr_curve(adata, average="pooled"), "nimbus", "all")
    assert len(roc) <= 1000 and len(pr) == 1000
    assert roc[["false_positive_rate", "true_positive_rate"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]
    assert pr["recall"].iloc[[0, -1]].tolist() == [1, 0]


def test_pooled_and_without_likely_labels(adata):
    curve = threshold_curve(adata, thresholds=[0.4], average="pooled")
    y, score = cells(adata, "nimbus", slice(None))
    assert curve["channel"].tolist() == ["all"]
    assert curve["f1"].item() == pytest.approx(metrics.f1_score(y, score >= np.float32(0.4)))
    sure = threshold_curve(adata, thresholds=[0.4], likely=False)
    expected = marker_metrics(adata, threshold=0.4, likely=False)["f1"]
    np.testing.assert_array_equal(sure["f1"], expected)


@pytest.mark.parametrize("function", [threshold_curve, roc_curve, pr_curve])
def test_bad_input(adata, function):
    with pytest.raises(KeyError, match=r"no layer 'silver'; there are \['expression', 'gold', 'nimbus'\]"):
        function(adata, ["nimbus", "silver"])
    with pytest.raises(ValueError, match="`average` is 'macro'"):
        function(adata, average="macro")
    adata.layers["gold"][:] = 0.5
    with pytest.raises(ValueError, match="labels no cell"):
        function(adata)
