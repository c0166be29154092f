"""Regions for evaluation and cells for training: fair draws, and never both in one region."""

import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns

NAMES = [f"r{i}" for i in range(8)]


@pytest.fixture
def many(table_of):
    """Eight regions of 40 cells; scores are spread evenly, silver is 1 where the score is above 0.6."""
    adata = table_of({name: list(range(1, 41)) for name in NAMES}, ("CD3", "CD20"))
    rng = np.random.default_rng(0)
    adata.layers["nimbus"] = rng.random(adata.shape).astype(np.float32)
    adata.layers["silver"] = (adata.layers["nimbus"] > 0.6).astype(np.float32)
    adata.obs["dataset"] = np.where(adata.obs["region"].isin(NAMES[:3]), "one", "two")
    return adata


def label(adata, region, key_added, tmp_path, channel="CD3"):
    path = tmp_path / "one.csv"
    row = {"region": region, "instance_id": 1, "channel": channel, "label": 1}
    pd.DataFrame([row]).to_csv(path, index=False)
    ns.labels.from_csv(adata, path, key_added=key_added)


def test_regions_are_whole_and_those_of_before_stay(many):
    first = ns.labels.draw_regions(many, 2, rng=1)
    assert len(first) == 2 and ns.labels.evaluation_regions(many) == first
    np.testing.assert_array_equal(many.obs["evaluation"], many.obs["region"].isin(first))
    assert ns.labels.draw_regions(many, 2, rng=2) == first
    more = ns.labels.draw_regions(many, 4)
    assert len(more) == 4 and set(first) < set(more)
    again = many.copy()
    del again.obs["evaluation"]
    assert ns.labels.draw_regions(again, 2, rng=1) == first


def test_each_region_has_the_same_chance(many):
    counts = pd.Series(0, NAMES)
    for seed in range(400):
        many.obs.pop("evaluation") if "evaluation" in many.obs else None
        counts[ns.labels.draw_regions(many, 2, rng=seed)] += 1
    # 400 draws of a quarter: mean 100, standard deviation 8.7; five of these.
    assert counts.between(57, 143).all()


def test_groups_get_equal_numbers(many):
    found = ns.labels.draw_regions(many, 2, by="dataset")
    assert many.obs[many.obs["region"].isin(found)].groupby("dataset")["region"].nunique().to_dict() == {
        "one": 2,
        "two": 2,
    }
    with pytest.raises(ValueError, match=r"4 regions of 'one'.* of 3 only 3"):
        ns.labels.draw_regions(many, 4, by="dataset")
    many.obs["half"] = np.arange(many.n_obs) % 2
    with pytest.raises(ValueError, match="parts the cells of a region"):
        ns.labels.draw_regions(many, 1, by="half")
    with pytest.raises(ValueError, match="`n` is 0"):
        ns.labels.draw_regions(many, 0)


def test_cells_are_uncertain_or_disagree_and_spread(many):
    regions = ns.labels.draw_regions(many, 3)
    drawn = ns.labels.draw_cells(many, 100)
    assert len(drawn) == 100 and not drawn.duplicated(["region", "instance_id", "channel"]).any()
    assert not drawn["region"].isin(regions).any()
    # Five regions and two channels take turns.
    assert (drawn.groupby(["region", "channel"]).size() == 10).all()
    unsure = drawn["reason"] == "uncertain"
    assert 40 <= unsure.sum() <= 70
    assert drawn.loc[unsure, "score"].between(0.25, 0.75).all()
    # Silver is wrong from 0.5 to 0.6.
    assert drawn.loc[~unsure, "score"].between(0.5, 0.6).all() and (drawn.loc[~unsure, "silver"] == 0).all()
    cells = many.obs.reset_index().merge(drawn, on=["region", "instance_id"])
    scores = many.to_df("nimbus")
    assert [scores.loc[row["index"], row["channel"]] for _, row in cells.iterrows()] == cells["score"].to_list()


def test_surer_cells_come_later(many):
    many.layers["silver"] = (many.layers["nimbus"] >= 0.5).astype(np.float32)
    drawn = ns.labels.draw_cells(many, 100, channels="CD3")
    far = np.abs(drawn["score"] - 0.5)
    rest = many.to_df("nimbus")["CD3"]
    assert (drawn["reason"] == "uncertain").all()
    assert far.mean() < np.abs(rest[rest.between(0.25, 0.75)] - 0.5).mean()


