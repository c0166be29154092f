import logging
import sys

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns
from nimbus_sd.tl._type_model import fit_types
from nimbus_sd.tl.signatures import build_tree

pytestmark = pytest.mark.filterwarnings("ignore:Channel.* are the same in every cell")

MARKERS = ["CD45", "CD3", "CD8", "CD20", "PanCK"]
TYPES = {
    "Immune": ("", "CD45+"),
    "T": ("Immune", "CD3+"),
    "CD8 T": ("T", "CD8+ CD20-"),
    "B": ("Immune", "CD20+"),
    "Epithelial": ("", "PanCK+"),
}
T, B, IMMUNE, EPITHELIAL = [1, 1, 0, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]
UNSURE, NOTHING = [0.6, 0, 0, 0, 0.4], [0, 0, 0, 0, 0]


@pytest.fixture
def table(signatures):
    return signatures(TYPES, MARKERS)


def cells(rows):
    scores = np.array(rows, np.float32).reshape(-1, len(MARKERS))
    obs = pd.DataFrame(index=[f"c{i}" for i in range(len(scores))])
    return AnnData(layers={"nimbus": scores}, obs=obs, var=pd.DataFrame(index=MARKERS))


def clustered(**members):
    adata = cells([row for rows in members.values() for row in rows])
    names = [name for name, rows in members.items() for _ in rows]
    adata.obs["cluster"] = pd.Categorical(names, categories=list(members))
    return adata


def test_the_posterior_is_that_of_the_mixture_by_bayes(table):
    tree, scores = build_tree(table), np.random.default_rng(0).random((40, len(MARKERS)))
    model = fit_types(tree, scores, MARKERS)
    odds = scores / (1 - scores) * 0.73 / 0.27
    positive = 0.02 + 0.96 * odds / (1 + odds)
    for row, found in zip(positive, model.posterior(model.terms(scores)), strict=True):
        joint = [share * np.prod(np.where(rate == rate, row * rate + (1 - row) * (1 - rate), 1))
                 for share, rate in zip(model.shares, model.rates, strict=True)]  # fmt: skip
        np.testing.assert_allclose(found, np.array(joint) / np.sum(joint), rtol=1e-9)
    assert model.shares.sum() == pytest.approx(1)


def test_a_marker_that_spills_over_weighs_less(table):
    scores = np.where(np.array([[1, 1, 1, 0, 0], B, NOTHING] * 200) == 1, 0.95, 0.05)
    # CD20 is on every third T cell.
    scores[::9, 3] = 0.95
    adata = cells(scores)
    ns.tl.cell_types(adata, table)
    assert adata.obs["cell_type_nimbus"].to_list() == ["CD8 T", "B", "unassigned"] * 200
    rates = pd.DataFrame(fit_types(build_tree(table), scores, MARKERS).rates[:-1], list(TYPES), MARKERS)
    assert rates.loc["CD8 T", "CD20"] > 0.15 > 0.03 > rates.loc["CD8 T", "PanCK"]


def test_a_marker_that_blocks_many_is_named(table):
    adata = cells([NOTHING] * 40 + [[0, 0, 0, 0.7, 0]] * 15 + [T] * 60)
    with pytest.warns(UserWarning, match="Of 115 cells, CD45 keeps 15 cells out, .* leave the column of one"):
        ns.tl.cell_types(adata, table)
    assert adata.uns["cell_type_nimbus"]["kept_out"] == {"CD45": 15, "CD3": 15}
    assert adata.obs["cell_type_nimbus_reason"].iloc[40] == "nearest is B, but CD45-"


def test_the_deepest_type_that_the_scores_support(table):
    expected = [
        ([0.9, 0.9, 0.9, 0.1, 0.0], "CD8 T", "CD45+ CD3+ CD8+ CD20-; decided by CD8+"),
        ([0.9, 0.9, 0.0, 0.1, 0.0], "T", "CD45+ CD3+; decided by CD3+"),
        # The subtype's marker decides where its parents' are weak.
        ([0.05, 0.9, 0.9, 0.0, 0.0], "CD8 T", "CD45+ CD3+ CD8+ CD20-; decided by CD8+"),
        ([0.0, 0.0, 0.0, 0.95, 0.0], "B", "CD45+ CD20+; decided by CD20+, despite CD45-"),
        ([0.0, 0.0, 0.0, 0.0, 0.9], "Epithelial", "PanCK+; decided by PanCK+"),
        (NOTHING, "unassigned", "no marker is positive"),
        ([0.0, 0.0, 0.0, 0.4, 0.0], "unassigned", "nearest is B, but CD45-"),
        (UNSURE, "ambiguous", "Epithelial (PanCK+) or Immune (CD45+)"),
    ]
    adata = cells([row for row, *_ in expected])
    ns.tl.cell_types(adata, table)
    assert adata.obs["cell_type_nimbus"].to_list() == [name for _, name, *_ in expected]
    assert adata.obs["cell_type_nimbus_reason"].to_list() == [reason for *_, reason in expected]
    assert adata.obs["cell_type_nimbus_probability"].between(0.5, 1).all()
    assert adata.obs["cell_type_nimbus_probability"].dtype == np.float32


