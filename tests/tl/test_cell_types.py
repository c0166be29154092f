import itertools
import logging

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns
from nimbus_sd.tl._signature_tree import build_tree
from nimbus_sd.tl._type_probability import blocks, none_of, type_probabilities

pytestmark = pytest.mark.filterwarnings("ignore:The scores of .* are the same")

MARKERS = ["CD45", "CD3", "CD8", "CD20", "PanCK"]
TYPES = {
    "Immune": ("", "CD45+"),
    "T": ("Immune", "CD3+"),
    "CD8 T": ("T", "CD8+ CD20-"),
    "B": ("Immune", "CD20+"),
    "Epithelial": ("", "PanCK+"),
}


def signatures(rows=TYPES, markers=MARKERS):
    table = pd.DataFrame("", index=list(rows), columns=["parent", *markers])
    for name, (parent, rules) in rows.items():
        table.loc[name, "parent"] = parent
        for rule in rules.split():
            table.loc[name, rule[:-1]] = rule[-1]
    return table


def cells(rows, markers=MARKERS):
    scores = np.array(rows, np.float32).reshape(-1, len(markers))
    adata = AnnData(layers={"nimbus": scores}, obs=pd.DataFrame(index=[f"c{i}" for i in range(len(scores))]))
    adata.var_names = list(markers)
    return adata


def by_hand(tree, markers, scores):
    """Each type's probability by its definition: over all patterns of positive markers, which types hold."""
    found = np.zeros(len(tree))
    for pattern in itertools.product([False, True], repeat=len(markers)):
        weight = np.prod(np.where(pattern, scores, 1 - scores))
        seen = dict(zip(markers, pattern, strict=True))
        fits = {one.name: all(seen[marker] == sign for marker, sign in one.rules) for one in tree}
        for i, one in enumerate(tree):
            line = (*one.parents, one.name)
            siblings = [other for other in tree for name in line for own in tree if own.name == name
                        and other.parents == own.parents and other.name != name]  # fmt: skip
            found[i] += weight * (fits[one.name] and not any(fits[other.name] for other in siblings))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_probabilities_follow_their_definition(seed):
    rng = np.random.default_rng(seed)
    names = [f"t{i}" for i in range(7)]
    rows = {}
    for i, name in enumerate(names):
        own = rng.choice(MARKERS, rng.integers(1, 4), replace=False)
        parent = "" if i < 3 else str(rng.choice(["", *names[:i]]))
        rows[name] = (parent, " ".join(f"{marker}{rng.choice(['+', '-'])}" for marker in own))
    tree = build_tree(signatures(rows).assign(source=""))
    scores = rng.random((5, len(MARKERS))).astype(np.float32)
    ((_, follows),) = blocks(scores, MARKERS)
    found = np.stack(list(type_probabilities(tree, follows)), axis=1)
    expected = [by_hand(tree, MARKERS, row) for row in scores.astype(float)]
    # Rules of a child may contradict its parent here; such a type has no cells, and its product is no probability.
    sound = [all((marker, not sign) not in one.rules for marker, sign in one.rules) for one in tree]
    np.testing.assert_allclose(found[:, sound], np.array(expected)[:, sound], atol=1e-6)


def test_many_overlapping_patterns_are_counted_exactly():
    rng = np.random.default_rng(0)
    markers = [f"m{i}" for i in range(60)]
    scores = rng.random((3, 60)).astype(np.float32)
    ((_, follows),) = blocks(scores, markers)
    patterns = [frozenset((marker, True) for marker in markers[i : i + 3]) for i in range(0, 60, 3)]
    expected = np.prod([1 - scores[:, i : i + 3].prod(axis=1) for i in range(0, 60, 3)], axis=0)
    np.testing.assert_allclose(none_of(patterns, follows), expected, rtol=1e-5)


