"""Rows of tables, and which parts of a table are from us."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from nimbus_sd.spatial import dense, matched, new_table, rows_of
from nimbus_sd.spatial.rows import extended, written_by_us


def test_rows_of_a_labels_element():
    table = new_table({"a": np.array([3, 2**62]), "b": np.array([3])}, ["CD3"])[[2, 1, 0]].copy()
    rows, ids = rows_of(table, "a")
    assert rows.tolist() == [1, 2] and ids.tolist() == [2**62, 3] and ids.dtype == np.int64
    assert rows_of(table, "c")[0].size == 0
    rows, source = matched(table, "a", np.array([1, 3, 5]))
    assert rows.tolist() == [2] and source.tolist() == [1]


@pytest.mark.parametrize("bad", [["1", "x"], [1.5, 2.0], ["1", str(2**63)]])
def test_ids_that_are_not_whole_numbers(bad):
    table = new_table({"a": np.array([1, 2])}, ["CD3"])
    table.obs["instance_id"] = bad
    with pytest.raises(ValueError, match=r"obs\['instance_id'\] of the table must hold the labels of 'a' as whole"):
        rows_of(table, "a")


def test_dense_is_a_writable_float_copy():
    values = np.arange(4).reshape(2, 2)
    for given in (values, sparse.csr_matrix(values), pd.DataFrame(values)):
        copy = dense(given, (2, 2))
        assert copy.dtype == np.float32
        np.testing.assert_array_equal(copy, values)
        copy[0, 0] = np.nan
    assert values[0, 0] == 0
    assert dense(values.astype(np.float64), (2, 2)).dtype == np.float64
    assert np.isnan(dense(None, (3, 2))).all()


def test_extended_keeps_large_ids_and_the_order():
    table = new_table({"a": np.array([2**62 + 1, 5])}, ["CD3"])
    assert extended(table, {"a": np.array([2])}, ["CD3"]) is table
    grown = extended(table, {"a": np.array([1, 5]), "b": np.array([2**62 + 3])}, ["CD8", "CD3"])
    # Region "a" has rows: cell 1, which is not among them, was taken out by the user.
    assert grown.obs["instance_id"].tolist() == [2**62 + 1, 5, 2**62 + 3]
    assert list(grown.obs["region"]) == ["a", "a", "b"] and list(grown.var_names) == ["CD3", "CD8"]
    assert table.shape == (2, 1)


def test_written_by_us_sums_up_all_entries():
    ours = {"nimbus": {"wrote": ["X", "layers/nimbus"]}, "other": {"wrote": np.array(["obs/area", "X"])}}
    table = AnnData(np.zeros((2, 2)), uns=ours | {"leiden": {"params": 1}, "text": "wrote"})
    assert written_by_us(table) == {"X", "layers/nimbus", "obs/area"}
