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
    names = ["CD3", "CD20", "PanCK", "noise"]
    level = np.stack([np.where(kind == name, 100.0, 10.0) for name in TYPES] + [np.full(150, 10.0)], axis=1)
    values = level * rng.lognormal(0, 0.2, level.shape)
    obs = pd.DataFrame({"cell_type": pd.Categorical(kind)}, index=np.arange(150).astype(str))
    return AnnData(obs=obs, var=pd.DataFrame(index=names), layers={"integrated_expression": values})


@pytest.fixture
def matrix():
    return pd.DataFrame(np.eye(3), TYPES, ["CD3", "CD20", "PanCK"]).assign(noise=[1, 0, 0])


def test_the_worst_comes_first_and_says_why(adata, matrix):
    # T cells are CD20-positive by mistake.
    matrix.loc["T", "CD20"] = 1
    ns.labels.silver(adata, matrix)
    found = ns.labels.check_silver(adata)
    assert set(found.index[:2]) == {"CD20", "noise"}
    assert set(found["positive_type"][["CD3", "CD20", "noise"]]) == {"T"}
    assert found.loc["CD3", ["auroc", "separation", "reason"]].to_list() == [1, 1, ""]
    # Half of the positive cells, of type B, are above all negative ones.
    assert found.loc["CD20", "auroc"] == pytest.approx(0.75, abs=0.06)
    assert found.loc["CD20", "separation"] == pytest.approx(0.5, abs=0.12)
    assert "(negative) is as bright as 'T' (positive)" in found.loc["CD20", "reason"]
    assert found.loc["noise", "auroc"] == pytest.approx(0.5, abs=0.12)
    matrix["CD20"] = [1, 0, 0]
    ns.labels.silver(adata, matrix)
    found = ns.labels.check_silver(adata)
    assert found.index[0] == "CD20" and found.loc["CD20", "separation"] == 0
    assert found.loc["CD20", "reason"] == "'B' (negative) is brighter than 'T' (positive)"


def test_effect_size_is_cohens_d(adata, matrix):
    ns.labels.silver(adata, matrix)
    values = adata.layers["integrated_expression"][:, 0]
    values = np.arcsinh(values / np.median(values))
    positive, negative = values[:50], values[50:]
    pooled = np.sqrt((49 * positive.var(ddof=1) + 99 * negative.var(ddof=1)) / 148)
    found = ns.labels.check_silver(adata)
    assert found.loc["CD3", "effect_size"] == pytest.approx((positive.mean() - negative.mean()) / pooled)


def test_one_class_and_few_cells_have_no_figure(adata, matrix):
    matrix["CD3"] = 1
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories("rare")
    adata.obs.iloc[:9, 0] = "rare"
    matrix.loc["rare"] = [1, 1, 1, 0]
    ns.labels.silver(adata, matrix)
    found = ns.labels.check_silver(adata)
    assert found.loc["CD3", "reason"] == "no negative cells" and np.isnan(found.loc["CD3", "auroc"])
    assert found.index[-1] == "CD3"
    # Nine cells of a type do not count there.
    assert found.loc["CD20", "positive_type"] == "B"


def test_gates_need_no_types(adata):
    ns.labels.silver_from_gates(adata, {"CD3": 50.0})
    found = ns.labels.check_silver(adata, cell_type_key=None)
    assert found.index.to_list() == ["CD3"] and found.loc["CD3", "auroc"] == 1 and found.loc["CD3", "reason"] == ""
    # With types whose cells have both labels, none is positive or negative.
    ns.labels.silver_from_gates(adata, {"noise": 10.0})
    assert ns.labels.check_silver(adata).loc["noise", "positive_type"] == ""


def test_reversed_labels_have_a_reason_without_types(adata):
    ns.labels.silver_from_gates(adata, {"CD3": 50.0})
    adata.layers["silver"] = 1 - adata.layers["silver"]
    found = ns.labels.check_silver(adata, cell_type_key=None)
    assert found.loc["CD3", "reason"] == "positive cells are dimmer than negative ones (AUROC 0.00)"


def test_noise_by_hand(adata, matrix):
    adata = adata[:10].copy()
    silver = np.array([1, 1, 1, 1, 0, 0, 0, 0.5, np.nan, 1])
    gold = np.array([1, 1, 0.75, 0, 1, 0, 0.25, 1, 1, 0.5])
    nothing = np.full(10, np.nan)
    adata.layers["silver"] = np.stack([silver, gold, nothing, nothing], axis=1)
    adata.layers["gold"] = np.stack([gold, gold, nothing, gold], axis=1)
    found = ns.labels.silver_noise(adata)
    # Of seven cells, one positive is none (of four), and one of four positive ones is missed.
    assert found.index.to_list() == ["CD3", "CD20"]
    row = found.loc["CD3"]
    assert row["cells"] == 7 and row["positives"] == 4
    assert row[["wrong", "wrong_positives", "missed_positives"]].to_list() == [2 / 7, 1 / 4, 1 / 4]
    assert row[["precision", "recall"]].to_list() == [3 / 4, 3 / 4]
    assert found.loc["CD20", "wrong"] == 0


def test_noise_shows_the_type_that_is_wrong(adata, matrix):
    ns.labels.silver(adata, matrix)
    adata.layers["gold"] = adata.layers["silver"].copy()
    matrix.loc["B", "CD3"] = 1
    ns.labels.silver(adata, matrix)
    found = ns.labels.silver_noise(adata, by="cell_type")
    assert found.index[0] == ("B", "CD3") and found["wrong"].iloc[0] == 1 and (found["wrong"].iloc[1:] == 0).all()


def test_undetermined_labels_for_training_are_no_calls(adata):
    adata.layers["gold"] = np.ones(adata.shape, np.float32)
    adata.layers["gold_training"] = np.full(adata.shape, 0.5, np.float32)
    adata.layers["gold_training"][:3] = 1
    assert ns.metrics.marker_metrics(adata, "gold_training").loc["CD3", ["cells", "recall"]].to_list() == [3, 1]


def test_a_table_without_scores_says_what_makes_its_intensities():
    adata = ns.datasets.example().tables["table"]
    adata.layers["silver"] = adata.layers["gold"]
    with pytest.raises(KeyError, match=r"'integrated_expression'.*`nimbus_sd.predict` adds it"):
        ns.labels.check_silver(adata, cell_type_key=None)