def test_the_deepest_type_that_the_scores_support():
    adata = cells(
        [
            [0.9, 0.9, 0.9, 0.1, 0.0],  # CD8 T: 0.9^3 x (1 - 0.1)
            [0.9, 0.9, 0.5, 0.1, 0.0],  # stays T, but not B: 0.9^2 x 0.9
            [1.0, 1.0, 0.0, 1.0, 0.0],  # T and B exclude each other: only immune
            [1.0, 0.0, 0.0, 0.0, 1.0],  # immune and epithelial
            [0.1, 0.9, 0.9, 0.0, 0.2],  # not immune, so no T either
            [0.1, 0.2, 0.0, 0.1, 0.3],  # nothing
            [0.6, 0.0, 0.0, 0.0, 0.4],  # 0.36 immune alone, 0.24 none
        ]
    )
    ns.tl.cell_types(adata, signatures())
    obs = adata.obs
    assert obs["cell_type_nimbus"].to_list() == [
        "CD8 T", "T", "Immune", "ambiguous", "unassigned", "unassigned", "ambiguous"
    ]  # fmt: skip
    expected = [0.9**4, 0.9**3, 1, 1, 0.9 * 0.8, 0.9 * 0.7, 1 - 0.4 * 0.6]
    np.testing.assert_allclose(obs["cell_type_nimbus_probability"], expected, rtol=1e-5)
    assert obs["cell_type_nimbus_reason"].to_list() == [
        "CD45+ CD3+ CD8+ CD20-",
        "CD45+ CD3+",
        "CD45+",
        "Immune (CD45+) or Epithelial (PanCK+)",
        "nearest is CD8 T, but CD45-",
        "no marker is positive",
        "Immune (CD45+) or Epithelial (PanCK+)",
    ]
    assert obs["cell_type_nimbus_probability"].dtype == np.float32


def test_what_is_kept_about_the_call(caplog):
    adata = cells([[1, 1, 0, 0, 0]] * 6 + [[0, 0, 0, 0, 0]] * 3 + [[1, 0, 0, 0, 1]])
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        ns.tl.cell_types(adata, signatures(), min_probability=0.8)
    assert "30.00 % of 10 cells unassigned, 10.00 % ambiguous" in caplog.text
    entry = adata.uns["cell_type_nimbus"]
    assert (entry["unassigned"], entry["ambiguous"], entry["not_scored"]) == (0.3, 0.1, 0)
    assert entry["params"]["min_probability"] == 0.8
    assert entry["types"].loc["T"].to_dict() == {
        "parent": "Immune",
        "signature": "CD45+ CD3+",
        "cells": 6,
        "share": 0.6,
    }
    assert entry["types"]["cells"].to_list() == [0, 6, 0, 0, 0, 1, 3]
    # Types without a cell are no categories: other tools stumble over them.
    assert adata.obs["cell_type_nimbus"].cat.categories.to_list() == ["T", "ambiguous", "unassigned"]


def test_a_limit_moves_cells_up_the_tree():
    adata = cells([[0.95, 0.85, 0.9, 0, 0]])
    found = []
    for limit in (0.5, 0.75, 0.85, 0.96):
        ns.tl.cell_types(adata, signatures(), min_probability=limit, key_added="t")
        found.append(str(adata.obs["t"].iloc[0]))
    assert found == ["CD8 T", "T", "Immune", "ambiguous"]
    assert adata.obs["t_reason"].iloc[0] == "perhaps Immune (CD45+)"


@pytest.mark.parametrize("limit", [0.4, 1.0, float("nan"), "0.5", None])
def test_limits_without_meaning(limit):
    with pytest.raises(ValueError, match="`min_probability`"):
        ns.tl.cell_types(cells([[0] * 5]), signatures(), min_probability=limit)


def test_results_do_not_depend_on_the_other_cells(monkeypatch):
    rng = np.random.default_rng(1)
    adata = cells(rng.random((500, 5)))
    ns.tl.cell_types(adata, signatures())
    monkeypatch.setattr("nimbus_sd.tl._type_probability._CELLS", 7)
    again = adata[::-1].copy()
    ns.tl.cell_types(again, signatures())
    for column in ("cell_type_nimbus", "cell_type_nimbus_probability", "cell_type_nimbus_reason"):
        assert adata.obs[column].to_list() == again.obs[column].to_list()[::-1]


def test_calls_do_as_well_as_scores():
    adata = cells([[1, 1, 1, 0, 0], [0, 0, 0, 0, 1]])
    adata.layers["positive"] = adata.layers["nimbus"].astype(bool)
    ns.tl.cell_types(adata, signatures(), layer="positive")
    assert adata.obs["cell_type_nimbus"].to_list() == ["CD8 T", "Epithelial"]
    assert (adata.obs["cell_type_nimbus_probability"] == 1).all()


