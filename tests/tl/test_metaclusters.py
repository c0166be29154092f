"""Metaclusters by hand: edits on a value that never changes, and columns of tables."""

import copy
import logging
import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nimbus_sd.tl import Metaclusters

start, from_table = Metaclusters.start, Metaclusters.from_table


@pytest.fixture
def four():
    return start(["0", "1", "2", "3"])


def test_what_has_no_type_is_grey():
    value = start({"0": "T", "1": "ambiguous", "2": "unassigned", "3": "B"})
    assert {name: value.colors[name] for name in "TB"} == start({"0": "T", "1": "B"}).colors
    greys = [value.colors[name] for name in ("ambiguous", "unassigned")]
    assert all(grey[1:3] == grey[3:5] == grey[5:] for grey in greys) and len(set(greys)) == 2
    assert start({"0": "unassigned"}, {"unassigned": "red"}).colors == {"unassigned": "#ff0000"}


def test_numbered_clusters_and_series_can_be_a_start(four):
    assert dict(four.mapping) == {"0": "0", "1": "1", "2": "2", "3": "3"} and four.history() == []
    for given in ({0: "T", np.int64(1): "B"}, pd.Series(["T", "B"]), pd.Series(["T", "B"], ["0", "1"])):
        assert start(given) == start({"0": "T", "1": "B"})
    assert start([0, 1]) == start(["0", "1"])


def test_merging_keeps_the_first_place_and_the_colour_of_the_name(four):
    merged = four.merge(["3", "1"], into="1")
    assert merged.names == ("0", "1", "2") and merged.members["1"] == ("1", "3")
    assert merged.colors["1"] == four.colors["1"]
    fresh = four.merge(["3", "1"], into="T cell")
    assert fresh.names == ("0", "T cell", "2") and fresh.colors["T cell"] == four.colors["3"]


def test_splitting_and_renaming(four):
    parted = four.merge(["0", "1", "2"], into="a").split("a", ["1"], into="b")
    assert parted.members == {"a": ("0", "2"), "3": ("3",), "b": ("1",)}
    assert len(set(parted.colors.values())) == 3
    named = four.rename("1", "B cell")
    assert named.names == ("0", "B cell", "2", "3") and named.colors["B cell"] == four.colors["1"]


def test_colours_are_kept_as_hex_and_differ(four):
    assert four.recolor("0", "red").colors["0"] == "#ff0000"
    assert start(["a", "b"], {"b": "#00FF00"}).colors["b"] == "#00ff00"
    many = start(map(str, range(300)))
    assert len(set(many.colors.values())) == 300 and many == start(map(str, range(300)))


def test_a_value_never_changes(four):
    before = dict(four.mapping), dict(four.colors), hash(four)
    value = four.merge(["0", "1"], into="a")
    value.rename("a", "b").recolor("b", "red")
    assert (dict(four.mapping), dict(four.colors), hash(four)) == before
    with pytest.raises(TypeError):
        four.mapping["0"] = "x"
    with pytest.raises(AttributeError):
        four.steps = ()
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value and hash(other) == hash(value) and other.undo() == four
        assert other.mapping == value.mapping and other.colors == value.colors


def test_history_and_undo_step_by_step(four):
    merged = four.merge(["0", "1", "2"], into="a")
    value = merged.split("a", ["0"], into="b, c").rename("3", "d").recolor("d", "#ff0000")
    assert value.history()[:2] == ["merge '0', '1', '2' into 'a'", "split '0' from 'a' as 'b, c'"]
    assert value.history()[2:] == ["rename '3' to 'd'", "color 'd' #ff0000"]
    back = value.undo().undo().undo()
    assert back == merged and back.mapping == merged.mapping and back.undo() == four
    with pytest.raises(ValueError, match="no step to undo"):
        four.undo()


