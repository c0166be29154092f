import json
import logging

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nimbus_sd.tl import metaclusters as mc


def table(clusters):
    adata = AnnData(np.zeros((len(clusters), 1), np.float32))
    adata.obs["leiden"] = pd.Categorical(clusters)
    return adata


def test_cells_get_their_metacluster_the_largest_first(caplog):
    adata = table(["0", "1", "2", "2", "2", None])
    value = mc.recolor(mc.merge(mc.from_table(adata, "leiden"), ["0", "1"], into="T"), "2", "red")
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        mc.apply(adata, value, "leiden", key_added="type")
    assert adata.obs["type"].cat.categories.to_list() == ["2", "T"]
    assert adata.obs["type"].to_list()[:5] == ["T", "T", "2", "2", "2"] and adata.obs["type"].isna().to_list()[5]
    assert adata.uns["type_colors"].tolist() == ["#ff0000", value.colors["T"]]
    assert mc.from_json(adata.uns["type"]["steps"]) == value
    assert "2 metaclusters of 3 clusters" in caplog.text


def test_scanpy_draws_with_these_colours():
    sc = pytest.importorskip("scanpy")
    import matplotlib
    from matplotlib.colors import to_hex

    matplotlib.use("agg")
    adata = table(["0", "1", "1"])
    adata.obsm["spatial"] = np.arange(6.0).reshape(3, 2)
    value = mc.recolor(mc.recolor(mc.from_table(adata, "leiden"), "0", "red"), "1", "lime")
    mc.apply(adata, value, "leiden")
    ax = sc.pl.embedding(adata, "spatial", color="metacluster_nimbus", show=False)
    assert [to_hex(color) for color in ax.collections[0].get_facecolors()] == ["#ff0000", "#00ff00", "#00ff00"]
    assert adata.uns["metacluster_nimbus_colors"].tolist() == ["#00ff00", "#ff0000"]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_survive_the_disk(tmp_path, kind):
    adata = table(["0", "1", "2", None])
    value = mc.rename(mc.merge(mc.from_table(adata, "leiden"), ["0", "1"], into="NK/T, γδ"), "2", 'B "x"')
    mc.apply(adata, value, "leiden")
    path = tmp_path / f"table.{kind}"
    getattr(adata, f"write_{kind}")(path)
    read = getattr(anndata, f"read_{kind}")(path)
    assert read.obs["metacluster_nimbus"].to_list()[:3] == ["NK/T, γδ", "NK/T, γδ", 'B "x"']
    assert mc.from_json(read.uns["metacluster_nimbus"]["steps"]) == value
    # What was applied can be gone on with, colours and all.
    again = mc.from_table(read, "leiden", "metacluster_nimbus")
    assert dict(again.mapping) == dict(value.mapping) and dict(again.colors) == dict(value.colors)


def test_clusters_of_any_type_are_named_as_texts():
    adata = table(["a"] * 12)
    adata.obs["leiden"] = np.arange(12)
    value = mc.from_table(adata, "leiden")
    assert value.names == tuple(map(str, range(12)))
    mc.apply(adata, value, "leiden")
    assert adata.obs["metacluster_nimbus"].to_list() == list(map(str, range(12)))


def test_another_clustering_of_the_same_names_is_told(tmp_path, no_warning):
    adata = table(["0", "0", "0", "1", None])
    value = mc.rename(mc.rename(mc.from_table(adata, "leiden"), "0", "T"), "1", "B")
    assert value.cells == (("0", 3), ("1", 1))
    mc.save(value, tmp_path / "mine.json")
    again, shuffled = table(["1", "0", "0", "1", None]), adata[::-1].copy()
    for known in (value, mc.undo(value), mc.load(tmp_path / "mine.json"), mc.replay(value, mc.undo(mc.undo(value)))):
        mc.apply(shuffled, known, "leiden")
        with pytest.warns(
            UserWarning, match=r"not the clustering.*2 cluster\(s\), as '0' had 3 and has 2, '1'"
        ) as caught:
            mc.apply(again, known, "leiden")
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="'1' had 1 and has 0"):
        mc.apply(table(["0"] * 3), value, "leiden")
    mc.apply(again, mc.start(value.mapping), "leiden")


@pytest.mark.parametrize("cells", [[1], {"0": "three"}])
def test_numbers_of_cells_that_are_none(cells):
    text = json.dumps(json.loads(mc.to_json(mc.start(["0"]))) | {"cells": cells})
    with pytest.raises(ValueError, match="The 'cells' of these metaclusters are"):
        mc.from_json(text)


def test_numbers_are_no_clusters():
    adata = table(["0", "1"])
    adata.obs["area"] = [0.5, 1.5]
    for refused in (
        lambda: mc.from_table(adata, "area"),
        lambda: mc.from_table(adata, "leiden", "area"),
        lambda: mc.apply(adata, mc.start(["0"]), "area"),
    ):
        with pytest.raises(ValueError, match=r"obs\['area'\] holds numbers such as 0\.5"):
            refused()
    # Whole numbers with gaps are what pandas makes of clusters that some cells lack.
    adata.obs["number"] = [1.0, np.nan]
    value = mc.from_table(adata, "number")
    mc.apply(adata, value, "number")
    assert value.names == ("1",) and adata.obs["metacluster_nimbus"].to_list()[0] == "1"


def test_clusters_may_be_absent_but_not_unknown():
    adata = table(["0", "5"])
    mc.apply(adata, mc.start(["0", "5", "7"]), "leiden")
    assert adata.obs["metacluster_nimbus"].cat.categories.to_list() == ["0", "5"]
    with pytest.raises(KeyError, match=r"\['5'\], which these metaclusters do not know"):
        mc.apply(adata, mc.start(["0"]), "leiden")
    with pytest.raises(KeyError, match="no column 'louvain'"):
        mc.from_table(adata, "louvain")
    with pytest.raises(ValueError, match=r"obs\['leiden'\] has no cluster: every cell is missing"):
        mc.from_table(table([None, None]), "leiden")


def test_a_cluster_in_several_metaclusters():
    adata = table(["0", "0"])
    adata.obs["meta"] = ["a", "b"]
    with pytest.raises(ValueError, match=r"\['0'\].*several groups of obs\['meta'\]"):
        mc.from_table(adata, "leiden", "meta")


def test_keys_that_are_taken_or_cannot_be_written(caplog):
    adata = table(["0", "1"])
    value = mc.from_table(adata, "leiden")
    for name, problem in (("leiden", "did not make"), ("a/b", "cannot be written to disk"), ("gold", "kept for")):
        with pytest.raises(ValueError, match=problem):
            mc.apply(adata, value, "leiden", key_added=name)
    mc.apply(adata, value, "leiden")
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        mc.apply(adata, mc.rename(value, "0", "T"), "leiden")
    assert "overwrote" in caplog.text and adata.obs["metacluster_nimbus"].to_list() == ["T", "1"]


def test_the_clusters_and_colours_of_others_are_not_overwritten():
    adata = table(["0", "1", "1"])
    mc.apply(adata, mc.from_table(adata, "leiden"), "leiden")
    again = mc.from_table(adata, "metacluster_nimbus")
    with pytest.raises(ValueError, match="`groupby` and `key_added` are both 'metacluster_nimbus'"):
        mc.apply(adata, again, "metacluster_nimbus")
    adata.uns["mine_colors"] = ["red"]
    with pytest.raises(ValueError, match=r"the table has uns\['mine_colors'\]"):
        mc.apply(adata, again, "metacluster_nimbus", key_added="mine")
