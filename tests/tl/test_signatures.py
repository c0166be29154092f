import csv
import itertools
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns
from nimbus_sd.tl._markers import canonical, match_markers, plain
from nimbus_sd.tl._signature_table import markers_of

PANEL = ["CD45", "CD3", "CD4", "CD8", "CD20", "PanCK"]


def signatures(rows, markers=("CD45", "CD3", "CD20")):
    """Types from texts: ``{"T cell": ("Immune", "CD45+ CD3+")}``."""
    table = pd.DataFrame("", index=list(rows), columns=["parent", *markers])
    for name, (parent, rules) in rows.items():
        table.loc[name, "parent"] = parent
        for rule in rules.split():
            table.loc[name, rule[:-1]] = rule[-1]
    return table


def test_the_table_of_the_package_is_sound_and_has_sources():
    table = ns.tl.signatures()
    assert len(table) == 28 and len(markers_of(table)) == 28
    assert (table["source"].str.len() > 20).all()
    assert set(table.loc[table["parent"] == ""].index) == {
        "Immune cell", "Epithelial cell", "Endothelial cell", "Stromal cell"
    }  # fmt: skip
    # It is the reader's to change.
    table.loc["T cell", "CD3"] = "-"
    assert ns.tl.signatures().loc["T cell", "CD3"] == "+"


def test_each_synonym_is_of_one_marker():
    text = files("nimbus_sd.tl").joinpath("data/synonyms.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    names = [{plain(name) for name in (row["marker"], *filter(None, row["synonyms"].split(";")))} for row in rows]
    assert all(not one & other for one, other in itertools.combinations(names, 2))
    known = {plain(row["marker"]) for row in rows}
    assert {plain(marker) for marker in markers_of(ns.tl.signatures())} <= known


@pytest.mark.parametrize(
    "names",
    [
        ("CD8", "cd8", "CD8a", "CD8A", "CD 8", "CD-8a"),
        ("PanCK", "Pan-Cytokeratin", "pan cytokeratin", "Cytokeratin", "PanKRT", "Keratin", "CK"),
        ("Ki67", "Ki-67", "MKI67", "ki 67"),
        ("HLA-DR", "HLADR", "HLA DR", "HLA_DR", "HLADRDPDQ"),
        ("SMA", "αSMA", "α-SMA", "ACTA2"),  # noqa: RUF001
    ],
)
def test_names_of_one_marker(names):
    assert len({canonical(name) for name in names}) == 1


def test_names_of_different_markers():
    names = [
        "CD4",
        "CD45",
        "CD45RA",
        "CD45RO",
        "CD3",
        "CD31",
        "CD38",
        "Cytokeratin",
        "Cytokeratin 5",
        "PD-1",
        "PD-L1",
        "P",
    ]
    assert len({canonical(name) for name in names}) == len(names)


def test_a_channel_of_exactly_the_name_is_meant():
    assert match_markers(["CD8", "CD8a"], ["CD8a", "CD8"]) == ({"CD8": "CD8", "CD8a": "CD8a"}, [])
    assert match_markers(["CD8", "CD4"], ["CD8A"]) == ({"CD8": "CD8A"}, ["CD4"])


def test_ambiguous_names_are_all_listed():
    with pytest.raises(
        ValueError, match=r"'CD8' could be any of the channels \['CD8a', 'CD8A'\].*'CD3', 'CD3e'\] are all"
    ):
        match_markers(["CD8", "CD3", "CD3e"], ["CD8a", "CD8A", "CD3E"])


def test_signs_are_understood_in_any_spelling(tmp_path):
    rows = {"A": ("", "CD45+"), "B": ("A", "CD3+ CD20-")}
    plain_table = ns.tl.check_signatures(signatures(rows))
    words = pd.DataFrame(
        {
            "parent": [None, " A "],
            "CD45": ["Positive", np.nan],
            "CD3": ["any", "pos"],
            "CD20": ["ANY", "\N{MINUS SIGN}"],
        },
        index=["A", "B"],
    )
    pd.testing.assert_frame_equal(ns.tl.check_signatures(words), plain_table)
    path = tmp_path / "types.csv"
    path.write_bytes(b"\xef\xbb\xbf" + words.to_csv(index_label="type").encode())
    pd.testing.assert_frame_equal(ns.tl.check_signatures(path), plain_table)
    assert plain_table.to_numpy().tolist() == [["", "", "+", "", ""], ["A", "", "", "+", "-"]]


def test_all_problems_come_in_one_error():
    table = signatures(
        {
            "Immune": ("", "CD45+"),
            "T": ("Imune", "CD3+"),
            "B": ("Immune", "CD45- CD20+"),
            "C": ("D", "CD3+"),
            "D": ("C", "CD20+"),
            "E": ("Immune", ""),
            "F": ("Immune", "CD3+ CD20-"),
            "G": ("Immune", "CD3+ CD20-"),
            "unassigned": ("Immune", "CD20+ CD3-"),
        }
    )
    table.loc["F", "CD45"] = "maybe"
    table = pd.concat([table, table.loc[["T"]]])
    with pytest.raises(ValueError) as caught:
        ns.tl.check_signatures(table)
    message = str(caught.value)
    for part in (
        "'T' is there twice",
        "'unassigned' is kept",
        "'F' has 'maybe' for 'CD45'",
        "'T' has the unknown parent 'Imune' (is it 'Immune'?)",
        "['C', 'D'] leads in a circle",
        "'B' is CD45-, but its ancestor 'Immune' is CD45+",
        "separates 'E' from its parent 'Immune'",
        "separates 'F' from 'G': both are CD45+ CD3+ CD20-",
    ):
        assert part in message
    assert "(8)" in message and "(9)" not in message


def test_a_table_that_is_all_wrong_gives_a_short_error():
    table = pd.DataFrame("x", index=[f"T{i}" for i in range(9)], columns=["parent", "CD3", "CD20", "CD4"])
    with pytest.raises(ValueError, match=r"\(1\) 'T0' has 'x' for 'CD3'; it must be '\+', '-' or empty.*and \d+ more"):
        ns.tl.check_signatures(table.assign(parent=""))


def test_names_of_types_that_are_not_the_index(tmp_path):
    table = signatures({"T": ("", "CD3+"), "B": ("", "CD20+ CD3-")})
    in_a_column = table.rename_axis("type").reset_index()
    for name, keep in (("lost", False), ("numbered", True)):
        (table if name == "lost" else in_a_column).to_csv(tmp_path / f"{name}.csv", index=keep)
    read = pd.read_csv(tmp_path / "lost.csv", index_col=0)
    for wrong in (in_a_column, tmp_path / "lost.csv", tmp_path / "numbered.csv", read):
        with pytest.raises(ValueError, match=r"names of the types as its index .*set_index\('type'\).*index_col=0"):
            ns.tl.check_signatures(wrong)
    in_a_column.to_csv(tmp_path / "first.csv", index=False)
    pd.testing.assert_frame_equal(ns.tl.check_signatures(tmp_path / "first.csv"), ns.tl.check_signatures(table))


def test_numbers_are_no_signs():
    table = pd.DataFrame({"parent": "", "CD3": [1, 0], "CD20": [0.0, 1.0]}, index=["T", "B"])
    with pytest.raises(
        ValueError, match=r"numbers as signs, in 4 places, as '1' of 'T' for 'CD3': use \+ for positive"
    ):
        ns.tl.check_signatures(table)
    with pytest.raises(ValueError, match="numbers as signs, in 4 places, as 'True'"):
        ns.tl.check_signatures(table.astype({"CD3": bool, "CD20": bool}))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        ("type,parent,CD3\nT,,+\n".encode("utf-16"), "is no CSV file in UTF-8"),
        (b"type,parent\nT,,+,-\n", "has 2 columns, but line 2 has more or fewer"),
    ],
)
def test_files_that_are_no_signature_tables(tmp_path, content, fault):
    path = tmp_path / "types.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"types\.csv {fault}"):
        ns.tl.check_signatures(path)


