"""Metaclusters on disk: JSON with every step, CSV with the mapping."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_sd.tl import Metaclusters

LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))
NAMES = ["NK/T, γδ", 'the "other" one', "NA", "null", "001", "=1+1", "a;b", "日本", "naïve B", "'", "#x", "1e3", "True"]


@pytest.fixture
def edited():
    value = Metaclusters.start(NAMES, {"日本": "red"}).merge(NAMES[:2], into="T, αβ/γδ")
    return value.split("T, αβ/γδ", [NAMES[1]], into="B").rename("NA", "none").recolor("none", "blue")


def test_json_keeps_every_step(tmp_path, edited):
    path = tmp_path / "metaclusters.json"
    edited.save(path)
    read = Metaclusters.load(path)
    assert read == edited and read.mapping == edited.mapping and read.colors == edited.colors
    assert read.undo() == edited.undo() and read.history() == edited.history()
    assert "αβ/γδ" in path.read_text(encoding="utf-8")
    assert read.to_json() == path.read_text(encoding="utf-8")


def test_json_written_by_hand_in_another_order():
    text = """{"format": "nimbus_sd.metaclusters", "version": 1, "start": {"0": "0", "1": "1"},
        "colors": {"1": "#e69f00", "0": "#56b4e9"}, "steps": [{"do": "merge", "metaclusters": ["0", "1"], "into": "a"},
        {"into": "b", "clusters": ["1"], "metacluster": "a", "do": "split"}]}"""
    value = Metaclusters.from_json(text)
    assert value.names == ("a", "b") and value.colors["a"] == "#56b4e9"
    assert Metaclusters.from_json(value.to_json()) == value


def test_csv_keeps_the_mapping(tmp_path, edited):
    path = tmp_path / "metaclusters.csv"
    edited.save(path)
    read = Metaclusters.load(path)
    assert read.mapping == edited.mapping and read.colors == edited.colors and read.steps == ()
    # As a spreadsheet saves it.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Metaclusters.load(path) == read


def test_csv_written_by_hand(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("cluster,metacluster,note\n1,T,sure\n2,B,\n3,T,\n")
    assert Metaclusters.load(path).members == {"T": ("1", "3"), "B": ("2",)}
    path.write_text("cluster,metacluster,color\n1,T,\n2,B,red\n3,T,#00ff00\n")
    assert dict(Metaclusters.load(path).colors) == {"T": "#00ff00", "B": "#ff0000"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(LETTERS, min_size=1).filter(lambda name: name == name.strip()), min_size=2, unique=True))
def test_all_names_come_back(tmp_path_factory, names):
    value = Metaclusters.start(names).merge(names[:2], into=names[1])
    assert Metaclusters.from_json(value.to_json()) == value
    path = tmp_path_factory.getbasetemp() / "names.csv"
    value.save(path)
    assert list(Metaclusters.load(path).mapping.items()) == list(value.mapping.items())


def damaged(**changes):
    return json.dumps(json.loads(Metaclusters.start(["a", "b"]).to_json()) | changes)


@pytest.mark.parametrize(
    "text, error, problem",
    [
        ("{", ValueError, "not JSON"),
        ("[" * 100_000, ValueError, "not JSON"),
        ("[]", ValueError, "not of metaclusters"),
        (damaged().replace('"b"', '"a"', 1), ValueError, r"\['a'\] more than once"),
        (damaged(version=2), ValueError, "'version': 2"),
        (damaged(start=["a"]), ValueError, "not complete"),
        *(
            (damaged(cells=cells), ValueError, "a number for each cluster")
            for cells in ({"a": -1}, {"a": "three"}, [1])
        ),
        (damaged(steps=[{"do": "explode"}]), ValueError, "Step 1 is .* one of .'merge', 'split', 'rename', 'recolor'"),
        (damaged(steps=["merge"]), ValueError, "Step 1"),
        (damaged(steps=[{"do": "rename", "metacluster": "a"}]), ValueError, "'metacluster' .a text., 'name'"),
        (damaged(steps=[{"do": "merge", "metaclusters": "ab", "into": "c"}]), ValueError, "'metaclusters' .a list"),
        (damaged(steps=[{"do": "merge", "metaclusters": [1, 2], "into": "c"}]), ValueError, "a list of texts"),
        (damaged(steps=[{"do": "rename", "metacluster": "a", "name": name} for name in "cd"]), KeyError, "Step 2"),
    ],
)
def test_json_that_is_damaged(text, error, problem):
    with pytest.raises(error, match=problem):
        Metaclusters.from_json(text)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("cluster;metacluster\n1;T\n", "no column"),
        ("cluster,metacluster\n1,T\n1,B\n", r"clusters twice: \['1'\]"),
        ("cluster,metacluster,color\n1,T,red\n2,T,blue\n", r"\['T'\] several colors"),
        ("cluster,metacluster\n", "empty"),
        ("cluster,metacluster\n1,\n", "must not be empty"),
        # pandas would take the first column for an index, and so the names for clusters.
        ("cluster,metacluster\n0,B cell,\n1,B cell,\n", "2 columns, but line 2 has more or fewer values"),
    ],
)
def test_csv_that_is_wrong(tmp_path, text, problem):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        Metaclusters.load(path)


def test_files_of_other_kinds(tmp_path, edited):
    with pytest.raises(ValueError, match="must end in"):
        edited.save(tmp_path / "metaclusters.txt")
    with pytest.raises(FileNotFoundError):
        Metaclusters.load(tmp_path / "none.json")
