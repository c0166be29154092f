"""Silver labels from types and gates: every code in use, and every mistake named."""

import anndata
import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns

NAN, INF = np.nan, np.inf
EXPECTED = [[1, 0, 0.5], [0, 1, 0.5], [0, 0, 0.5]] * 2
EXPECTED[5] = [NAN] * 3

# All cells are undetermined for one marker, of which a test of its own speaks.
pytestmark = pytest.mark.filterwarnings("ignore:Marker")


CODES = [("positive", "Negative ", "undetermined"), ("+", "-", "?"), ("1", "0.0", "0.5"), (True, False, "any")]


@pytest.mark.parametrize("code", [(1, 0, 0.5), (1, 0, 2), *CODES])
@pytest.mark.parametrize("as_file", [False, True])
def test_every_code_says_the_same(adata, matrix, code, as_file, tmp_path):
    coded = matrix.astype(object).map(lambda value: code[[1, 0, 0.5].index(value)])
    if as_file:
        coded.to_csv(tmp_path / "matrix.csv")
        coded = str(tmp_path / "matrix.csv")
    ns.labels.silver(adata, coded)
    np.testing.assert_array_equal(adata.layers["silver"], EXPECTED)
    assert adata.layers["silver"].dtype == np.float32


def test_channels_that_are_not_judged_and_warnings_of_what_says_nothing(adata, matrix):
    ns.labels.silver(adata, matrix[["CD20", "CD3"]], exclude="CD20", key_added="mine")
    np.testing.assert_array_equal(adata.layers["mine"][:, 0], [1, 0, 0, 1, 0, NAN])
    assert np.isnan(adata.layers["mine"][:, 1:]).all()
    matrix.loc["NK"] = 1.0
    with pytest.warns(UserWarning) as said:
        ns.labels.silver(adata, matrix)
    assert len(said) == 2 and "'NK'" in str(said[0].message) and "'Ki 67/x'" in str(said[1].message)


def put(row, column, value):
    def change(matrix):
        changed = matrix.astype(object)
        changed.loc[row, column] = value
        return changed

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (put("T", "CD3", 3), "'T' has '3' for 'CD3'.*0, 1 and 0.5"),
        (put("T", "CD3", None), "'T' has nothing for 'CD3'"),
        (put("T", "CD3", "high"), "'T' has 'high'"),
        # A 2 means the other code, in which there is no 0.5.
        (put("T", "CD3", 2), "'B' has '0.5' for 'Ki 67/x'.*0, 1 and 2, as there is a 2"),
        (put("other", ["CD3", "CD20"], 0.5), "'other': undetermined for every marker"),
        (lambda m: pd.concat([m, m.loc[["T"]]]), "cell type 'T' is there twice"),
        (lambda m: m[["CD3", "CD3", "CD20"]], "marker 'CD3' is there twice"),
        (lambda m: m.rename({"T": ""}), "a cell type has no name"),
        (lambda m: m.iloc[:0], "3 markers"),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_matrix_that_cannot_be_read_without_a_doubt(adata, matrix, change, message, as_file, tmp_path):
    bad = change(matrix)
    if as_file:
        bad.to_csv(tmp_path / "matrix.csv")
        bad = tmp_path / "matrix.csv"
    with pytest.raises(ValueError, match=message):
        ns.labels.silver(adata, bad)
    assert not adata.layers and "silver" not in adata.uns


@pytest.mark.parametrize(
    "change, options, error, message",
    [
        (lambda m: m.rename({"T": "Tc"}), {}, KeyError, r"No row 'T' .*missing.*Did you mean 'Tc'"),
        (lambda m: m.rename(columns={"CD20": "CD21"}), {}, KeyError, r"'CD21'.*markers of the matrix.*mean 'CD20'"),
        (lambda m: m.drop(columns="Ki 67/x").T, {}, KeyError, "rows are markers: transpose"),
        (lambda m: m, {"exclude": ["CD4"]}, KeyError, r"'CD4'.*exclude"),
        (lambda m: m, {"cell_type_key": "type"}, KeyError, "no column 'type'"),
        (lambda m: {"T": 1}, {}, TypeError, "DataFrame or the path"),
        (lambda m: m, {"key_added": "mine"}, ValueError, "'mine'.*not made here"),
        (lambda m: m, {"key_added": "a/b"}, ValueError, "cannot be written"),
    ],
)
def test_unknown_names_and_names_in_use(adata, matrix, change, options, error, message):
    adata.layers["mine"] = np.ones(adata.shape)
    with pytest.raises(error, match=message):
        ns.labels.silver(adata, change(matrix), **options)
    assert list(adata.layers) == ["mine"] and "silver" not in adata.uns