def test_a_row_that_was_cut_short_is_refused(tmp_path):
    """Its missing signs would be 'any', and the type wider."""
    (tmp_path / "types.csv").write_text("type,parent,CD3,CD20\nT,,+,-\nB,,-\n")
    with pytest.raises(ValueError, match=r"types\.csv has 4 columns, but line 3 has more or fewer values"):
        ns.tl.check_signatures(tmp_path / "types.csv")


@pytest.mark.parametrize("name", ["a\x00b", "a\nb"])
def test_names_of_types_that_cannot_be_written(name):
    with pytest.raises(ValueError, match=r"The name of a type is .* cannot be written to disk"):
        ns.tl.check_signatures(signatures({name: ("", "CD3+"), "B": ("", "CD20+ CD3-")}))


def test_a_column_that_is_there_twice_in_a_file(tmp_path):
    path = tmp_path / "types.csv"
    path.write_text("type,parent,CD3,CD3\nT,,+,-\n")
    with pytest.raises(ValueError, match="column 'CD3' is there twice"):
        ns.tl.check_signatures(path)


def test_a_type_that_could_never_be_alone():
    nested = {"T": ("", "CD3+"), "Immune": ("", "CD3+ CD45+")}
    with pytest.raises(
        ValueError, match=r"separates 'Immune' \(CD45\+ CD3\+\) from 'T' \(CD3\+\): each cell of the first"
    ):
        ns.tl.check_signatures(signatures(nested))
    # Also where the other one is a sibling of an ancestor; its subtypes are not named beside it.
    deep = {"T": ("", "CD3+"), "B": ("", "CD20+"), "C": ("B", "CD3+"), "D": ("C", "CD45+")}
    with pytest.raises(ValueError, match=r"separates 'C' \(CD20\+ CD3\+\) from 'T'") as caught:
        ns.tl.check_signatures(signatures(deep))
    assert "'D'" not in str(caught.value)
    # Types that may overlap are no contradiction.
    ns.tl.check_signatures(signatures({"T": ("", "CD3+"), "B": ("", "CD20+")}))


