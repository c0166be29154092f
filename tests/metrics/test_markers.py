"""Agreement of a layer with the truth, counted by hand."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from skimage.filters import threshold_otsu

from nimbus_sd.metrics import marker_metrics

NAN = float("nan")


def table(pred: list[float], truth: list[float], **more: list[float]) -> AnnData:
    """One channel; lists are columns of layers."""
    layers = {"nimbus": pred, "gold": truth, **more}
    return AnnData(
        np.zeros((len(pred), 1), np.float32),
        var=pd.DataFrame(index=["CD3"]),
        layers={name: np.array(values, np.float32)[:, None] for name, values in layers.items()},
    )


def row(*args, **settings) -> pd.Series:
    return marker_metrics(table(*args), **settings).loc["CD3"]


def test_counted_by_hand():
    # 3 true positives, 1 false negative, 2 false positives, 4 true negatives.
    found = row([0.9, 0.8, 0.5, 0.4, 0.7, 0.6, 0.1, 0.2, 0.3, 0.0], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    expected = {
        "cells": 10,
        "share_positive": 4 / 10,
        "precision": 3 / 5,
        "recall": 3 / 4,
        "specificity": 4 / 6,
        "f1": 6 / 9,
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
    assert (found["share_positive"], found["specificity"], found["precision"]) == (0, 0.75, 0)
    assert np.isnan(found["f1"]) and np.isnan(found["recall"])
    # Nobody is called positive, so that no call can be right.
    assert np.isnan(row([0.1, 0.2], [0, 0])["precision"])


def test_without_negative_cells_there_is_no_specificity():
    found = row([0.9, 0.1], [1, 1])
    assert np.isnan(found["specificity"])
    assert (found["precision"], found["recall"]) == (1, 0.5)


def test_f1_is_0_where_all_positives_are_missed():
    assert row([0.1, 0.2], [1, 0])["f1"] == 0


def test_without_a_judged_cell_all_is_nan():
    found = row([0.1, 0.9], [NAN, 0.5])
    assert found["cells"] == 0
    assert found[["share_positive", "precision", "recall", "specificity", "f1"]].isna().all()


def test_cells_at_the_threshold_are_positive():
    assert row([0.3, 0.29], [1, 0], threshold=0.3)["f1"] == 1
    assert row([0.3, 0.29], [1, 0], threshold=0.31)["f1"] == 0


def test_otsu_splits_all_values_of_the_channel():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 1, 300), rng.normal(60, 5, 100)])
    truth = np.r_[np.zeros(300), np.ones(100)]
    adata = table(values, truth)
    found = marker_metrics(adata, threshold="otsu").loc["CD3"]
    assert found["threshold"] == pytest.approx(threshold_otsu(np.float32(values)), rel=1e-6)
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
    with pytest.raises(ValueError, match="'triangle'; it must be a number or 'otsu'"):
        row([0.0], [1], threshold="triangle")


def test_the_table_is_left_as_it_was():
    adata = table([0.2, NAN, 0.7], [1, 0.5, 0])
    before = adata.copy()
    marker_metrics(adata, threshold="otsu")
    for name in ("nimbus", "gold"):
        np.testing.assert_array_equal(adata.layers[name], before.layers[name])
    assert list(adata.layers) == list(before.layers)