def test_what_is_kept_about_the_call(table, caplog):
    adata = cells([T] * 6 + [NOTHING] * 3 + [UNSURE])
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        ns.tl.cell_types(adata, table, min_probability=0.6)
        entry = adata.uns["cell_type_nimbus"]
        ns.tl.cell_types(adata, table)
    assert "30.00 % unassigned, 10.00 % ambiguous" in caplog.text and "overwrote" in caplog.text
    assert (entry["unassigned"], entry["ambiguous"], entry["not_scored"]) == (0.3, 0.1, 0)
    assert entry["params"]["min_probability"] == 0.6 and entry["params"]["signatures"] == "DataFrame"
    row = {"parent": "Immune", "signature": "CD45+ CD3+", "cells": 6, "share": 0.6}
    assert entry["types"].loc["T"].to_dict() == row and entry["types"]["cells"].to_list() == [0, 6, 0, 0, 0, 1, 3]
    # Types without a cell are no categories: other tools stumble over them.
    assert adata.obs["cell_type_nimbus"].cat.categories.to_list() == ["T", "ambiguous", "unassigned"]


@pytest.mark.parametrize("limit, name", [(0.5, "CD8 T"), (0.8, "T"), (0.96, "Immune"), (0.99, "ambiguous")])
def test_a_limit_moves_cells_up_the_tree(table, limit, name):
    adata = cells([[0.8, 0.5, 0.3, 0, 0]])
    ns.tl.cell_types(adata, table, min_probability=limit, key_added="t")
    assert adata.obs["t"].to_list() == [name]
    assert (adata.obs["t_reason"].to_list() == ["perhaps Immune (CD45+)"]) == (name == "ambiguous")


def test_results_do_not_depend_on_the_order_of_the_cells(table, monkeypatch):
    adata = clustered(a=np.random.default_rng(1).random((100, 5)))
    ns.tl.cell_types(adata, table)
    suggested = ns.tl.suggest_types(adata, "cluster", table)
    monkeypatch.setattr(sys.modules["nimbus_sd.tl.cell_types"], "_CELLS", 7)
    again = adata[::-1].copy()
    ns.tl.cell_types(again, table)
    pd.testing.assert_frame_equal(again.obs[::-1], adata.obs)
    pd.testing.assert_frame_equal(ns.tl.suggest_types(again, "cluster", table), suggested)


def test_cells_and_channels_without_scores(table):
    adata = cells([[1, 1, np.nan, 0, 0], [np.nan, 1, np.nan, 0, 0], [1, 0, np.nan, 1, 0]])
    with pytest.warns(UserWarning) as caught:
        ns.tl.cell_types(adata, table)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "CD8" in messages and "1 of 3 cells" in messages and "Left out, as they need them: ['CD8 T']" in messages
    assert all(warning.filename == __file__ for warning in caught)
    assert adata.obs["cell_type_nimbus"].to_list()[::2] == ["T", "B"]
    assert adata.obs.iloc[1].isna().all() and adata.uns["cell_type_nimbus"]["not_scored"] == 1
    assert adata.uns["cell_type_nimbus"]["types"]["share"].sum() == 1
    # As without the channel; calls do as well as scores.
    less = adata[[0, 2], ["CD45", "CD3", "CD20", "PanCK"]].copy()
    less.layers["nimbus"] = less.layers["nimbus"].astype(bool)
    with pytest.warns(UserWarning, match=r"Left out.*\['CD8 T'\]"):
        ns.tl.cell_types(less, table, missing="skip")
    with pytest.warns(UserWarning, match=r"Left out.*\['CD8 T'\]"):
        suggested = ns.tl.suggest_types(less, "cell_type_nimbus", table, missing="skip")["type"]
    assert less.obs["cell_type_nimbus"].to_list() == ["T", "B"] == suggested.to_list()


