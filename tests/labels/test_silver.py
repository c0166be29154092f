"""Silver labels from types and gates: every code in use, and every mistake named."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns

NAN = np.nan
EXPECTED = [[1, 0, 0.5], [0, 1, 0.5], [0, 0, 0.5]] * 2
EXPECTED[5] = [NAN] * 3


# All cells are undetermined for one marker, of which a test of its own speaks.
pytestmark = pytest.mark.filterwarnings("ignore:Marker")


@pytest.mark.parametrize(
    "code",
    [
        {},
        {0.5: 2},
        {1: "positive", 0: "Negative ", 0.5: "undetermined"},
        {1: "+", 0: "-", 0.5: "?"},
        {1: "1", 0: "0.0", 0.5: "0.5"},
        {1: True, 0: False, 0.5: "any"},
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_every_code_says_the_same(adata, matrix, code, as_file, tmp_path):
    coded = matrix.astype(object).map(lambda value: code.get(value, value))
    if as_file:
        coded.to_csv(tmp_path / "matrix.csv")
        coded = str(tmp_path / "matrix.csv")
    ns.labels.silver(adata, coded)
    np.testing.assert_array_equal(adata.layers["silver"], EXPECTED)
    assert adata.layers["silver"].dtype == np.float32


def test_channels_without_a_column_and_excluded_ones_are_not_judged(adata, matrix):
    ns.labels.silver(adata, matrix[["CD20", "CD3"]], exclude="CD20", key_added="mine")
    assert np.isnan(adata.layers["mine"][:, 1:]).all()
    np.testing.assert_array_equal(adata.layers["mine"][:, 0], [1, 0, 0, 1, 0, NAN])


def test_it_warns_of_what_says_nothing(adata, matrix):
    matrix.loc["NK"] = 1.0
    with pytest.warns(UserWarning) as said:
        ns.labels.silver(adata, matrix)
    assert len(said) == 2 and "'NK'" in str(said[0].message) and "'Ki 67/x'" in str(said[1].message)


def _put(matrix, row, column, value):
    changed = matrix.astype(object)
    changed.loc[row, column] = value
    return changed


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: _put(m, "T", "CD3", 3), "'T' has '3' for 'CD3'.*0, 1 and 0.5"),
        (lambda m: _put(m, "T", "CD3", -1), "'T' has '-1' for 'CD3'"),
        (lambda m: _put(m, "T", "CD3", None), "'T' has nothing for 'CD3'"),
        (lambda m: _put(m, "T", "CD3", "high"), "'T' has 'high'"),
        # A 2 means the other code, in which there is no 0.5.
        (lambda m: _put(m, "T", "CD3", 2), "'B' has '0.5' for 'Ki 67/x'.*0, 1 and 2, as there is a 2"),
        (lambda m: _put(m, "other", ["CD3", "CD20"], 0.5), "'other': undetermined for every marker"),
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


def test_unknown_names_are_named(adata, matrix):
    with pytest.raises(KeyError, match=r"no row for 'T' .*Did you mean 'Tc'.*missing"):
        ns.labels.silver(adata, matrix.rename({"T": "Tc"}))
    with pytest.raises(KeyError, match=r"'CD21'.*markers of the matrix.*Did you mean 'CD20'"):
        ns.labels.silver(adata, matrix.rename(columns={"CD20": "CD21"}))
    with pytest.raises(KeyError, match="rows are markers: transpose"):
        ns.labels.silver(adata, matrix.drop(columns="Ki 67/x").T)
    with pytest.raises(KeyError, match=r"'CD4'.*exclude"):
        ns.labels.silver(adata, matrix, exclude=["CD4"])
    with pytest.raises(KeyError, match="no column 'type'"):
        ns.labels.silver(adata, matrix, cell_type_key="type")
    with pytest.raises(TypeError, match="DataFrame or the path"):
        ns.labels.silver(adata, {"T": 1})


def test_only_its_own_layer_is_overwritten(adata, matrix):
    ns.labels.silver(adata, matrix)
    ns.labels.silver(adata, 1 - matrix)
    assert adata.layers["silver"][0, 0] == 0
    adata.layers["mine"] = np.ones(adata.shape)
    with pytest.raises(ValueError, match=r"'mine'.*not made here"):
        ns.labels.silver(adata, matrix, key_added="mine")
    with pytest.raises(ValueError, match="cannot be written"):
        ns.labels.silver(adata, matrix, key_added="a/b")


def test_silver_survives_the_disk(adata, matrix, tmp_path):
    ns.labels.silver(adata, matrix, exclude=["CD20"])
    adata.write_zarr(tmp_path / "table.zarr")
    ns.labels.silver_from_gates(adata, {"CD3": 1.0}, layer="silver", key_added="gated")
    adata.write_h5ad(tmp_path / "table.h5ad")


def test_gates_part_cells(adata, tmp_path):
    adata.layers["integrated_expression"] = np.array([[1, 5, 0], [2, 5, 0], [NAN, 5, 0]] * 2)
    with pytest.warns(UserWarning, match=r"'CD20' \(all at or above 3\)"):
        ns.labels.silver_from_gates(adata, {"CD3": 2, "CD20": 3})
    np.testing.assert_array_equal(adata.layers["silver"][:3], [[0, 1, NAN], [1, 1, NAN], [NAN, 1, NAN]])
    pd.DataFrame({"gate": [2], "marker": ["CD3"]}).to_csv(tmp_path / "gates.csv", index=False)
    ns.labels.silver_from_gates(adata, tmp_path / "gates.csv", key_added="again")
    np.testing.assert_array_equal(adata.layers["again"][:, 0], adata.layers["silver"][:, 0])


@pytest.mark.parametrize("how", ["tuple", "list", "Series", "file"])
def test_cells_between_two_gates_are_undetermined(adata, how, tmp_path):
    # 0.7 is another number in float32: it is compared in the layer's precision.
    values = np.array([0.1, 0.7, 0.8, 0.9, 5, NAN], np.float32)
    adata.layers["integrated_expression"] = np.stack([values] * 3, axis=1)
    gates = {"CD3": (0.7, 0.9), "CD20": (0.8, 0.8)}
    if how == "file":
        table = pd.DataFrame.from_dict(gates, orient="index", columns=["lower", "upper"])
        table.rename_axis("marker").to_csv(tmp_path / "gates.csv")
    make = {"tuple": dict, "list": lambda g: {k: list(v) for k, v in g.items()}, "Series": pd.Series}
    ns.labels.silver_from_gates(adata, make[how](gates) if how in make else tmp_path / "gates.csv")
    expected = [[0, 0, NAN], [0.5, 0, NAN], [0.5, 1, NAN], [1, 1, NAN], [1, 1, NAN], [NAN] * 3]
    np.testing.assert_array_equal(adata.layers["silver"], expected)
    assert adata.layers["silver"].dtype == np.float32


@pytest.mark.parametrize("as_file", [False, True])
def test_an_infinite_gate_leaves_out_a_state_and_is_kept_on_disk(adata, as_file, tmp_path):
    adata.layers["integrated_expression"] = np.arange(18.0).reshape(3, 6).T
    gates = {"CD3": (-np.inf, 2), "CD20": (8, np.inf), "Ki 67/x": (-np.inf, np.inf)}
    if as_file:
        lines = [f"{name},{lower},{upper}" for name, (lower, upper) in gates.items()]
        (tmp_path / "gates.csv").write_text("\n".join(["marker,lower,upper", *lines]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ns.labels.silver_from_gates(adata, tmp_path / "gates.csv" if as_file else gates)
    np.testing.assert_array_equal(adata.layers["silver"].T, [[0.5] * 2 + [1] * 4, [0] * 2 + [0.5] * 4, [0.5] * 6])
    adata.write_zarr(tmp_path / "table.zarr")
    read = anndata.read_zarr(tmp_path / "table.zarr")
    np.testing.assert_array_equal(read.layers["silver"], adata.layers["silver"])
    params = read.uns["silver"]["params"]
    assert list(params["markers"]) == list(gates)
    np.testing.assert_array_equal(params["gates"], list(gates.values()))


def test_one_gate_is_kept_as_both(adata):
    adata.layers["integrated_expression"] = np.arange(18.0).reshape(6, 3)
    ns.labels.silver_from_gates(adata, {"CD3": 2, "CD20": (3, 5)})
    np.testing.assert_array_equal(adata.uns["silver"]["params"]["gates"], [[2, 2], [3, 5]])


def test_each_of_two_gates_that_parts_no_cells_is_named(adata):
    adata.layers["integrated_expression"] = np.arange(18.0).reshape(3, 6).T
    with pytest.warns(UserWarning) as said:
        ns.labels.silver_from_gates(adata, {"CD3": (1, 90), "CD20": (2, 9), "Ki 67/x": 0})
    (one,) = said
    named = "'CD3' (all below 90), 'CD20' (all at or above 2), 'Ki 67/x' (all at or above 0)"
    assert f"no cells of {named}." in str(one.message)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "marker,lower\nCD3,1",
            r"columns 'marker' and 'gate', or 'marker', 'lower' and 'upper'; it has 'marker', 'lower'",
        ),
        ("marker,gate,lower,upper\nCD3,1,1,2", "columns 'marker' and 'gate', or"),
        ("name,gate\nCD3,1", "columns 'marker' and 'gate', or"),
        ("marker,lower,upper\nCD20,1,2\nCD3,1,", r"gate of 'CD3' is no number .* is \(1, nan\)"),
        ("marker,lower,upper\nCD3,low,3", "gate of 'CD3' is no number"),
    ],
)
def test_bad_files_of_gates(adata, content, message, tmp_path):
    (tmp_path / "gates.csv").write_text(content)
    adata.layers["integrated_expression"] = np.ones(adata.shape)
    with pytest.raises(ValueError, match=message):
        ns.labels.silver_from_gates(adata, tmp_path / "gates.csv")
    assert "silver" not in adata.layers


@pytest.mark.parametrize(
    "gates, error, message",
    [
        ({"CD4": 1}, KeyError, "'CD4'"),
        ({"CD3": "x"}, ValueError, "'CD3' is no number"),
        ({"CD3": NAN}, ValueError, "'CD3' is no number"),
        ({"CD3": np.inf}, ValueError, "'CD3' is no number"),
        ({"CD20": 1, "CD3": (3, 1)}, ValueError, r"gate of 'CD3' is .*lower <= upper.* is \(3, 1\)"),
        ({"CD3": (NAN, 1)}, ValueError, "'CD3' is no number"),
        ({"CD3": (1, NAN), "CD20": (1, "x")}, ValueError, "'CD3', 'CD20' is no number"),
        ({"CD3": (1, 2, 3)}, ValueError, "'CD3' is no number"),
        ({"CD3": (1,)}, ValueError, "'CD3' is no number"),
        ({}, ValueError, "no marker"),
        ([("CD3", 900)], TypeError, "`gates` is a list; it must be a mapping"),
        (pd.Series([1, 2], ["CD3", "CD3"]), ValueError, "'CD3' more than once"),
    ],
)
def test_bad_gates(adata, gates, error, message):
    adata.layers["integrated_expression"] = np.ones(adata.shape)
    with pytest.raises(error, match=message):
        ns.labels.silver_from_gates(adata, gates)
    assert "silver" not in adata.layers
