"""Agreement, consensus and checks of silver labels: figures by hand, and the planted mistake comes first."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns

NAN = np.nan
TYPES = ["T", "B", "epithelium"]


def annotated(table_of, *columns):
    """One channel; a layer for each annotator."""
    adata = table_of({"a": list(range(1, len(columns[0]) + 1))}, ("CD3", "CD8"))
    names = [f"a{i}" for i in range(len(columns))]
    for name, column in zip(names, columns, strict=True):
        adata.layers[name] = np.full(adata.shape, NAN, np.float32)
        adata.layers[name][:, 0] = column
    return adata, names


@pytest.mark.parametrize(
    "columns, figures",
    [
        # Both say yes 20 times and no 15; one alone says yes 5 times, the other 10: kappa is 0.4.
        (
            [
                [*[1] * 20, *[0.75] * 5, *[0] * 10, *[0.25] * 15, NAN, 1],
                [*[1] * 20, *[0] * 5, *[0.75] * 10, *[0] * 15, 1, NAN],
            ],
            [50, 0.7, 0.4],
        ),
        # Negative, undetermined, positive: cells (3,0,0), (0,3,0), (0,0,3), (2,1,0). Observed (1+1+1+1/3)/4 = 5/6,
        # expected (5/12)^2 + (4/12)^2 + (3/12)^2 = 50/144, so kappa (5/6 - 25/72) / (47/72) = 35/47.
        ([[0, 0.5, 1, 0], [0.25, 0.5, 1, 0], [0, 0.5, 0.75, 0.5]], [4, 0.75, 35 / 47]),
        ([[0, 0], [0, 0.25]], [2, 1, NAN]),
    ],
    ids=["Cohen", "Fleiss", "one state"],
)
def test_kappa_by_hand(table_of, columns, figures):
    adata, names = annotated(table_of, *columns)
    table = ns.labels.agreement(adata, names)
    assert table.index.to_list() == ["CD3", "all"]
    for row in table.index:
        assert table.loc[row].to_list() == pytest.approx(figures, nan_ok=True)


def test_consensus_of_three_settled_through_a_file(table_of, tmp_path):
    adata, names = annotated(
        table_of,
        [1, 1, 1, 0, 1, 0.75, NAN, NAN, 0.25],
        [1, 1, 0, 0.5, 0.75, 0.75, 1, NAN, 0.25],
        [1, 0, 0.5, 1, 0.75, 0, 0, NAN, NAN],
    )
    disputed = ns.labels.consensus(adata, names)
    expected = [1, 1, 0.5, 0.5, 0.75, 0.75, 0.5, NAN, 0.25]
    np.testing.assert_array_equal(adata.layers["gold"].T, [expected, [NAN] * 9])
    assert disputed["instance_id"].to_list() == [2, 3, 4, 6, 7] and set(disputed["channel"]) == {"CD3"}
    assert disputed["label"].to_list() == [1, 0.5, 0.5, 0.75, 0.5]
    assert disputed[names].iloc[1].to_list() == [1, 0, 0.5]
    disputed.assign(label=0.25).to_csv(tmp_path / "settled.csv", index=False)
    ns.labels.from_csv(adata, tmp_path / "settled.csv")
    settled = [1, 0.25, 0.25, 0.25, 0.75, 0.25, 0.25, NAN, 0.25]
    np.testing.assert_array_equal(adata.layers["gold"][:, 0], settled)


def test_bad_layers(table_of):
    adata, names = annotated(table_of, [1, NAN], [NAN, 1])
    for layers, message in ((names[:1], "at least two"), ([names[0]] * 2, "each once"), (names, "No cell is judged")):
        with pytest.raises(ValueError, match=message):
            ns.labels.agreement(adata, layers)
    with pytest.raises(ValueError, match="of an annotator"):
        ns.labels.consensus(adata, names, key_added=names[0])
    adata.obs["evaluation"] = False
    with pytest.raises(ValueError, match="not drawn for evaluation"):
        ns.labels.consensus(adata, names)
    assert "gold" not in adata.layers
    ns.labels.consensus(adata, names, key_added="gold_training")
    adata.layers["a0"][0, 0] = 0.3
    with pytest.raises(ValueError, match=r"layers\['a0'\] has the label"):
        ns.labels.consensus(adata, names)


@pytest.fixture
def tissue():
    """Fifty cells of each type; each marker is ten times brighter in its own type."""
    rng = np.random.default_rng(0)
    kind = np.repeat(TYPES, 50)
    level = np.stack([np.where(kind == name, 100.0, 10.0) for name in TYPES] + [np.full(150, 10.0)], axis=1)
    values = level * rng.lognormal(0, 0.2, level.shape)
    obs = pd.DataFrame({"cell_type": pd.Categorical(kind)}, index=np.arange(150).astype(str))
    var = pd.DataFrame(index=["CD3", "CD20", "PanCK", "noise"])
    return AnnData(obs=obs, var=var, layers={"integrated_expression": values})


@pytest.fixture
def positive_for():
    return pd.DataFrame(np.eye(3), TYPES, ["CD3", "CD20", "PanCK"]).assign(noise=[1, 0, 0])


def test_the_worst_comes_first_and_says_why(tissue, positive_for):
    positive_for.loc["T", "CD20"] = 1
    ns.labels.silver(tissue, positive_for)
    table = ns.labels.check_silver(tissue)
    assert set(table.index[:2]) == {"CD20", "noise"}
    assert set(table["positive_type"][["CD3", "CD20", "noise"]]) == {"T"}
    assert table.loc["CD3", ["auroc", "separation", "reason"]].to_list() == [1, 1, ""]
    # Half of the positive cells, of type B, are above all negative ones.
    assert table.loc["CD20", "auroc"] == pytest.approx(0.75, abs=0.06)
    assert table.loc["CD20", "separation"] == pytest.approx(0.5, abs=0.12)
    assert "(negative) is as bright as 'T' (positive)" in table.loc["CD20", "reason"]
    assert table.loc["noise", "auroc"] == pytest.approx(0.5, abs=0.12)
    values = tissue.layers["integrated_expression"][:, 0]
    values = np.arcsinh(values / np.median(values))
    positive, negative = values[:50], values[50:]
    pooled = np.sqrt((49 * positive.var(ddof=1) + 99 * negative.var(ddof=1)) / 148)
    assert table.loc["CD3", "effect_size"] == pytest.approx((positive.mean() - negative.mean()) / pooled)
    positive_for["CD20"] = [1, 0, 0]
    ns.labels.silver(tissue, positive_for)
    table = ns.labels.check_silver(tissue)
    assert table.index[0] == "CD20" and table.loc["CD20", "separation"] == 0
    assert table.loc["CD20", "reason"] == "'B' (negative) is brighter than 'T' (positive)"


def test_one_class_and_few_cells_have_no_figure(tissue, positive_for):
    positive_for["CD3"] = 1
    tissue.obs["cell_type"] = tissue.obs["cell_type"].cat.add_categories("rare")
    tissue.obs.iloc[:9, 0] = "rare"
    positive_for.loc["rare"] = [1, 1, 1, 0]
    ns.labels.silver(tissue, positive_for)
    table = ns.labels.check_silver(tissue)
    assert table.index[-1] == "CD3" and table.loc["CD3", "reason"] == "no negative cells"
    assert np.isnan(table.loc["CD3", "auroc"])
    # Nine cells of a type do not count there.
    assert table.loc["CD20", "positive_type"] == "B"


def test_gates_need_no_types(tissue):
    ns.labels.silver_from_gates(tissue, {"CD3": 50.0})
    table = ns.labels.check_silver(tissue, cell_type_key=None)
    assert table.index.to_list() == ["CD3"] and table.loc["CD3", ["auroc", "reason"]].to_list() == [1, ""]
    tissue.layers["silver"] = 1 - tissue.layers["silver"]
    reason = ns.labels.check_silver(tissue, cell_type_key=None).loc["CD3", "reason"]
    assert reason == "positive cells are dimmer than negative ones (AUROC 0.00)"
    # With types whose cells have both labels, none is positive or negative.
    ns.labels.silver_from_gates(tissue, {"noise": 10.0})
    assert ns.labels.check_silver(tissue).loc["noise", "positive_type"] == ""
    del tissue.layers["integrated_expression"]
    with pytest.raises(KeyError, match=r"'integrated_expression'.*`nimbus_sd.predict` adds it"):
        ns.labels.check_silver(tissue)


def test_noise_by_hand(tissue):
    adata = tissue[:10].copy()
    silver = np.array([1, 1, 1, 1, 0, 0, 0, 0.5, NAN, 1])
    gold = np.array([1, 1, 0.75, 0, 1, 0, 0.25, 1, 1, 0.5])
    nothing = np.full(10, NAN)
    adata.layers["silver"] = np.stack([silver, gold, nothing, nothing], axis=1)
    adata.layers["gold"] = np.stack([gold, gold, nothing, gold], axis=1)
    table = ns.labels.silver_noise(adata)
    # Of seven cells, one positive is none (of four), and one of four positive ones is missed.
    assert table.index.to_list() == ["CD3", "CD20"] and table.loc["CD20", "wrong"] == 0
    figures = {"cells": 7, "positives": 4, "wrong": 2 / 7, "wrong_positives": 1 / 4, "missed_positives": 1 / 4}
    figures |= {"precision": 3 / 4, "recall": 3 / 4, "specificity": 2 / 3, "f1": 3 / 4}
    assert table.loc["CD3"].to_dict() == pytest.approx(figures)


def test_noise_shows_the_type_that_is_wrong(tissue, positive_for):
    ns.labels.silver(tissue, positive_for)
    tissue.layers["gold"] = tissue.layers["silver"].copy()
    positive_for.loc["B", "CD3"] = 1
    ns.labels.silver(tissue, positive_for)
    table = ns.labels.silver_noise(tissue, by="cell_type")
    assert table.index[0] == ("B", "CD3") and table["wrong"].iloc[0] == 1 and (table["wrong"].iloc[1:] == 0).all()