def test_cells_and_channels_without_scores():
    adata = cells([[1, 1, np.nan, 0, 0], [np.nan, 1, np.nan, 0, 0], [1, 0, np.nan, 1, 0]])
    with pytest.warns(UserWarning) as caught:
        ns.tl.cell_types(adata, signatures())
    messages = " ".join(str(one.message) for one in caught)
    assert "CD8" in messages and "1 of 3 cells" in messages and "Left out, as they need them: ['CD8 T']" in messages
    # Warnings name the line of the caller.
    assert all(one.filename == __file__ for one in caught)
    obs = adata.obs
    assert obs["cell_type_nimbus"].to_list()[::2] == ["T", "B"]
    assert obs.iloc[1].isna().all() and adata.uns["cell_type_nimbus"]["not_scored"] == 1
    assert adata.uns["cell_type_nimbus"]["types"]["share"].sum() == 1


def test_bad_input():
    adata = cells([[0, 0, 0, 0, 2]])
    with pytest.raises(ValueError, match="values outside"):
        ns.tl.cell_types(adata, signatures())
    with pytest.raises(KeyError, match="no layer 'other'"):
        ns.tl.cell_types(adata, signatures(), layer="other")
    adata = cells([[1, 0, 0, 0, 0]])
    with pytest.raises(KeyError, match="missing='skip'"):
        ns.tl.cell_types(adata)
    adata.obs["mine"] = 1
    for name, problem in (("mine", "did not make"), ("a/b", "cannot be written to disk"), ("nimbus", "kept for")):
        with pytest.raises(ValueError, match=problem):
            ns.tl.cell_types(adata, signatures(), key_added=name)
    assert list(adata.obs) == ["mine"] and not adata.uns
    adata.obs["x_reason"] = "mine, too"
    with pytest.raises(ValueError, match="obs\\['x_reason'\\]"):
        ns.tl.cell_types(adata, signatures(), key_added="x")


def test_a_second_call_replaces_the_first_and_says_so(caplog):
    adata = cells([[1, 1, 0, 0, 0]])
    ns.tl.cell_types(adata, signatures())
    adata.layers["nimbus"][0] = 0
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        ns.tl.cell_types(adata, signatures())
    assert "overwrote" in caplog.text and adata.obs["cell_type_nimbus"].to_list() == ["unassigned"]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_survive_the_disk(tmp_path, kind):
    rows = {"NK/T, γδ": ("", "CD3+"), "T": ("NK/T, γδ", "CD8+"), 'B "x"': ("", "CD20+")}
    adata = cells([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [np.nan] * 5, [0] * 5])
    with pytest.warns(UserWarning, match="1 of 4 cells"):
        ns.tl.cell_types(adata, signatures(rows))
    path = tmp_path / f"table.{kind}"
    getattr(adata, f"write_{kind}")(path)
    read = getattr(anndata, f"read_{kind}")(path)
    pd.testing.assert_frame_equal(read.obs, adata.obs, check_categorical=True)
    pd.testing.assert_frame_equal(read.uns["cell_type_nimbus"]["types"], adata.uns["cell_type_nimbus"]["types"])
    assert read.uns["cell_type_nimbus"]["params"] == adata.uns["cell_type_nimbus"]["params"]


def test_true_positivity_gives_the_true_types():
    adata = ns.datasets.example().tables["table"]
    sure = ((adata.layers["gold"] == 0) | (adata.layers["gold"] == 1)).all(axis=1)
    adata = adata[sure].copy()
    with pytest.warns(UserWarning, match="Left out"):
        ns.tl.cell_types(adata, layer="gold", missing="skip")
    expected = {
        "B cell": "B cell", "CD4 T cell": "T cell", "CD8 T cell": "CD8 T cell", "epithelium": "Epithelial cell",
        "macrophage": "Macrophage", "other": "unassigned",
    }  # fmt: skip
    assert len(adata) > 1000
    assert (adata.obs["cell_type_nimbus"].astype(str) == adata.obs["cell_type"].map(expected).astype(str)).mean() > 0.99
