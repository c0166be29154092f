"""Labels against intensities and against gold: figures by hand, and the planted mistake comes first."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns

TYPES = ["T", "B", "epithelium"]


@pytest.fixture
def adata():
    """Fifty cells of each type; each marker is ten times brighter in its own type."""
    rng = np.random.default_rng(0)
    kind = np.repeat(TYPES, 50)
    level = np.stack([np.where(kind == name, 100.0, 10.0) for name in TYPES] + [np.full(150, 10.0)], axis=1)
    values = level * rng.lognormal(0, 0.2, level.shape)
    obs = pd.DataFrame({"cell_type": pd.Categorical(kind)}, index=np.arange(150).astype(str))
    var = pd.DataFrame(index=["CD3", "CD20", "PanCK", "noise"])
    return AnnData(obs=obs, var=var, layers={"integrated_expression": values})


@pytest.fixture
def matrix():
    return pd.DataFrame(np.eye(3), TYPES, ["CD3", "CD20", "PanCK"]).assign(noise=[1, 0, 0])


def test_the_worst_comes_first_and_says_why(adata, matrix):
    # T cells are CD20-positive by mistake.
    matrix.loc["T", "CD20"] = 1
    ns.labels.silver(adata, matrix)
    table = ns.labels.check_silver(adata)
    assert set(table.index[:2]) == {"CD20", "noise"}
    assert set(table["positive_type"][["CD3", "CD20", "noise"]]) == {"T"}
    assert table.loc["CD3", ["auroc", "separation", "reason"]].to_list() == [1, 1, ""]
    # Half of the positive cells, of type B, are above all negative ones.
    assert table.loc["CD20", "auroc"] == pytest.approx(0.75, abs=0.06)
    assert table.loc["CD20", "separation"] == pytest.approx(0.5, abs=0.12)
    assert "(negative) is as bright as 'T' (positive)" in table.loc["CD20", "reason"]
    assert table.loc["noise", "auroc"] == pytest.approx(0.5, abs=0.12)
    matrix["CD20"] = [1, 0, 0]
    ns.labels.silver(adata, matrix)
    table = ns.labels.check_silver(adata)
    assert table.index[0] == "CD20" and table.loc["CD20", "separation"] == 0
    assert table.loc["CD20", "reason"] == "'B' (negative) is brighter than 'T' (positive)"


def test_effect_size_is_cohens_d(adata, matrix):
    ns.labels.silver(adata, matrix)
    values = adata.layers["integrated_expression"][:, 0]
    values = np.arcsinh(values / np.median(values))
    positive, negative = values[:50], values[50:]
    pooled = np.sqrt((49 * positive.var(ddof=1) + 99 * negative.var(ddof=1)) / 148)
    effect_size = ns.labels.check_silver(adata).loc["CD3", "effect_size"]
    assert effect_size == pytest.approx((positive.mean() - negative.mean()) / pooled)


def test_one_class_and_few_cells_have_no_figure(adata, matrix):
    matrix["CD3"] = 1
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories("rare")
    adata.obs.iloc[:9, 0] = "rare"
    matrix.loc["rare"] = [1, 1, 1, 0]
    ns.labels.silver(adata, matrix)
    table = ns.labels.check_silver(adata)
    assert table.loc["CD3", "reason"] == "no negative cells" and np.isnan(table.loc["CD3", "auroc"])
    assert table.index[-1] == "CD3"
    # Nine cells of a type do not count there.
    assert table.loc["CD20", "positive_type"] == "B"


def test_gates_need_no_types(adata):
    ns.labels.silver_from_gates(adata, {"CD3": 50.0})
    table = ns.labels.check_silver(adata, cell_type_key=None)
    assert table.index.to_list() == ["CD3"] and table.loc["CD3", ["auroc", "reason"]].to_list() == [1, ""]
    adata.layers["silver"] = 1 - adata.layers["silver"]
    reason = ns.labels.check_silver(adata, cell_type_key=None).loc["CD3", "reason"]
    assert reason == "positive cells are dimmer than negative ones (AUROC 0.00)"
    # With types whose cells have both labels, none is positive or negative.
    ns.labels.silver_from_gates(adata, {"noise": 10.0})
    assert ns.labels.check_silver(adata).loc["noise", "positive_type"] == ""


def test_noise_by_hand(adata):
    adata = adata[:10].copy()
    silver = np.array([1, 1, 1, 1, 0, 0, 0, 0.5, np.nan, 1])
    gold = np.array([1, 1, 0.75, 0, 1, 0, 0.25, 1, 1, 0.5])
    nothing = np.full(10, np.nan)
    adata.layers["silver"] = np.stack([silver, gold, nothing, nothing], axis=1)
    adata.layers["gold"] = np.stack([gold, gold, nothing, gold], axis=1)
    table = ns.labels.silver_noise(adata)
    # Of seven cells, one positive is none (of four), and one of four positive ones is missed.
    assert table.index.to_list() == ["CD3", "CD20"] and table.loc["CD20", "wrong"] == 0
    figures = {"cells": 7, "positives": 4, "wrong": 2 / 7, "wrong_positives": 1 / 4, "missed_positives": 1 / 4}
    assert table.loc["CD3"].to_dict() == pytest.approx(
        figures | {"precision": 3 / 4, "recall": 3 / 4, "specificity": 2 / 3, "f1": 3 / 4}
    )


def test_noise_shows_the_type_that_is_wrong(adata, matrix):
    ns.labels.silver(adata, matrix)
    adata.layers["gold"] = adata.layers["silver"].copy()
    matrix.loc["B", "CD3"] = 1
    ns.labels.silver(adata, matrix)
    table = ns.labels.silver_noise(adata, by="cell_type")
    assert table.index[0] == ("B", "CD3") and table["wrong"].iloc[0] == 1 and (table["wrong"].iloc[1:] == 0).all()


def test_undetermined_labels_for_training_are_no_calls(adata):
    adata.layers["gold_training"] = np.full(adata.shape, 0.5, np.float32)
    adata.layers["gold_training"][:3] = 1
    adata.layers["gold"] = np.ones(adata.shape, np.float32)
    assert ns.metrics.marker_metrics(adata, "gold_training").loc["CD3", ["cells", "recall"]].to_list() == [3, 1]
    del adata.layers["integrated_expression"]
    with pytest.raises(KeyError, match=r"'integrated_expression'.*`nimbus_sd.predict` adds it"):
        ns.labels.check_silver(adata, silver="gold_training", cell_type_key=None)