def test_steps_are_replayed_on_another_start(four):
    steps = four.merge(["0", "1"], into="a").rename("2", "b").recolor("b", "red")
    more = steps.replay(onto=start(["0", "1", "2", "3", "4"]))
    assert dict(more.mapping) == {"0": "a", "1": "a", "2": "b", "3": "3", "4": "4"} and more.colors["b"] == "#ff0000"
    with pytest.raises(KeyError, match=r"Step 2 \(rename '2' to 'b'\) cannot be done. There is no metacluster '2'"):
        steps.replay(onto=start(["0", "1"]))


@pytest.mark.parametrize(
    "edit, error, problem",
    [
        (lambda v: v.merge(["0"], into="a"), ValueError, "two or more different"),
        (lambda v: v.merge(["0", "0"], into="a"), ValueError, "two or more different"),
        (lambda v: v.merge(["0", "1"], into="2"), ValueError, "a metacluster '2' already"),
        (lambda v: v.merge("01", into="a"), TypeError, "must be a list"),
        (lambda v: v.split("0", ["0"], into="a"), ValueError, "leaves at least one"),
        (lambda v: v.split("0", [], into="a"), ValueError, "takes out at least one"),
        (lambda v: v.split("0", ["1"], into="a"), KeyError, "has no cluster"),
        (lambda v: v.rename("0", "1"), ValueError, "a metacluster '1' already"),
        (lambda v: v.rename("0", 5), TypeError, "must be a text: '5'"),
        (lambda v: v.recolor("0", "reddish"), ValueError, "no color"),
        (lambda v: v.recolor("9", "red"), KeyError, "no metacluster '9'"),
        (lambda _: start([]), ValueError, "at least one"),
        (lambda _: start("abc"), TypeError, "must be a list"),
        (lambda _: start([1, "1"]), ValueError, "there twice"),
        (lambda _: start([True]), TypeError, "must be a text"),
        (lambda _: start({0: 1}), TypeError, "The name of a metacluster is 1"),
        (lambda _: start(pd.Series(["T", "B"], [0, 0])), ValueError, "'0' is there twice"),
        (lambda _: start(["a"], {"b": "red"}), KeyError, "no metaclusters"),
    ],
)
def test_what_cannot_be_done(four, edit, error, problem):
    with pytest.raises(error, match=problem):
        edit(four)


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a\x00b", "\ud800", "a\u2028b", "a\tb"])
def test_names_that_cannot_be_written(four, name):
    for edit in (lambda: four.rename("0", name), lambda: start([name]), lambda: start({"0": name})):
        with pytest.raises(ValueError, match="The name of a"):
            edit()


def table(clusters):
    adata = AnnData(np.zeros((len(clusters), 1), np.float32))
    adata.obs["leiden"] = pd.Categorical(clusters)
    return adata


def test_cells_get_their_metacluster_the_largest_first(caplog):
    adata = table(["0", "1", "2", "2", "2", None])
    value = from_table(adata, "leiden").merge(["0", "1"], into="T").recolor("2", "red")
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        value.apply(adata, "leiden", key_added="type")
    assert adata.obs["type"].cat.categories.to_list() == ["2", "T"]
    assert adata.obs["type"].to_list()[:5] == ["T", "T", "2", "2", "2"] and adata.obs["type"].isna().to_list()[5]
    assert adata.uns["type_colors"].tolist() == ["#ff0000", value.colors["T"]]
    assert Metaclusters.from_json(adata.uns["type"]["steps"]) == value
    assert "2 metaclusters of 3 clusters" in caplog.text


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_survive_the_disk(tmp_path, kind):
    adata = table(["0", "1", "2", None])
    value = from_table(adata, "leiden").merge(["0", "1"], into="NK/T, γδ").rename("2", 'B "x"')
    value.apply(adata, "leiden")
    getattr(adata, f"write_{kind}")(tmp_path / "table")
    read = getattr(anndata, f"read_{kind}")(tmp_path / "table")
    assert read.obs["metacluster_nimbus"].to_list()[:3] == ["NK/T, γδ", "NK/T, γδ", 'B "x"']
    assert Metaclusters.from_json(read.uns["metacluster_nimbus"]["steps"]) == value
    # What was applied can be gone on with, colours and all.
    again = from_table(read, "leiden", "metacluster_nimbus")
    assert again.mapping == value.mapping and again.colors == value.colors


