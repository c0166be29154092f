import csv
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns
from nimbus_sd.tl._markers import canonical, match_markers, simplified
from nimbus_sd.tl.signatures import markers_of

PANEL = ["CD45", "CD3", "CD4", "CD8", "CD20", "PanCK"]


def test_the_tables_of_the_package_are_sound_and_have_sources():
    table = ns.tl.signatures()
    assert len(table) == 28 and len(markers_of(table)) == 28 and (table["source"].str.len() > 20).all()
    roots = ["Immune cell", "Epithelial cell", "Endothelial cell", "Stromal cell"]
    assert table.index[table["parent"] == ""].to_list() == roots
    table.loc["T cell", "CD3"] = "-"
    assert ns.tl.signatures().loc["T cell", "CD3"] == "+"
    # Each synonym is of one marker.
    text = files("nimbus_sd.tl").joinpath("data/synonyms.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    names = [{simplified(name) for name in (row["marker"], *filter(None, row["synonyms"].split(";")))} for row in rows]
    assert len(set.union(*names)) == sum(map(len, names))
    assert {simplified(marker) for marker in markers_of(table)} <= {simplified(row["marker"]) for row in rows}


def test_markers_find_their_channels_by_synonyms():
    for names in (
        ("CD8", "cd8", "CD8a", "CD8A", "CD 8", "CD-8a"),
        ("PanCK", "Pan-Cytokeratin", "Cytokeratin", "PanKRT", "Keratin", "CK"),
        ("HLA-DR", "HLADR", "HLA DR", "HLA_DR", "HLADRDPDQ"),
        ("SMA", "αSMA", "α-SMA", "ACTA2"),  # noqa: RUF001
    ):
        assert len({canonical(name) for name in names}) == 1
    different = ("CD4", "CD45", "CD45RA", "CD45RO", "CD3", "CD31", "CD38", "CK", "CK 5", "PD-1", "PD-L1", "P")
    assert len({canonical(name) for name in different}) == len(different)
    assert match_markers(["CD8", "CD8a"], ["CD8a", "CD8"]) == ({"CD8": "CD8", "CD8a": "CD8a"}, [])
    assert match_markers(["CD8", "CD4"], ["CD8A"]) == ({"CD8": "CD8A"}, ["CD4"])
    with pytest.raises(ValueError, match=r"'CD8' could be any of .*\['CD8a', 'CD8A'\].*'CD3', 'CD3e'\] are all"):
        match_markers(["CD8", "CD3", "CD3e"], ["CD8a", "CD8A", "CD3E"])


def test_signs_are_understood_in_any_spelling(signatures, tmp_path):
    plain = ns.tl.check_signatures(signatures({"A": ("", "CD45+"), "B": ("A", "CD3+ CD20-")}, ["CD45", "CD3", "CD20"]))
    rows = [[None, "Positive", "any", "ANY"], [" A ", np.nan, "pos", "\N{MINUS SIGN}"]]
    words = pd.DataFrame(rows, ["A", "B"], ["parent", "CD45", "CD3", "CD20"])
    path = tmp_path / "types.csv"
    path.write_bytes(b"\xef\xbb\xbf" + words.to_csv(index_label="type").encode())
    for spelled in (words, path, str(path)):
        pd.testing.assert_frame_equal(ns.tl.check_signatures(spelled), plain)
    assert plain.to_numpy().tolist() == [["", "", "+", "", ""], ["A", "", "", "+", "-"]]


def test_all_problems_come_in_one_error(signatures):
    rows = {
        "Immune": ("", "CD45+"), "T": ("Imune", "CD3+"), "B": ("Immune", "CD45- CD20+"), "C": ("D", "CD3+"),
        "D": ("C", "CD20+"), "E": ("Immune", ""), "F": ("Immune", "CD3+ CD20-"), "G": ("Immune", "CD3+ CD20-"),
        "unassigned": ("Immune", "CD20+ CD3-"), "a\nb": ("", "CD4+"), "": ("", "CD8+"), "H": ("", ""),
    }  # fmt: skip
    table = signatures(rows)
    table.loc["F", "CD45"] = "maybe"
    with pytest.raises(ValueError) as caught:
        ns.tl.check_signatures(pd.concat([table, table.loc[["T"]]]))
    message = str(caught.value)
    parts = [
        "'T' is there twice", "a type has no name", "; leave out '\\n'", "'unassigned' is kept",
        "'F' has 'maybe' for 'CD45'", "'T' has the unknown parent 'Imune' (is it 'Immune'?)",
        "['C', 'D'] leads in a circle", "'B' is CD45-, but its ancestor 'Immune' is CD45+",
        "separates 'E' from its parent 'Immune'", "separates 'F' (CD45+ CD3+ CD20-) from 'G' (CD45+ CD3+ CD20-)",
        "separates 'H' from others",
    ]  # fmt: skip
    assert [part for part in parts if part not in message] == []
    assert "(11)" in message and "(12)" not in message
    everything = pd.DataFrame("x", index=[f"T{i}" for i in range(9)], columns=["parent", "CD3", "CD20", "CD4"])
    with pytest.raises(ValueError, match=r"\(1\) 'T0' has 'x' for 'CD3'; it must be '\+'.*\(20\).*and \d+ more"):
        ns.tl.check_signatures(everything.assign(parent=""))


@pytest.mark.parametrize(
    ("table", "error", "problem"),
    [
        (b"", ValueError, "is empty"),
        ("type,parent,CD3\nT,,+\n".encode("utf-16"), ValueError, "is no CSV file in UTF-8"),
        # Missing signs would be 'any', and the type wider.
        (b"type,parent,CD3,CD20\nT,,+,-\nB,,-\n", ValueError, "has 4 columns, but line 3 has more or fewer"),
        (b"type,parent,CD3,CD3\nT,,+,-\n", ValueError, "column 'CD3' is there twice"),
        # Types that are not the index: lost, numbered, or a column.
        (b"parent,CD3\n,+\n,-\n", ValueError, r"has the types as its index .*set_index\('type'\)"),
        (b",type,parent,CD3\n0,T,,+\n1,B,,-\n", ValueError, "has the types as its index"),
        (pd.DataFrame({"type": ["T"], "parent": "", "CD3": "+"}), ValueError, "has the types as its index"),
        (pd.DataFrame({"CD3": ["+"]}, index=["T"]), ValueError, "needs a column 'parent'"),
        (pd.DataFrame({"parent": [""]}, index=["T"]), ValueError, "has 1 and 0"),
        (pd.DataFrame({"parent": [], "CD3": []}), ValueError, "has 0 and 1"),
        (pd.DataFrame({"parent": "", "CD3": [1, 0]}, index=["T", "B"]), ValueError, "'T' has '1' for 'CD3'; it must"),
        ({"T": "CD3+"}, TypeError, "`signatures` is a dict"),
        ("no_such_table.csv", FileNotFoundError, "no_such_table"),
    ],
)
def test_what_is_no_signature_table(table, error, problem, tmp_path):
    if isinstance(table, bytes):
        (tmp_path / "types.csv").write_bytes(table)
        table = tmp_path / "types.csv"
    with pytest.raises(error, match=problem):
        ns.tl.check_signatures(table)


def test_a_type_that_could_never_be_alone(signatures):
    nested = {"T": ("", "CD3+"), "Immune": ("", "CD3+ CD45+")}
    with pytest.raises(ValueError, match=r"separates 'Immune' \(CD45\+ CD3\+\) from 'T' \(CD3\+\): make"):
        ns.tl.check_signatures(signatures(nested))
    # Also where the other one is a sibling of an ancestor; its subtypes are not named beside it.
    deep = {"T": ("", "CD3+"), "B": ("", "CD20+"), "C": ("B", "CD3+"), "D": ("C", "CD45+")}
    with pytest.raises(ValueError, match=r"separates 'C' \(CD20\+ CD3\+\) from 'T'") as caught:
        ns.tl.check_signatures(signatures(deep))
    assert "'D'" not in str(caught.value)
    # Types that may overlap are no contradiction.
    ns.tl.check_signatures(signatures({"T": ("", "CD3+"), "B": ("", "CD20+")}))


def test_missing_markers_are_an_error_with_near_names(signatures):
    rows = {"Immune": ("", "CD45+"), "Treg": ("Immune", "FOXP3+"), "Monocyte": ("Immune", "CD14+ FOXP3-")}
    table = signatures(rows, ["CD45", "CD14", "FOXP3"])
    # CD45 is not another spelling of CD14.
    with pytest.raises(KeyError, match=r"2 marker\(s\) 'CD14', 'FOXP3' \(near: 'FOXP33'\): .*missing='skip'"):
        ns.tl.check_signatures(table, ["CD45", "FOXP33"])
    with pytest.raises(ValueError, match="`missing` is 'drop'"):
        ns.tl.check_signatures(None, PANEL, missing="drop")


def test_skipping_leaves_out_types_and_moves_their_subtypes_up(signatures):
    rows = {
        "Immune": ("", "CD45+ PanCK-"), "T": ("Immune", "CD45+ CD3+ CD20-"), "CD8 T": ("T", "CD8+ CD4-"),
        "CD4 T": ("T", "CD4+"), "Epithelial": ("", "PanCK+"),
    }  # fmt: skip
    table = signatures(rows, [*PANEL, "Ki67"])
    message = r"\['CD45', 'CD3', 'CD4'\]. Left out.*\['Immune', 'T', 'CD4 T'\]. Wider.*\['CD8 T'\]"
    with pytest.warns(UserWarning, match=message) as caught:
        left = ns.tl.check_signatures(table, ["CD8", "CD20", "PanCK"], missing="skip")
    assert caught[0].filename == __file__
    # What all T cells must not be is still asked of the CD8 T cells, and a marker that nobody asks for is no matter.
    assert left.drop(columns="source").to_dict("index") == {
        "CD8 T": {"parent": "", "CD8": "+", "CD20": "-", "PanCK": "-"},
        "Epithelial": {"parent": "", "CD8": "", "CD20": "", "PanCK": "+"},
    }
    # A parent's marker that rows repeat is not their own: without CD45, there are still T cells.
    with pytest.warns(UserWarning, match=r"need them: \['Immune'\]. Wider, as .*: \['T'\].$"):
        left = ns.tl.check_signatures(table, PANEL[1:], missing="skip")
    assert left["parent"].to_dict() == {"T": "", "CD8 T": "T", "CD4 T": "T", "Epithelial": ""}


@pytest.mark.filterwarnings("ignore:There are no scores")
def test_skipping_may_not_leave_nothing_or_blur_types(signatures):
    with pytest.raises(ValueError, match="tell no type apart"):
        ns.tl.check_signatures(signatures({"T": ("", "CD3+")}), ["CD20"], missing="skip")
    table = signatures({"B": ("", "CD3+ CD20-"), "C": ("", "CD3+ CD45-")})
    with pytest.raises(ValueError, match=r"Without the marker\(s\) \['CD45', 'CD20'\].*'B' \(CD3\+\) from 'C'"):
        ns.tl.check_signatures(table, ["CD3"], missing="skip")
