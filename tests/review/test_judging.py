"""Regions judged for gold by one annotator or two."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nimbus_sd._review import judging


@pytest.fixture
def table():
    obs = pd.DataFrame({"region": ["a"] * 4 + ["b"] * 4 + ["c"] * 2, "instance_id": [1, 2, 3, 4] * 2 + [1, 2]})
    adata = ad.AnnData(obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=["CD3", "CD8"]))
    adata.obs["evaluation"] = adata.obs["region"] == "a"
    return adata


def _labels(**cells):
    values = np.full(10, np.nan, np.float32)
    for row, label in cells.items():
        values[int(row[1:])] = label
    return values


def test_who_judged_what_and_what_is_free(table):
    found = judging.summary(table, {"ann": {"CD3": _labels(_0=1, _1=0)}}, {"b"})
    assert found["regions"][0] == {"name": "a", "evaluation": True, "cells": 4, "judged": {"ann": {"CD3": 2}}}
    assert found["free"] == ["c"] and found["refused"] is None and found["disputed"] == []


def test_why_nothing_can_be_judged(table):
    table.obs["evaluation"] = False
    assert "Every region" in judging.summary(table, {}, {"a", "b", "c"})["refused"]
    assert "one region" in judging.summary(table[:4].copy(), {}, set())["refused"]


def test_agreement_disputes_and_the_consensus_with_what_was_settled(table):
    given = {
        "ann": {"CD3": _labels(_0=1, _1=0, _2=0.75, _3=0)},
        "bob": {"CD3": _labels(_0=1, _1=1, _2=1, _3=0)},
    }
    found = judging.summary(table, given, set())
    assert found["disputed"] == [{"row": 1, "marker": "CD3", "states": {"ann": 1, "bob": 5}}]
    assert found["agreement"][0] == {"marker": "CD3", "cells": 4, "agree": 0.75, "kappa": pytest.approx(0.5)}
    assert judging.write(table, given, {"CD3": _labels(_1=0)}) == ["gold_ann", "gold_bob", "gold_settled", "gold"]
    np.testing.assert_array_equal(table.layers["gold"][:5, 0], [1, 0, 0.75, 0, np.nan])
    np.testing.assert_array_equal(table.layers["gold_bob"][:4, 0], [1, 1, 1, 0])


def test_one_annotator_is_gold_and_other_regions_are_refused(table):
    assert judging.write(table, {"ann": {"CD8": _labels(_3=1)}}, {}) == ["gold_ann", "gold"]
    assert table.layers["gold"][3, 1] == 1
    with pytest.raises(ValueError, match="drawn for evaluation"):
        judging.write(table, {"bob": {"CD8": _labels(_5=1)}}, {})
    assert "gold_bob" not in table.layers
    with pytest.raises(ValueError, match="kept"):
        judging.layer_of("training")