def test_whole_numbers_are_clusters_and_others_are_not():
    adata = table(["0", "1"])
    adata.obs["area"], adata.obs["number"] = [0.5, 1.5], [1.0, np.nan]
    for refused in (lambda: from_table(adata, "leiden", "area"), lambda: start(["0"]).apply(adata, "area")):
        with pytest.raises(ValueError, match=r"obs\['area'\] holds numbers such as 0\.5"):
            refused()
    # Whole numbers with gaps are what pandas makes of clusters that some cells lack.
    value = from_table(adata, "number")
    value.apply(adata, "number")
    assert value.names == ("1",) and adata.obs["metacluster_nimbus"].to_list()[0] == "1"


def test_another_clustering_of_the_same_names_is_noticed(tmp_path, no_warning):
    adata = table(["0", "0", "0", "1", None])
    value = from_table(adata, "leiden").rename("0", "T").rename("1", "B")
    assert value.cells == (("0", 3), ("1", 1))
    value.save(tmp_path / "mine.json")
    loaded = Metaclusters.load(tmp_path / "mine.json")
    again, shuffled = table(["1", "0", "0", "1", None]), adata[::-1].copy()
    for made in (value, value.undo(), loaded, value.replay(value.undo().undo())):
        made.apply(shuffled, "leiden")
        with pytest.warns(UserWarning, match=r"not the clustering.*2 cluster\(s\).*'0' had 3, now 2") as caught:
            made.apply(again, "leiden")
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="'1' had 1, now 0"):
        value.apply(table(["0"] * 3), "leiden")
    start(value.mapping).apply(again, "leiden")


def test_clusters_may_be_absent_but_not_unknown():
    adata = table(["0", "5"])
    start(["0", "5", "7"]).apply(adata, "leiden")
    assert adata.obs["metacluster_nimbus"].cat.categories.to_list() == ["0", "5"]
    adata.obs["none"], adata.obs["group"] = [None, "a"], ["b", None]
    twice = table(["0", "0"])
    twice.obs["group"] = ["a", "b"]
    for refused, error, message in (
        (lambda: start(["0"]).apply(adata, "leiden"), KeyError, r"\['5'\]; these metaclusters know \['0'\]"),
        (lambda: from_table(adata, "louvain"), KeyError, "no column 'louvain'"),
        (lambda: from_table(adata, "none", "group"), ValueError, r"No cell has a cluster in both obs\['none'\]"),
        (lambda: from_table(twice, "leiden", "group"), ValueError, r"\['0'\].*several groups of obs\['group'\]"),
    ):
        with pytest.raises(error, match=message):
            refused()


def test_the_results_of_others_are_not_overwritten(caplog):
    adata = table(["0", "1", "1"])
    adata.uns["mine_colors"] = ["red"]
    value = from_table(adata, "leiden")
    for key, problem in (("leiden", "did not make"), ("mine", r"the table has uns\['mine_colors'\]")):
        with pytest.raises(ValueError, match=problem):
            value.apply(adata, "leiden", key_added=key)
    value.apply(adata, "leiden")
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        value.rename("0", "T").apply(adata, "leiden")
    assert "overwrote" in caplog.text and adata.obs["metacluster_nimbus"].to_list() == ["T", "1", "1"]
    with pytest.raises(ValueError, match="`groupby` and `key_added` are both 'metacluster_nimbus'"):
        from_table(adata, "metacluster_nimbus").apply(adata, "metacluster_nimbus")
