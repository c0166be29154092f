"""Clusters on the page."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nimbus_sd._review import clusters


@pytest.fixture
def table():
    scores = np.array([[0.9, 0.1]] * 3 + [[0.8, 0.2]] * 2 + [[0.1, 0.9]] * 4 + [[0.2, 0.6]], np.float32)
    scores[0, 1] = np.nan
    obs = pd.DataFrame({"region": "r", "leiden": pd.Categorical([*"0001122223"])}, index=[*map(str, range(10))])
    obs["region"], obs.loc["9", "leiden"] = obs["region"].astype("category"), np.nan
    obs["leiden_node"], obs["score"] = obs["leiden"], 1.0
    return ad.AnnData(obs=obs, var=pd.DataFrame(index=["CD3", "CD20"]), layers={"nimbus": scores})


def test_columns_of_clusters_are_found(table):
    assert list(clusters.groupings(table)) == ["leiden"]


def test_means_tree_and_sizes(table):
    found = clusters.heat_map(table, "leiden", clusters.groupings(table)["leiden"], "nimbus")
    np.testing.assert_allclose(found["means"], [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]], atol=1e-4)
    assert found["sizes"].tolist() == [3, 2, 4] and set(found["tree"][0, :2]) == {0, 1}
    assert sorted(found["order"]) == [0, 1, 2] and found["share_named"] == 0


def test_edits_are_those_of_metaclusters_and_cells_follow(table):
    value = clusters.groupings(table)["leiden"]
    merged = clusters.edited(value, {"do": "merge", "names": ["0", "1"], "into": "T cell"})
    assert clusters.codes(table, "leiden", merged).tolist() == [1] * 5 + [2] * 4 + [0]
    assert clusters.heat_map(table, "leiden", merged, "nimbus")["share_named"] == 0.5
    split = clusters.edited(merged, {"do": "split", "name": "T cell", "clusters": ["1"], "into": "other"})
    renamed = clusters.edited(split, {"do": "rename", "name": "2", "to": "B cell"})
    colored = clusters.edited(renamed, {"do": "recolor", "name": "B cell", "color": "#009e73"})
    assert clusters.described("leiden", colored)["names"] == ["T cell", "B cell", "other"]
    assert colored.colors["B cell"] == "#009e73" and colored.undo() == renamed
    with pytest.raises(ValueError, match="no step"):
        clusters.edited(value, {"do": "merge", "names": "0", "into": "x"})


def test_typical_cells_are_near_their_mean_and_doubtful_ones_near_another(table):
    table.layers["nimbus"][4] = [0.5, 0.5]
    value = clusters.groupings(table)["leiden"]
    merged = clusters.edited(value, {"do": "merge", "names": ["0", "1"], "into": "T cell"})
    found = clusters.examples(table, "leiden", merged, "nimbus", "T cell")
    assert found["typical"][-1] == 4 and found["doubtful"][0] == 4
    with pytest.raises(KeyError, match="no metacluster"):
        clusters.examples(table, "leiden", merged, "nimbus", "B cell")