def test_a_smaller_draw_is_the_beginning_of_a_larger(many):
    few, more = (ns.labels.draw_cells(many, n, rng=3) for n in (10, 40))
    pd.testing.assert_frame_equal(few, more.iloc[:10])
    assert not ns.labels.draw_cells(many, 10, rng=4).equals(few)


def test_judged_cells_are_not_drawn_again(many):
    first = ns.labels.draw_cells(many, 50)
    many.layers["gold_training"] = np.full(many.shape, np.nan, np.float32)
    rows = pd.MultiIndex.from_frame(many.obs[["region", "instance_id"]].astype({"region": str}))
    at = rows.get_indexer(pd.MultiIndex.from_frame(first[["region", "instance_id"]]))
    many.layers["gold_training"][at, many.var_names.get_indexer(first["channel"])] = 1
    second = ns.labels.draw_cells(many, 50)
    both = pd.concat([first, second])
    assert not both.duplicated(["region", "instance_id", "channel"]).any()


def test_fewer_than_asked_for_is_said_and_bad_input_too(many):
    with pytest.warns(UserWarning, match=r"There are .* cells to draw"):
        ns.labels.draw_cells(many, 1000)
    with pytest.warns(UserWarning, match="There are 0 cells"):
        many.layers["sure"] = np.ones(many.shape)
        assert ns.labels.draw_cells(many, 3, scores="sure", silver=None).empty
    with pytest.raises(KeyError, match="'CD4'"):
        ns.labels.draw_cells(many, 1, channels=["CD4"])
    with pytest.raises(ValueError, match="`n` is True"):
        ns.labels.draw_cells(many, True)
    many.layers["bad"] = many.layers["nimbus"] * 2
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        ns.labels.draw_cells(many, 1, scores="bad")
    ns.labels.draw_regions(many, 8)
    with pytest.raises(ValueError, match="none is left to train on"):
        ns.labels.draw_cells(many, 1)


def test_labels_for_training_never_become_evaluation(many, tmp_path):
    evaluation = ns.labels.draw_regions(many, 2)
    drawn = ns.labels.draw_cells(many, 5)
    other = drawn["region"].iloc[0]
    with pytest.raises(ValueError, match=f"'{other}' was not drawn for evaluation"):
        label(many, other, "gold", tmp_path)
    with pytest.raises(ValueError, match=f"'{evaluation[0]}' is for evaluation"):
        label(many, evaluation[0], "gold_training", tmp_path)
    assert set(many.layers) == {"nimbus", "silver"}
    label(many, other, "gold_training", tmp_path)
    label(many, evaluation[0], "gold", tmp_path)
    # No metric takes them unless asked.
    assert ns.metrics.marker_metrics(many)["cells"].sum() == 1
    # A region with such cells is not drawn for evaluation any more.
    found = ns.labels.draw_regions(many, 7)
    assert other not in found
    with pytest.raises(ValueError, match="only 7 have no cells for training"):
        ns.labels.draw_regions(many, 8)


def test_without_a_draw_the_layers_exclude_each_other(many, tmp_path):
    label(many, "r0", "gold_training", tmp_path)
    with pytest.raises(ValueError, match="'r0' has cells in layers"):
        label(many, "r0", "gold", tmp_path, "CD20")
    label(many, "r1", "gold", tmp_path)
    assert ns.labels.evaluation_regions(many) == ["r1"]
    # Once cells are drawn, no other region becomes evaluation by accident.
    assert "r1" not in set(ns.labels.draw_cells(many, 100)["region"])
    with pytest.raises(ValueError, match="'r2' was not drawn for evaluation"):
        label(many, "r2", "gold", tmp_path)


def test_the_mark_survives_the_disk(many, tmp_path):
    ns.labels.draw_regions(many, 2)
    many.write_h5ad(tmp_path / "table.h5ad")
    import anndata

    back = anndata.read_h5ad(tmp_path / "table.h5ad")
    assert ns.labels.evaluation_regions(back) == ns.labels.evaluation_regions(many)
