"""Metaclusters on disk: JSON with every step, CSV with the mapping."""

import json

import pytest

from nimbus_sd.tl import Metaclusters

NAMES = ["NK/T, γδ", 'the "other" one', "NA", "null", "001", "=1+1", "a;b", "日本", "naïve B", "'", "#x", "1e3", "True"]
NAMES += ["nan", "-1", '"', ",", "\\", "\U0001f9ec", "a  b", "\N{ZERO WIDTH SPACE}", "e\N{COMBINING ACUTE ACCENT}", "é"]


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
    # As somebody writes it.
    path.write_text("cluster,metacluster,color,note\n1,T,,sure\n2,B,red,\n3,T,#00ff00,\n")
    mine = Metaclusters.load(path)
    assert mine.members == {"T": ("1", "3"), "B": ("2",)} and mine.colors == {"T": "#00ff00", "B": "#ff0000"}
    path.write_text("cluster,metacluster\n1,T\n2,B\n")
    assert dict(Metaclusters.load(path).mapping) == {"1": "T", "2": "B"}
    with pytest.raises(ValueError, match="must end in"):
        edited.save(tmp_path / "metaclusters.txt")
    with pytest.raises(FileNotFoundError):
        Metaclusters.load(tmp_path / "none.json")


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
        (damaged(cells={"a": -1}), ValueError, "a number for each cluster"),
        (damaged(cells=[1]), ValueError, "a number for each cluster"),
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
