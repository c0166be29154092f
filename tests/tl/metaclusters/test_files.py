import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_sd.tl import metaclusters as mc

LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))
LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))
NAMES = ["NK/T, γδ", 'the "other" one', "NA", "null", "001", "=1+1", "a;b", "日本", "naïve B", "'", "#x", "1e3", "True"]


@pytest.fixture
def edited():
    value = mc.merge(mc.start(NAMES, {"日本": "red"}), NAMES[:2], into="T, αβ/γδ")
    value = mc.split(value, "T, αβ/γδ", [NAMES[1]], into="B")
    return mc.recolor(mc.rename(value, "NA", "none"), "none", "blue")


def test_json_keeps_every_step(tmp_path, edited):
    path = tmp_path / "metaclusters.json"
    mc.save(edited, path)
    read = mc.load(path)
    assert read == edited and dict(read.mapping) == dict(edited.mapping) and dict(read.colors) == dict(edited.colors)
    assert mc.undo(read) == mc.undo(edited) and mc.history(read) == mc.history(edited)
    assert "αβ/γδ" in path.read_text(encoding="utf-8")
    mc.save(read, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_csv_keeps_the_mapping(tmp_path, edited):
    path = tmp_path / "metaclusters.csv"
    mc.save(edited, path)
    read = mc.load(path)
    assert dict(read.mapping) == dict(edited.mapping) and dict(read.colors) == dict(edited.colors)
    assert read.steps == ()
    # As a spreadsheet saves it.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert mc.load(path) == read


def test_csv_written_by_hand(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("cluster,metacluster,note\n1,T,sure\n2,B,\n3,T,\n")
    assert mc.load(path).members == {"T": ("1", "3"), "B": ("2",)}
    path.write_text("cluster,metacluster,color\n1,T,\n2,B,red\n3,T,#00ff00\n")
    assert dict(mc.load(path).colors) == {"T": "#00ff00", "B": "#ff0000"}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(LETTERS, min_size=1).filter(lambda name: name == name.strip()),
        min_size=2,
        unique=True,
    )
)
def test_all_names_come_back(tmp_path_factory, names):
    value = mc.merge(mc.start(names), names[:2], into=names[1])
    assert mc.from_json(mc.to_json(value)) == value
    path = tmp_path_factory.getbasetemp() / "names.csv"
    mc.save(value, path)
    assert list(mc.load(path).mapping.items()) == list(value.mapping.items())


def damaged(value, **changes):
    return json.dumps(json.loads(mc.to_json(value)) | changes)


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"format": "other"}, "not of metaclusters"),
        ({"version": 2}, "version 2"),
        ({"start": ["a"]}, "not complete"),
        ({"cells": {"a": -1}}, "a number for each cluster"),
        ({"steps": [{"do": "explode"}]}, r"Step 1 is .* one of \['merge', 'split', 'rename', 'recolor'\]"),
        ({"steps": [{"do": ["merge"]}]}, "Step 1"),
        ({"steps": ["merge"]}, "Step 1"),
        (
            {"steps": [{"do": "rename", "metacluster": "a"}]},
            "besides 'do', it must have 'metacluster' .a text., 'name'",
        ),
        ({"steps": [{"do": "merge", "metaclusters": "ab", "into": "c"}]}, "'metaclusters' .a list of texts."),
        ({"steps": [{"do": "merge", "metaclusters": [1, 2], "into": "c"}]}, "a list of texts"),
    ],
)
def test_json_that_is_damaged(changes, problem):
    with pytest.raises(ValueError, match=problem):
        mc.from_json(damaged(mc.start(["a", "b"]), **changes))


def test_json_whose_steps_do_not_fit():
    steps = [{"do": "rename", "metacluster": "a", "name": "c"}, {"do": "rename", "metacluster": "a", "name": "d"}]
    with pytest.raises(KeyError, match=r"Step 2 \(rename 'a' to 'd'\) cannot be done. There is no metacluster 'a'"):
        mc.from_json(damaged(mc.start(["a", "b"]), steps=steps))
    with pytest.raises(ValueError, match="not JSON"):
        mc.from_json("{")
    with pytest.raises(ValueError, match="not JSON"):
        mc.from_json("[" * 100_000)
    with pytest.raises(ValueError, match=r"\['a'\] more than once"):
        mc.from_json(damaged(mc.start(["a", "b"])).replace('"b"', '"a"', 1))


@pytest.mark.parametrize(
    "text, problem",
    [
        ("cluster;metacluster\n1;T\n", "no column"),
        ("cluster,metacluster\n1,T\n1,B\n", r"clusters twice: \['1'\]"),
        ("cluster,metacluster,color\n1,T,red\n2,T,blue\n", r"\['T'\] several colors"),
        ("cluster,metacluster\n", "empty"),
        ("cluster,metacluster\n1,\n", "must not be empty"),
    ],
)
def test_csv_that_is_wrong(tmp_path, text, problem):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        mc.load(path)


def test_files_of_other_kinds(tmp_path, edited):
    with pytest.raises(ValueError, match="must end in"):
        mc.save(edited, tmp_path / "metaclusters.txt")
    with pytest.raises(FileNotFoundError):
        mc.load(tmp_path / "none.json")


@pytest.mark.parametrize("row", ["0,B cell,#e69f00,", "0,T cell, CD8,#e69f00", "0"])
def test_rows_of_another_length_are_refused(tmp_path, row):
    """pandas would take the first column for an index, and so the names for clusters."""
    (tmp_path / "x.csv").write_text(f"cluster,metacluster,color\n{row}\n1,B cell,#56b4e9,\n")
    with pytest.raises(ValueError, match=r"x\.csv has 3 columns, but line 2 has more or fewer values"):
        mc.load(tmp_path / "x.csv")
