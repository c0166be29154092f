import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from nimbus_sd.tl import metaclusters as mc


@pytest.fixture
def four():
    return mc.start(["0", "1", "2", "3"])


def test_each_cluster_begins_as_its_own_metacluster(four):
    assert dict(four.mapping) == {"0": "0", "1": "1", "2": "2", "3": "3"}
    assert len(set(four.colors.values())) == 4 and mc.history(four) == []


def test_what_has_no_type_is_grey():
    plain = mc.start({"0": "T", "1": "B"}).colors
    value = mc.start({"0": "T", "1": "ambiguous", "2": "unassigned", "3": "B"})
    assert {name: value.colors[name] for name in "TB"} == plain
    greys = [value.colors[name] for name in ("ambiguous", "unassigned")]
    assert all(grey[1:3] == grey[3:5] == grey[5:] for grey in greys) and len(set(greys)) == 2
    assert mc.start({"0": "unassigned"}, {"unassigned": "red"}).colors == {"unassigned": "#ff0000"}


def test_numbered_clusters_and_series_can_be_a_start():
    named = mc.start({"0": "T", "1": "B"})
    for given in ({0: "T", np.int64(1): "B"}, pd.Series(["T", "B"]), pd.Series(["T", "B"], ["0", "1"])):
        assert mc.start(given) == named
    assert mc.start([0, 1]) == mc.start(["0", "1"])


def test_merging_keeps_the_first_place_and_the_colour_of_the_name(four):
    merged = mc.merge(four, ["3", "1"], into="1")
    assert merged.names == ("0", "1", "2") and merged.members["1"] == ("1", "3")
    assert merged.colors["1"] == four.colors["1"]
    fresh = mc.merge(four, ["3", "1"], into="T cell")
    assert fresh.names == ("0", "T cell", "2") and fresh.colors["T cell"] == four.colors["3"]


def test_a_value_never_changes(four):
    before = dict(four.mapping), dict(four.colors), hash(four)
    mc.recolor(mc.rename(mc.merge(four, ["0", "1"], into="a"), "a", "b"), "b", "red")
    assert (dict(four.mapping), dict(four.colors), hash(four)) == before
    with pytest.raises(TypeError):
        four.mapping["0"] = "x"
    with pytest.raises(AttributeError):
        four.steps = ()


def test_a_value_can_be_copied_and_sent_to_another_process(four):
    value = mc.merge(four, ["0", "1"], into="a")
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value and hash(other) == hash(value) and mc.undo(other) == four
        assert dict(other.mapping) == dict(value.mapping) and other.colors == value.colors


def test_splitting_makes_a_new_metacluster_with_a_colour_of_its_own(four):
    merged = mc.merge(four, ["0", "1", "2"], into="a")
    parted = mc.split(merged, "a", ["1"], into="b")
    assert parted.members == {"a": ("0", "2"), "3": ("3",), "b": ("1",)}
    assert len(set(parted.colors.values())) == 3


def test_renaming_keeps_place_and_colour(four):
    named = mc.rename(four, "1", "B cell")
    assert named.names == ("0", "B cell", "2", "3") and named.colors["B cell"] == four.colors["1"]
    assert mc.rename(named, "B cell", "B cell").mapping == named.mapping


def test_colours_are_kept_as_hex(four):
    assert mc.recolor(four, "0", "red").colors["0"] == "#ff0000"
    assert mc.start(["a", "b"], {"b": "#00FF00"}).colors["b"] == "#00ff00"


def test_colours_of_many_differ():
    many = mc.start([str(i) for i in range(300)])
    assert len(set(many.colors.values())) == 300
    assert many == mc.start([str(i) for i in range(300)])


def test_undo_goes_back_step_by_step(four):
    one = mc.merge(four, ["0", "1"], into="a")
    two = mc.rename(one, "a", "b")
    assert mc.undo(two) == one and mc.undo(two).mapping == one.mapping
    assert mc.undo(mc.undo(two)) == four
    with pytest.raises(ValueError, match="no step to undo"):
        mc.undo(four)