@pytest.mark.parametrize(
    "table, problem",
    [
        (pd.DataFrame({"CD3": ["+"]}, index=["T"]), "needs a column 'parent'"),
        (pd.DataFrame({"parent": [""]}, index=["T"]), "0 markers"),
        (pd.DataFrame({"parent": [], "CD3": []}), "0 types"),
    ],
)
def test_what_is_no_signature_table(table, problem):
    with pytest.raises(ValueError, match=problem):
        ns.tl.check_signatures(table)


def test_other_kinds_of_input():
    with pytest.raises(TypeError, match="`signatures` is a dict"):
        ns.tl.check_signatures({"T": "CD3+"})
    with pytest.raises(FileNotFoundError):
        ns.tl.check_signatures("no_such_table.csv")


def test_missing_markers_are_an_error_with_near_names():
    with pytest.raises(KeyError, match=r"for 1 marker\(s\): pass missing='skip'.*are 'FOXP3' \(near: 'FOXP33'\)\."):
        ns.tl.check_signatures(ns.tl.signatures().loc[["Immune cell", "T cell", "CD4 T cell", "Regulatory T cell"]],
                               [*PANEL, "FOXP33"])  # fmt: skip
    # CD45 is not another spelling of CD14.
    table = signatures({"Immune": ("", "CD45+"), "Monocyte": ("Immune", "CD14+")}, ("CD45", "CD14"))
    with pytest.raises(KeyError, match=r"for 1 marker\(s\).*They are 'CD14'\."):
        ns.tl.check_signatures(table, ["CD45"])
    with pytest.raises(ValueError, match="`missing` is 'drop'"):
        ns.tl.check_signatures(None, PANEL, missing="drop")


def test_skipping_leaves_out_types_and_moves_their_subtypes_up():
    rows = {
        "Immune": ("", "CD45+ PanCK-"),
        "T": ("Immune", "CD45+ CD3+ CD20-"),
        "CD8 T": ("T", "CD8+ CD4-"),
        "CD4 T": ("T", "CD4+"),
        "Epithelial": ("", "PanCK+"),
    }
    table = signatures(rows, [*PANEL, "Ki67"])
    with pytest.warns(
        UserWarning, match=r"\['CD45', 'CD3', 'CD4'\]. Left out.*\['Immune', 'T', 'CD4 T'\]. Wider.*\['CD8 T'\]"
    ):
        left = ns.tl.check_signatures(table, ["CD8", "CD20", "PanCK"], missing="skip")
    # What all T cells must not be is still asked of the CD8 T cells, and a marker that nobody asks for is no matter.
    assert left.drop(columns="source").to_dict("index") == {
        "CD8 T": {"parent": "", "CD8": "+", "CD20": "-", "PanCK": "-"},
        "Epithelial": {"parent": "", "CD8": "", "CD20": "", "PanCK": "+"},
    }
    # A parent's marker that rows repeat is not their own: without CD45, there are still T cells.
    with pytest.warns(UserWarning, match=r"need them: \['Immune'\]. Wider, as .*: \['T'\].$"):
        left = ns.tl.check_signatures(table, PANEL[1:], missing="skip")
    assert left["parent"].to_dict() == {"T": "", "CD8 T": "T", "CD4 T": "T", "Epithelial": ""}


def test_skipping_may_leave_nothing():
    with pytest.raises(ValueError, match="tell no type apart"):
        ns.tl.check_signatures(signatures({"T": ("", "CD3+")}), ["CD20"], missing="skip")


@pytest.mark.filterwarnings("ignore:There are no scores")
def test_skipping_may_not_blur_types():
    table = signatures({"A": ("", "CD3+ CD20+"), "B": ("", "CD3+ CD20-"), "C": ("", "CD3+ CD45-")})
    with pytest.raises(
        ValueError, match=r"Without the marker\(s\) \['CD45', 'CD20'\].*'B' from 'C': both are CD3\+\.$"
    ):
        ns.tl.check_signatures(table.loc[["B", "C"]], ["CD3"], missing="skip")