def test_its_own_layer_is_overwritten_and_survives_the_disk(adata, matrix, tmp_path):
    ns.labels.silver(adata, matrix, exclude=["CD20"])
    adata.write_h5ad(tmp_path / "table.h5ad")
    ns.labels.silver(adata, 1 - matrix)
    assert adata.layers["silver"][0, 0] == 0


def test_gates_part_cells_and_say_where_they_do_not(adata, tmp_path):
    adata.layers["integrated_expression"] = np.array([[1, 5, 0], [2, 5, 0], [NAN, 5, 0]] * 2)
    with pytest.warns(UserWarning, match=r"cells of 'CD3' \(all below 90\), 'CD20' \(all at or above 3\)\. Is") as said:
        ns.labels.silver_from_gates(adata, {"CD3": (2, 90), "CD20": 3})
    assert len(said) == 1
    np.testing.assert_array_equal(adata.layers["silver"][:3], [[0, 1, NAN], [0.5, 1, NAN], [NAN, 1, NAN]])
    np.testing.assert_array_equal(adata.uns["silver"]["params"]["gates"], [[2, 90], [3, 3]])
    (tmp_path / "gates.csv").write_text("gate,marker\n2,CD3\n")
    ns.labels.silver_from_gates(adata, tmp_path / "gates.csv", key_added="again")
    np.testing.assert_array_equal(adata.layers["again"][:3, 0], [0, 1, NAN])


@pytest.mark.parametrize("how", [dict, pd.Series, "file"])
def test_cells_between_gates_are_undetermined_and_infinite_gates_leave_out_a_state(adata, how, tmp_path, no_warning):
    # 0.7 is another number in float32: it is compared in the layer's precision.
    values = np.array([0.1, 0.7, 0.8, 0.9, 5, NAN], np.float32)
    adata.layers["integrated_expression"] = np.stack([values] * 3, axis=1)
    gates = {"CD3": (0.7, 0.9), "CD20": (-INF, 0.8), "Ki 67/x": [0.8, INF]}
    (tmp_path / "gates.csv").write_text("marker,lower,upper\nCD3,0.7,0.9\nCD20,-inf,0.8\nKi 67/x,0.8,inf\n")
    ns.labels.silver_from_gates(adata, tmp_path / "gates.csv" if how == "file" else how(gates))
    expected = [[0, 0.5, 0.5, 1, 1, NAN], [0.5, 0.5, 1, 1, 1, NAN], [0, 0, 0.5, 0.5, 0.5, NAN]]
    np.testing.assert_array_equal(adata.layers["silver"].T, expected)
    assert adata.layers["silver"].dtype == np.float32
    adata.write_h5ad(tmp_path / "table.h5ad")
    params = anndata.read_h5ad(tmp_path / "table.h5ad").uns["silver"]["params"]
    assert list(params["markers"]) == list(gates)
    np.testing.assert_array_equal(params["gates"], list(gates.values()))


@pytest.mark.parametrize(
    "gates, error, message",
    [
        ("marker,lower\nCD3,1", ValueError, "has 'marker', 'lower'; it must have 'marker', 'gate' or"),
        ("marker,lower,upper\nCD20,1,2\nCD3,1,", ValueError, r"gate of 'CD3' is no number .* is \(1, nan\)"),
        ({"CD4": 1}, KeyError, "'CD4'"),
        *(({"CD3": gate}, ValueError, "'CD3' is no number") for gate in ("x", NAN, INF, (NAN, 1), (1, 2, 3), (1,))),
        ({"CD20": 1, "CD3": (3, 1)}, ValueError, r"gate of 'CD3' is .*lower <= upper.* is \(3, 1\)"),
        ({}, ValueError, "no marker"),
        ([("CD3", 900)], TypeError, "`gates` is a list; it must be a mapping"),
        (pd.Series([1, 2], ["CD3", "CD3"]), ValueError, "'CD3' more than once"),
    ],
)
def test_bad_gates(adata, gates, error, message, tmp_path):
    adata.layers["integrated_expression"] = np.ones(adata.shape)
    if isinstance(gates, str):
        (tmp_path / "gates.csv").write_text(gates)
        gates = tmp_path / "gates.csv"
    with pytest.raises(error, match=message):
        ns.labels.silver_from_gates(adata, gates)
    assert "silver" not in adata.layers