def test_steps_are_replayed_on_another_start(four):
    steps = mc.recolor(mc.rename(mc.merge(four, ["0", "1"], into="a"), "2", "b"), "b", "red")
    more = mc.replay(steps, onto=mc.start(["0", "1", "2", "3", "4"]))
    assert dict(more.mapping) == {"0": "a", "1": "a", "2": "b", "3": "3", "4": "4"} and more.colors["b"] == "#ff0000"
    with pytest.raises(KeyError, match=r"Step 2 \(rename '2' to 'b'\) cannot be done. There is no metacluster '2'"):
        mc.replay(steps, onto=mc.start(["0", "1"]))


def test_history_says_what_was_done(four):
    value = mc.split(mc.merge(four, ["0", "1", "2"], into="a"), "a", ["0"], into="b, c")
    value = mc.recolor(mc.rename(value, "3", "d"), "d", "#ff0000")
    assert mc.history(value) == [
        "merge '0', '1', '2' into 'a'",
        "split '0' from 'a' as 'b, c'",
        "rename '3' to 'd'",
        "color 'd' #ff0000",
    ]


@pytest.mark.parametrize(
    "edit, error, problem",
    [
        (lambda v: mc.merge(v, ["0"], into="a"), ValueError, "two or more different"),
        (lambda v: mc.merge(v, ["0", "0"], into="a"), ValueError, "two or more different"),
        (lambda v: mc.merge(v, ["0", "9"], into="a"), KeyError, "no metacluster '9'"),
        (lambda v: mc.merge(v, ["0", "1"], into="2"), ValueError, "a metacluster '2' already"),
        (lambda v: mc.merge(v, "01", into="a"), TypeError, "must be a list"),
        (lambda v: mc.split(v, "0", ["0"], into="a"), ValueError, "leaves at least one"),
        (lambda v: mc.split(v, "0", [], into="a"), ValueError, "takes out at least one"),
        (lambda v: mc.split(v, "0", ["1"], into="a"), KeyError, "has no cluster"),
        (lambda v: mc.rename(v, "0", "1"), ValueError, "merge them, or"),
        (lambda v: mc.rename(v, "9", "a"), KeyError, "no metacluster '9'"),
        (lambda v: mc.rename(v, "0", 5), TypeError, "must be a text: '5'"),
        (lambda v: mc.recolor(v, "0", "reddish"), ValueError, "no color"),
        (lambda v: mc.recolor(v, "9", "red"), KeyError, "no metacluster '9'"),
    ],
)
def test_what_cannot_be_done(four, edit, error, problem):
    with pytest.raises(error, match=problem):
        edit(four)


@pytest.mark.parametrize("name", ["", " ", " a", "a\n", "a\nb", "a\x00b", "\ud800", "a\u2028b", "a\tb"])
def test_names_that_cannot_be_written(four, name):
    for edit in (
        lambda: mc.rename(four, "0", name),
        lambda: mc.merge(four, ["0", "1"], into=name),
        lambda: mc.start([name]),
        lambda: mc.start({"0": name}),
    ):
        with pytest.raises(ValueError, match="The name of a"):
            edit()


@pytest.mark.parametrize(
    "clusters, colors, error, problem",
    [
        ([], None, ValueError, "at least one"),
        (["a", "a"], None, ValueError, "there twice"),
        ("abc", None, TypeError, "must be a list"),
        ([1, "1"], None, ValueError, "there twice"),
        ([1.5], None, TypeError, "must be a text"),
        ([True], None, TypeError, "must be a text"),
        ({0: 1}, None, TypeError, "The name of a metacluster is 1"),
        (pd.Series(["T", "B"], [0, 0]), None, ValueError, "'0' is there twice"),
        (["a"], {"b": "red"}, KeyError, "no metaclusters"),
        (["a"], {"a": "reddish"}, ValueError, "no color"),
    ],
)
def test_what_cannot_be_a_start(clusters, colors, error, problem):
    with pytest.raises(error, match=problem):
        mc.start(clusters, colors)
