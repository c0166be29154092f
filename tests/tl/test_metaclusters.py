"""Metaclusters by hand: edits on a value that never changes, and columns of tables."""

import copy
import logging
import pickle

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nimbus_sd.tl import Metaclusters

start, from_table = Metaclusters.start, Metaclusters.from_table


@pytest.fixture
def four():
    return start(["0", "1", "2", "3"])


def test_numbered_clusters_and_series_can_be_a_start(four):
    assert dict(four.mapping) == {"0": "0", "1": "1", "2": "2", "3": "3"} and four.history() == []
    for given in ({0: "T", np.int64(1): "B"}, pd.Series(["T", "B"]), pd.Series(["T", "B"], ["0", "1"])):
        assert start(given) == start({"0": "T", "1": "B"})
    assert start([0, 1]) == start(["0", "1"])


def test_where_edits_put_names_clusters_and_colours(four):
    merged = four.merge(["3", "1"], into="1")
    assert merged.names == ("0", "1", "2") and merged.members["1"] == ("1", "3")
    assert merged.colors["1"] == four.colors["1"]
    fresh = four.merge(["3", "1"], into="T cell")
    assert fresh.names == ("0", "T cell", "2") and fresh.colors["T cell"] == four.colors["3"]
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
    # What has no type is grey, and takes no colour from the types.
    value = start({"0": "T", "1": "ambiguous", "2": "unassigned", "3": "B"})
    assert [value.colors[name] for name in "TB"] == list(start(["T", "B"]).colors.values())
    for name in ("ambiguous", "unassigned"):
        assert value.colors[name][1:3] == value.colors[name][3:5] == value.colors[name][5:]


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


def test_history_undo_and_replay_step_by_step(four):
    merged = four.merge(["0", "1", "2"], into="a")
    value = merged.split("a", ["0"], into="b, c").rename("3", "d").recolor("d", "#ff0000")
    assert value.history()[:2] == ["merge '0', '1', '2' into 'a'", "split '0' from 'a' as 'b, c'"]
    assert value.history()[2:] == ["rename '3' to 'd'", "color 'd' #ff0000"]
    back = value.undo().undo().undo()
    assert back == merged and back.mapping == merged.mapping and back.undo() == four
    with pytest.raises(ValueError, match="no step to undo"):
        four.undo()
    more = value.replay(onto=start(["0", "1", "2", "3", "4"]))
    assert dict(more.mapping) == {"0": "b, c", "1": "a", "2": "a", "3": "d", "4": "4"}
    assert more.colors["d"] == "#ff0000"
    with pytest.raises(KeyError, match=r"Step 3 \(rename '3' to 'd'\) cannot be done. There is no metacluster '3'"):
        value.replay(onto=start(["0", "1", "2"]))


@pytest.mark.parametrize(
    "edit, error, problem",
    [
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


def test_cells_get_their_metacluster_the_largest_first_and_keep_it_on_disk(caplog, from_disk):
    adata = table(["0", "1", "2", "2", "2", None])
    value = from_table(adata, "leiden").merge(["0", "1"], into="NK/T, γδ").rename("2", 'B "x"').recolor('B "x"', "red")
    with caplog.at_level(logging.INFO, "nimbus_sd"):
        value.apply(adata, "leiden", key_added="type")
    assert "2 metaclusters of 3 clusters" in caplog.text
    read = from_disk(adata)
    assert read.obs["type"].cat.categories.to_list() == ['B "x"', "NK/T, γδ"]
    assert read.obs["type"].to_list()[:5] == ["NK/T, γδ"] * 2 + ['B "x"'] * 3 and pd.isna(read.obs["type"].iloc[5])
    assert read.uns["type_colors"].tolist() == ["#ff0000", value.colors["NK/T, γδ"]]
    assert Metaclusters.from_json(read.uns["type"]["steps"]) == value
    # What was applied can be gone on with, colours and all.
    again = from_table(read, "leiden", "type")
    assert again.mapping == value.mapping and again.colors == value.colors


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


def test_clusters_may_be_absent_or_whole_numbers_with_gaps():
    adata = table(["0", "5"])
    start(["0", "5", "7"]).apply(adata, "leiden")
    assert adata.obs["metacluster_nimbus"].cat.categories.to_list() == ["0", "5"]
    # What pandas makes of clusters that some cells lack.
    adata.obs["number"] = [1.0, np.nan]
    value = from_table(adata, "number")
    value.apply(adata, "number")
    assert value.names == ("1",) and adata.obs["metacluster_nimbus"].to_list()[0] == "1"
    value.rename("1", "T").apply(adata, "number")
    assert adata.obs["metacluster_nimbus"].to_list()[0] == "T"


@pytest.mark.parametrize(
    ("refused", "error", "message"),
    [
        (lambda adata: from_table(adata, "leiden", "area"), ValueError, r"obs\['area'\] holds numbers such as 0\.5"),
        (lambda adata: start(["0"]).apply(adata, "area"), ValueError, r"obs\['area'\] holds numbers such as 0\.5"),
        (lambda adata: start(["0"]).apply(adata, "leiden"), KeyError, r"\['5'\]; these metaclusters know \['0'\]"),
        (lambda adata: from_table(adata, "louvain"), KeyError, "no column 'louvain'"),
        (lambda adata: from_table(adata, "none", "group"), ValueError, r"No cell has a cluster in both obs\['none'\]"),
        (lambda adata: from_table(adata, "same", "leiden"), ValueError, r"\['x'\].*several groups of obs\['leiden'\]"),
        (lambda adata: from_table(adata, "same").apply(adata, "same", key_added="leiden"), ValueError, "did not make"),
        (lambda adata: from_table(adata, "same").apply(adata, "same", key_added="mine"), ValueError, "'mine_colors'"),
        (lambda adata: from_table(adata, "done").apply(adata, "done", key_added="done"), ValueError, "are both 'done'"),
    ],
)
def test_what_cannot_be_applied_or_begun(refused, error, message):
    adata = table(["0", "5"])
    adata.obs["area"], adata.obs["same"] = [0.5, 1.5], "x"
    adata.obs["none"], adata.obs["group"] = [None, "a"], ["b", None]
    adata.uns["mine_colors"] = ["red"]
    from_table(adata, "leiden").apply(adata, "leiden", key_added="done")
    before = adata.copy()
    with pytest.raises(error, match=message):
        refused(adata)
    assert adata.obs.equals(before.obs) and set(adata.uns) == set(before.uns)