def test_bad_input(table):
    with pytest.raises(ValueError, match="values outside"):
        ns.tl.cell_types(cells([[0, 0, 0, 0, 2]]), table)
    adata = clustered(a=[IMMUNE])
    adata.obs["area"], adata.obs["x_reason"] = 0.5, "mine"
    for settings, error, problem in (
        ({"signatures": None, "missing": "error"}, KeyError, "missing='skip'"),
        ({"key_added": "x"}, ValueError, r"obs\['x_reason'\]"),
        *(({"min_probability": limit}, ValueError, "`min_probability`") for limit in (0.4, 1.0, np.nan, "0.5", None)),
    ):
        with pytest.raises(error, match=problem):
            ns.tl.cell_types(adata, **{"signatures": table} | settings)
    assert list(adata.obs) == ["cluster", "area", "x_reason"] and not adata.uns
    for settings, problem in (
        ({"groupby": "area"}, r"obs\['area'\] holds numbers such as 0\.5"),
        ({"min_share": 0.3}, r"`min_share` is 0\.3"),
        ({"min_probability": "0.5"}, "`min_probability` is '0.5'; it must be a number in"),
    ):
        with pytest.raises(ValueError, match=problem):
            ns.tl.suggest_types(adata, **{"groupby": "cluster", "signatures": table} | settings)


def test_results_survive_the_disk(signatures, from_disk):
    rows = {"NK/T, γδ": ("", "CD3+"), "T": ("NK/T, γδ", "CD8+"), 'B "x"': ("", "CD20+")}
    adata = cells([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [np.nan] * 5, NOTHING])
    with pytest.warns(UserWarning, match="1 of 4 cells"):
        ns.tl.cell_types(adata, signatures(rows, MARKERS))
    read, entry = from_disk(adata), adata.uns["cell_type_nimbus"]
    pd.testing.assert_frame_equal(read.obs, adata.obs, check_categorical=True)
    pd.testing.assert_frame_equal(read.uns["cell_type_nimbus"]["types"], entry["types"])
    assert read.uns["cell_type_nimbus"]["params"] == entry["params"]


def test_clusters_get_the_deepest_type_that_most_of_their_cells_have(table):
    adata = clustered(
        pure=[T] * 4,
        lymphoid=[T] * 2 + [B] * 2 + [IMMUNE],
        mixed=[T] * 2 + [EPITHELIAL] * 2,
        blank=[NOTHING] * 3 + [B],
        unclear=[UNSURE] * 6 + [NOTHING] * 2 + [T] * 2,
        even=[UNSURE] * 2 + [NOTHING] * 2,
    )
    suggested = ns.tl.suggest_types(adata, "cluster", table)
    assert suggested.drop(columns="probability").to_numpy().tolist() == [
        ["T", 1, 4, "CD45+ CD3+", ""],
        ["Immune", 1, 5, "CD45+", ""],
        ["ambiguous", 1, 4, "100% of the cells have a type", "T 50%, Epithelial 50%"],
        ["unassigned", 0.75, 4, "25% of the cells have a type", "B 25%"],
        ["ambiguous", 0.8, 10, "20% of the cells have a type, 60% are ambiguous", "T 20%, unassigned 20%"],
        ["unassigned", 1, 4, "0% of the cells have a type", "ambiguous 50%"],
    ]
    assert suggested["probability"].isna().to_list() == [False, False, True, True, True, True]
    assert suggested.index.name == "cluster" and suggested.index.to_list() == list(adata.obs["cluster"].cat.categories)
    # The probability is the mean over all cells of the cluster.
    adata = clustered(a=[T, T, B])
    ns.tl.cell_types(adata, table)
    row = ns.tl.suggest_types(adata, "cluster", table).loc["a"]
    assert row["type"] == "T" and row["share"] == pytest.approx(2 / 3)
    # The probability is the mean over all cells of the cluster.
    assert row["probability"] < adata.obs["cell_type_nimbus_probability"].iloc[:2].mean()
    assert ns.tl.suggest_types(adata, "cluster", table, min_share=0.7).loc["a", "type"] == "Immune"


def test_cells_without_scores_or_cluster_are_left_out(table):
    adata = clustered(a=[T, [np.nan] * 5, B, T], gone=[[np.nan] * 5])
    adata.obs.loc["c2", "cluster"] = np.nan
    with pytest.warns(UserWarning, match="2 of 5 cells"):
        suggested = ns.tl.suggest_types(adata, "cluster", table)
    assert suggested[["type", "cells"]].to_numpy().tolist() == [["T", 2], ["unassigned", 0]]
