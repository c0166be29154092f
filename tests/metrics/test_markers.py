"""Agreement of a layer with the truth, counted by hand."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import metrics

from nimbus_sd.metrics import find_threshold, marker_metrics

NAN = float("nan")


def table(pred: list[float], truth: list[float], **more: list[float]) -> AnnData:
    """One channel; lists are columns of layers."""
    layers = {"nimbus": pred, "gold": truth, **more}
    return AnnData(
        np.zeros((len(pred), 1), np.float32),
        var=pd.DataFrame(index=["CD3"]),
        obs=pd.DataFrame({"region": "fov1"}, index=[str(i) for i in range(len(pred))]),
        layers={name: np.array(values, np.float32)[:, None] for name, values in layers.items()},
    )


def row(*args, **settings) -> pd.Series:
    return marker_metrics(table(*args), **settings).loc["CD3"]


def test_counted_by_hand():
    # 3 true positives, 1 false negative, 2 false positives, 4 true negatives.
    found = row([0.9, 0.8, 0.5, 0.4, 0.7, 0.6, 0.1, 0.2, 0.3, 0.0], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    expected = {
        "cells": 10,
        "positives": 4,
        "share_positive": 4 / 10,
        "precision": 3 / 5,
        "recall": 3 / 4,
        "specificity": 4 / 6,
        "f1": 6 / 9,
        "accuracy": 7 / 10,
        # Of 4 x 6 pairs the positive cell has the larger score in 6 + 6 + 4 + 4.
        "auroc": 20 / 24,
        # Recall rises at 0.9, 0.8, 0.5 and 0.4, where precision is 1, 1, 3 / 5 and 4 / 6.
        "average_precision": (1 + 1 + 3 / 5 + 4 / 6) / 4,
        "threshold": 0.5,
    }
    assert list(found.index) == list(expected)
    assert found.to_dict() == pytest.approx(expected)


def test_each_channel_has_a_row_of_its_own():
    adata = AnnData(
        np.zeros((2, 3), np.float32),
        var=pd.DataFrame(index=["CD3", "CD8", "CD20"]),
        layers={"nimbus": np.array([[1, 0, 1], [0, 1, 1.0]]), "gold": np.array([[1, 1, 1], [0, 0, 1.0]])},
    )
    found = marker_metrics(adata)
    assert list(found.index) == ["CD3", "CD8", "CD20"]
    np.testing.assert_array_equal(found["f1"], [1, 0, 1])
    assert found["cells"].dtype.kind == "i"


def test_undetermined_and_missing_are_left_out():
    found = row([0.9, 0.9, 0.9, NAN, NAN, 0.1, np.inf], [1, 0.5, NAN, 1, 0, 0, 1])
    assert (found["cells"], found["share_positive"], found["f1"], found["specificity"]) == (2, 0.5, 1, 1)


def test_likely_labels_count_as_what_they_are_likely_to_be():
    found = row([0.9, 0.9, 0.1, 0.1], [0.75, 0.25, 0.25, 1])
    assert (found["cells"], found["share_positive"]) == (4, 0.5)
    assert (found["precision"], found["recall"], found["specificity"]) == (0.5, 0.5, 0.5)


def test_without_positive_cells_there_is_only_specificity():
    found = row([0.9, 0.1, 0.2, 0.3], [0, 0, 0, 0])
    assert (found["positives"], found["share_positive"], found["specificity"]) == (0, 0, 0.75)
    assert found[["precision", "recall", "f1", "accuracy", "auroc", "average_precision"]].isna().all()


def test_who_calls_nobody_has_no_precision_to_boast_of():
    found = row([0.1, 0.2], [0, 1])
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


def test_without_negative_cells_there_is_no_specificity():
    found = row([0.9, 0.1], [1, 1])
    assert np.isnan(found["specificity"]) and np.isnan(found["auroc"])
    assert (found["precision"], found["recall"], found["accuracy"]) == (1, 0.5, 0.5)
    assert found["f1"] == pytest.approx(2 / 3)


def test_f1_is_0_where_all_positives_are_missed():
    assert row([0.1, 0.2], [1, 0])["f1"] == 0


def test_without_a_judged_cell_all_is_nan():
    adata = AnnData(
        np.zeros((2, 2), np.float32),
        var=pd.DataFrame(index=["CD3", "CD8"]),
        layers={"nimbus": np.array([[0.1, 0.1], [0.9, 0.9]]), "gold": np.array([[NAN, 0], [0.5, 1]])},
    )
    found = marker_metrics(adata)
    assert found.loc["CD3", ["cells", "positives"]].tolist() == [0, 0]
    assert found.loc["CD3"].drop(["cells", "positives", "threshold"]).isna().all()
    assert found.loc["CD8", "f1"] == 1


def test_without_a_score_all_is_nan():
    found = row([NAN, NAN, NAN], [0, 1, 1], n_boot=10)
    assert found["cells"] == 0
    assert found[["recall", "specificity", "auroc", "f1_low", "f1_high"]].isna().all()


def test_cells_at_the_threshold_are_positive():
    assert row([0.3, 0.29], [1, 0], threshold=0.3)["f1"] == 1
    assert row([0.3, 0.29], [1, 0], threshold=0.31)["f1"] == 0


def test_otsu_splits_all_values_of_the_channel():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 1, 300), rng.normal(60, 5, 100)])
    truth = np.r_[np.zeros(300), np.ones(100)]
    adata = table(values, truth)
    found = marker_metrics(adata, threshold="otsu").loc["CD3"]
    assert found["threshold"] == find_threshold(np.float32(values), "otsu")
    assert 12 < found["threshold"] < 50
    assert found["f1"] > 0.99
    # The threshold is the lab's: it knows nothing of who was judged.
    few = np.full(400, NAN)
    few[[0, 1, 300, 301]] = truth[[0, 1, 300, 301]]
    assert marker_metrics(table(values, few), threshold="otsu").loc["CD3", "threshold"] == found["threshold"]


def test_otsu_of_equal_or_missing_values_calls_nobody():
    found = row([5.0, 5.0], [1, 0], threshold="otsu")
    assert (found["f1"], found["specificity"]) == (0, 1)
    assert row([NAN, NAN], [1, 0], threshold="otsu")["cells"] == 0
    assert row([NAN, NAN], [1, 0], threshold="otsu")["threshold"] == np.inf


def test_layers_by_name():
    adata = table([0.0, 1.0], [1, 0], integrated_expression=[9.0, 2.0], silver=[0.0, 1.0])
    assert marker_metrics(adata)["f1"].item() == 0
    assert marker_metrics(adata, "integrated_expression", threshold="otsu")["f1"].item() == 1
    assert marker_metrics(adata, truth="silver")["f1"].item() == 1


def test_sparse_layers():
    adata = table([0.9, 0.0, 0.0], [1, 0, 0])
    adata.layers["nimbus"] = sparse.csr_matrix(adata.layers["nimbus"])
    assert marker_metrics(adata)["f1"].item() == 1


@pytest.mark.parametrize("layers", [{"pred": "nimbos"}, {"truth": "silver"}])
def test_a_layer_that_does_not_exist_names_those_that_do(layers):
    (missing,) = layers.values()
    with pytest.raises(KeyError, match=rf"no layer '{missing}'; there are \['gold', 'nimbus'\]"):
        marker_metrics(table([0.0], [1]), **layers)


def test_an_unknown_threshold_is_an_error():
    with pytest.raises(ValueError, match=r"'triangle'; it must be a number, .*'otsu', 'mixture'"):
        row([0.0], [1], threshold="triangle")


@pytest.mark.parametrize(("gold", "settings"), [([NAN, 0.5], {}), ([0.75, 0.25], {"likely": False})])
def test_a_truth_without_a_judged_cell_is_an_error(gold, settings):
    with pytest.raises(ValueError, match="'gold' labels no cell as positive or negative"):
        row([0.1, 0.9], gold, **settings)


@pytest.mark.parametrize("label", [-1.0, 1.5, 2.0, np.inf])
def test_labels_outside_of_0_and_1_are_an_error(label):
    with pytest.raises(ValueError, match=r"'gold' holds labels from .*; they must be in \[0, 1\]"):
        row([0.1, 0.9, 0.2], [0, NAN, label])


def test_without_likely_labels():
    found = row([0.9, 0.1, 0.1, 0.9], [1, 0.75, 0, 0.25], likely=False)
    assert (found["cells"], found["positives"], found["f1"], found["specificity"]) == (2, 1, 1, 1)


def test_undetermined_cells_of_silver_are_no_answer():
    adata = table([0.9, 0.5, 0.1], [1, 0, 0], silver=[1, 0.5, 0.25])
    found = marker_metrics(adata, ["nimbus", "silver"])
    assert found.loc[("nimbus", "CD3"), ["cells", "specificity"]].tolist() == [3, 0.5]
    assert found.loc[("silver", "CD3"), ["cells", "specificity"]].tolist() == [2, 1]


def two_channels() -> AnnData:
    return AnnData(
        np.zeros((4, 2), np.float32),
        var=pd.DataFrame(index=["CD3", "CD8"]),
        layers={
            "nimbus": np.array([[0.9, 0.4], [0.6, 0.3], [0.2, 0.2], [0.1, 0.1]], np.float32),
            "expression": np.array([[90, 1], [20, 2], [30, 30], [10, 40]], np.float32),
            "gold": np.array([[1, 1], [0, 1], [0, 0], [0, 0]], np.float32),
        },
    )


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_a_threshold_for_each_channel(kind):
    found = marker_metrics(two_channels(), threshold=kind({"CD8": 0.25, "CD3": 0.7}))
    assert found["f1"].tolist() == [1, 1]
    assert found["threshold"].tolist() == [0.7, 0.25]
    with pytest.raises(KeyError, match=r"lacks the channel\(s\) \['CD8'\].*names \['CD4'\], which are no channels"):
        marker_metrics(two_channels(), threshold={"CD3": 0.5, "CD4": 0.5})


def test_a_threshold_for_each_layer():
    thresholds = {"expression": {"CD3": 50, "CD8": 0}, "nimbus": "oracle"}
    found = marker_metrics(two_channels(), ["nimbus", "expression"], threshold=thresholds)
    assert found.index.names == ["layer", "channel"]
    assert list(found.index) == [("nimbus", "CD3"), ("nimbus", "CD8"), ("expression", "CD3"), ("expression", "CD8")]
    assert found["f1"].tolist() == pytest.approx([1, 1, 1, 2 / 3])
    with pytest.raises(KeyError, match=r"layers \['expression'\] and lacks \['nimbus'\]"):
        marker_metrics(two_channels(), ["nimbus", "expression"], threshold={"expression": "otsu"})


def test_layers_side_by_side_are_those_alone():
    both = marker_metrics(two_channels(), ["expression", "nimbus"], threshold="otsu")
    for name in ("expression", "nimbus"):
        pd.testing.assert_frame_equal(both.loc[name], marker_metrics(two_channels(), name, threshold="otsu"))


numbers = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.7, 1.0, NAN])
labels = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN])


@given(
    st.lists(st.tuples(numbers, labels), min_size=3, max_size=40), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_as_sklearn_has_it(cells, threshold, likely):
    values, gold = np.array([*cells, (0.4, 0), (0.6, 1)]).T
    found = row(values, gold, threshold=threshold, likely=likely)
    keep = np.isfinite(values) & np.isin(gold, [0, 0.25, 0.75, 1] if likely else [0, 1])
    y, called, score = gold[keep] > 0.5, values[keep] >= threshold, values[keep]
    assert (found["cells"], found["positives"]) == (keep.sum(), y.sum())
    expected = {
        "precision": metrics.precision_score(y, called, zero_division=0),
        "recall": metrics.recall_score(y, called),
        "specificity": metrics.recall_score(~y, ~called),
        "f1": metrics.f1_score(y, called),
        "accuracy": metrics.accuracy_score(y, called),
        "auroc": metrics.roc_auc_score(y, score),
        "average_precision": metrics.average_precision_score(y, score),
    }
    assert found[list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)


def test_the_table_is_left_as_it_was():
    adata = table([0.2, NAN, 0.7], [1, 0.5, 0])
    before = adata.copy()
    marker_metrics(adata, threshold="otsu")
    for name in ("nimbus", "gold"):
        np.testing.assert_array_equal(adata.layers[name], before.layers[name])
    assert list(adata.layers) == list(before.layers)


@pytest.mark.parametrize("average", [None, "macro", "pooled"])
def test_a_group_that_nobody_judged_has_no_figures_nor_intervals(average):
    rng = np.random.default_rng(0)
    adata = table(rng.random(60).tolist(), [*rng.integers(0, 2, 30).tolist(), *[NAN] * 30])
    adata.obs["type"], adata.obs["region"] = ["T"] * 30 + ["B"] * 30, "a"
    found = marker_metrics(adata, by="type", average=average, n_boot=5).reset_index().set_index("type")
    assert found.loc["B", "cells"] == 0 and np.isnan(found.loc["B", "f1"]) and np.isnan(found.loc["B", "f1_low"])
    assert found.loc["T", "cells"] == 30 and found.loc["T", "f1_low"] < found.loc["T", "f1"]


def test_a_threshold_for_scores_on_other_values_is_warned_of():
    with pytest.warns(UserWarning, match=r"Layer 'nimbus' has values outside \[0, 1\]") as caught:
        marker_metrics(table([50.0, 2.0], [1, 0]))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("threshold", [NAN, {"CD3": NAN}, None, True, "0.5"])
def test_a_threshold_that_is_no_number(threshold):
    with pytest.raises(ValueError, match="`threshold` is"):
        row([0.9, 0.1], [1, 0], threshold=threshold)


def test_what_is_no_table_is_said():
    with pytest.raises(TypeError, match=r"a table of cells \(AnnData\) and was given dict"):
        marker_metrics({})
    adata = table([1.0, 0.0], [1, 0])
    adata.layers["words"] = np.array([["a"], ["b"]])
    with pytest.raises(TypeError, match="Layer 'words' holds <U1; it must hold numbers"):
        marker_metrics(adata, "words")
    with pytest.raises(ValueError, match="names no layer"):
        marker_metrics(adata, [])


def test_a_layer_of_calls_is_numbers():
    adata = table([1.0, 0.0, 1.0], [1, 0, 0])
    adata.layers["called"] = adata.layers["nimbus"] > 0.5
    called, scores = (marker_metrics(adata, name, threshold="otsu") for name in ("called", "nimbus"))
    pd.testing.assert_frame_equal(called, scores)


def test_regions_are_those_that_the_table_is_annotated_with():
    rng = np.random.default_rng(0)
    adata = table(rng.random(80).tolist(), rng.integers(0, 2, 80).tolist())
    adata.obs["fov"] = np.repeat(list("abcdefgh"), 10)
    adata.uns["spatialdata_attrs"] = {"region_key": "fov"}
    found = marker_metrics(adata, n_boot=5)
    pd.testing.assert_frame_equal(found, marker_metrics(adata, n_boot=5, region_key="fov"))
    assert found["n_regions"].item() == 8


def test_a_layer_fitted_to_the_truth_is_not_praised_in_silence():
    adata = table([0.9, 0.1], [1, 0])
    adata.obs["region"] = ["a", "b"]
    adata.uns["nimbus"] = {"fitted_on": ["a"], "params": {"region_key": "region"}}
    with pytest.warns(UserWarning, match=r"fitted on the truth of region\(s\) 'a', and 50%"):
        marker_metrics(adata)


def test_keys_of_groups_keep_their_types():
    adata = table([0.9, 0.1], [1, 0])
    adata.obs["batch"], adata.obs["age"] = [1, 2], [0.5, 1.5]
    (key, _) = marker_metrics(adata, by=["batch", "age"]).index
    assert key == (1, 0.5, "CD3") and isinstance(key[0], int | np.integer)
