"""Regions for evaluation and cells for training: fair draws, and never both in one region."""

import anndata
import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns

NAMES = [f"r{i}" for i in range(8)]
PLACE = ["region", "instance_id", "channel"]


@pytest.fixture
def many(table_of):
    """Eight regions of 40 cells; scores are spread evenly, silver is 1 where the score is above 0.6."""
    adata = table_of({name: list(range(1, 41)) for name in NAMES}, ("CD3", "CD20"))
    adata.layers["nimbus"] = np.random.default_rng(0).random(adata.shape).astype(np.float32)
    adata.layers["silver"] = (adata.layers["nimbus"] > 0.6).astype(np.float32)
    adata.obs["dataset"] = np.where(adata.obs["region"].isin(NAMES[:3]), "one", "two")
    return adata


@pytest.fixture
def label(many, tmp_path):
    def label(region, key_added, channel="CD3"):
        (tmp_path / "one.csv").write_text(f"region,instance_id,channel,label\n{region},1,{channel},1\n")
        ns.labels.from_csv(many, tmp_path / "one.csv", key_added=key_added)

    return label


def test_regions_are_whole_and_those_of_before_stay(many, tmp_path):
    first = ns.labels.draw_regions(many, 2, rng=1)
    assert len(first) == 2 and ns.labels.evaluation_regions(many) == first
    np.testing.assert_array_equal(many.obs["evaluation"], many.obs["region"].isin(first))
    many.write_h5ad(tmp_path / "table.h5ad")
    assert ns.labels.evaluation_regions(anndata.read_h5ad(tmp_path / "table.h5ad")) == first
    assert ns.labels.draw_regions(many, 2, rng=2) == first
    more = ns.labels.draw_regions(many, 4)
    assert len(more) == 4 and set(first) < set(more)
    del many.obs["evaluation"]
    assert ns.labels.draw_regions(many, 2, rng=1) == first


def test_each_region_has_the_same_chance(many):
    counts = pd.Series(0, NAMES)
    for seed in range(400):
        counts[ns.labels.draw_regions(many, 2, rng=seed)] += 1
        del many.obs["evaluation"]
    # 400 draws of a quarter: mean 100, standard deviation 8.7; five of these.
    assert counts.between(57, 143).all()


def test_groups_get_equal_numbers(many):
    drawn = many[many.obs["region"].isin(ns.labels.draw_regions(many, 2, by="dataset"))].obs
    assert drawn.groupby("dataset")["region"].nunique().to_dict() == {"one": 2, "two": 2}
    many.obs["half"] = np.arange(many.n_obs) % 2
    for n, by, message in (
        (4, "dataset", r"`n` is 4, but of 3 regions of 'one' only 3"),
        (1, "half", "splits the cells of a region"),
        (0, None, "`n` is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ns.labels.draw_regions(many, n, by=by)


def test_cells_are_uncertain_or_disagree_and_spread(many):
    regions = ns.labels.draw_regions(many, 3)
    drawn = ns.labels.draw_cells(many, 100)
    assert len(drawn) == 100 and not drawn.duplicated(PLACE).any() and not drawn["region"].isin(regions).any()
    # Five regions and two channels take turns.
    assert (drawn.groupby(["region", "channel"]).size() == 10).all()
    unsure = drawn["reason"] == "uncertain"
    assert 40 <= unsure.sum() <= 70 and drawn.loc[unsure, "score"].between(0.25, 0.75).all()
    # Silver is wrong from 0.5 to 0.6.
    assert drawn.loc[~unsure, "score"].between(0.5, 0.6).all() and (drawn.loc[~unsure, "silver"] == 0).all()
    cells = many.obs.reset_index().merge(drawn, on=["region", "instance_id"])
    scores = many.to_df("nimbus")
    assert [scores.loc[row["index"], row["channel"]] for _, row in cells.iterrows()] == cells["score"].to_list()


def test_uncertain_cells_come_first_and_a_smaller_draw_is_the_beginning_of_a_larger(many):
    many.layers["silver"] = (many.layers["nimbus"] >= 0.5).astype(np.float32)
    few, more = (ns.labels.draw_cells(many, n, channels="CD3", rng=3) for n in (10, 100))
    scores = many.to_df("nimbus")["CD3"]
    assert (more["reason"] == "uncertain").all()
    assert np.abs(more["score"] - 0.5).mean() < np.abs(scores[scores.between(0.25, 0.75)] - 0.5).mean()
    pd.testing.assert_frame_equal(few, more.iloc[:10])
    assert not ns.labels.draw_cells(many, 10, channels="CD3", rng=4).equals(few)


def test_judged_cells_are_not_drawn_again(many, tmp_path):
    first = ns.labels.draw_cells(many, 50)
    first.assign(label=1).to_csv(tmp_path / "first.csv", index=False)
    ns.labels.from_csv(many, tmp_path / "first.csv", key_added="gold_training")
    assert not pd.concat([first, ns.labels.draw_cells(many, 50)]).duplicated(PLACE).any()


def test_fewer_than_asked_for_is_said_and_bad_input_too(many):
    many.layers["sure"], many.layers["bad"] = np.ones(many.shape), many.layers["nimbus"] * 2
    with pytest.warns(UserWarning, match="There are 0 cells that are uncertain or disagree, not 3"):
        assert ns.labels.draw_cells(many, 3, scores="sure", silver=None).empty
    for n, options, error, message in (
        (1, {"channels": ["CD4"]}, KeyError, "'CD4'"),
        (True, {}, ValueError, "`n` is True"),
        (1, {"scores": "bad"}, ValueError, r"outside \[0, 1\]"),
    ):
        with pytest.raises(error, match=message):
            ns.labels.draw_cells(many, n, **options)
    ns.labels.draw_regions(many, 8)
    with pytest.raises(ValueError, match="none is left to train on"):
        ns.labels.draw_cells(many, 1)


def test_labels_for_training_never_become_evaluation(many, label):
    evaluation = ns.labels.draw_regions(many, 2)
    other = ns.labels.draw_cells(many, 5)["region"].iloc[0]
    with pytest.raises(ValueError, match=f"'{other}' was not drawn for evaluation"):
        label(other, "gold")
    with pytest.raises(ValueError, match=f"'{evaluation[0]}' is for evaluation"):
        label(evaluation[0], "gold_training")
    assert set(many.layers) == {"nimbus", "silver"}
    label(other, "gold_training")
    label(evaluation[0], "gold")
    # No metric takes them unless asked.
    assert ns.metrics.marker_metrics(many)["cells"].sum() == 1
    # A region with such cells is not drawn for evaluation any more.
    assert other not in ns.labels.draw_regions(many, 7)
    with pytest.raises(ValueError, match="only 7 have no cells for training"):
        ns.labels.draw_regions(many, 8)


def test_without_a_draw_the_layers_exclude_each_other(many, label):
    label("r0", "gold_training")
    with pytest.raises(ValueError, match="'r0' has cells in layers"):
        label("r0", "gold", "CD20")
    label("r1", "gold")
    assert ns.labels.evaluation_regions(many) == ["r1"]
    # Once cells are drawn, no other region becomes evaluation by accident.
    assert "r1" not in set(ns.labels.draw_cells(many, 100)["region"])
    with pytest.raises(ValueError, match="'r2' was not drawn for evaluation"):
        label("r2", "gold")
