"""Names from outside: what they must not do to a terminal or a spreadsheet, and that none is lost."""

import io

import numpy as np
import pandas as pd

import nimbus_sd as ns
from nimbus_sd._text import plain, with_formulas, without_formulas

HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1", "''=1", "＝1"]  # noqa: RUF001
HARMLESS = ["CD3", "-1", "+2.5", "HLA-DR", "'quoted'", "", "a=b"]


def test_terminals_get_no_escapes():
    assert plain("CD3 µm 日本\n=") == "CD3 µm 日本\n="
    assert plain("\x1b[2J\x9b1m\x07\r\u202egnp\ud800") == r"\x1b[2J\x9b1m\x07\r\u202egnp\ud800"


def test_spreadsheets_get_no_formulas_and_every_text_comes_back():
    texts = [*HOSTILE, *HARMLESS]
    table = pd.DataFrame({"text": texts, "kind": pd.Categorical(texts), "=n": -np.arange(len(texts))}, index=texts)
    text = without_formulas(table).to_csv()
    read = pd.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False, index_col=0)
    for column in (read.index.to_series(), read["text"], read["kind"]):
        assert column.tolist() == [f"'{text}" for text in HOSTILE] + HARMLESS
        assert with_formulas(column).tolist() == texts
    assert list(read.columns) == ["text", "kind", "'=n"] and read["'=n"].tolist()[1] == "-1"
    assert list(table.columns) == ["text", "kind", "=n"] and table["text"].tolist() == texts


def test_labels_of_hostile_channels_survive_their_file(tmp_path):
    adata = ns.datasets.example().tables["table"]
    adata.var_names = HOSTILE[: adata.n_vars]
    for codes in (None, "silver"):
        ns.labels.to_csv(adata, tmp_path / "gold.csv", codes=codes)
        fields = {field for line in (tmp_path / "gold.csv").read_text().splitlines() for field in line.split(",")}
        assert not [field for field in fields if field.startswith(("=", "+", "@", "-"))]
        ns.labels.from_csv(adata, tmp_path / "gold.csv", key_added="again", codes=codes)
        np.testing.assert_array_equal(adata.layers["again"], adata.layers["gold"])


def test_metaclusters_of_hostile_names_survive_their_file(tmp_path):
    value = ns.tl.Metaclusters.start(["0", "-1"]).rename("0", HOSTILE[1])
    value.save(tmp_path / "mine.csv")
    assert f",{HOSTILE[1]}" not in (tmp_path / "mine.csv").read_text()
    assert ns.tl.Metaclusters.load(tmp_path / "mine.csv").mapping == value.mapping
