from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from nimbus_sd.spatial.checks import is_extendable
from nimbus_sd.spatial.rows import written_by_us
from nimbus_sd.spatial.table import _merged as merge_factors, _storable as storable, _other_settings


def ours(x=((1.0, np.nan), (3.0, 4.0)), wrote=("X", "layers/nimbus")):
    values = np.array(x)
    return AnnData(values, layers={"integrated_expression": values.copy()}, uns={"nimbus": {"wrote": list(wrote)}})


def test_written_by_us_sums_up_all_entries():
    table = ours()
    table.uns |= {"other": {"wrote": np.array(["obs/area", "X"])}, "leiden": {"params": 1}, "text": "wrote"}
    assert written_by_us(table) == {"X", "layers/nimbus", "obs/area"}


def test_tables_that_may_be_extended():
    assert is_extendable(ours())
    assert not is_extendable(ours(wrote=["layers/nimbus"]))
    changed = ours()
    changed.X[1, 1] = 5
    assert not is_extendable(changed)
    without = ours()
    del without.layers["integrated_expression"]
    assert not is_extendable(without)
    frozen = ours()
    frozen.raw = frozen
    assert not is_extendable(frozen)
    sparsified = ours()
    sparsified.X = sparse.csr_matrix(np.nan_to_num(sparsified.X))
    assert not is_extendable(sparsified)


@pytest.mark.parametrize(
    ("before", "now", "other"),
    [
        (None, {"model": "a"}, ""),
        ({"model": "a", "sha256": "1"}, {"model": "a", "sha256": "1"}, ""),
        ({"model": "a", "sha256": "1"}, {"model": "a", "sha256": "2"}, "sha256 '1'"),
        ({"model": "a", "views": 8}, {"model": "b", "views": 1}, "model 'a', views 8"),
        ({"quantile": 0.999}, {"quantile": None}, "quantile 0.999"),
    ],
)
def test_made_otherwise(before, now, other):
    table = AnnData(np.zeros((1, 1)), uns={} if before is None else {"nimbus": before})
    assert _other_settings(table.uns.get("nimbus", {}), now) == other


def test_storable():
    value = {
        1: np.float32(0.5),
        "none": None,
        "path": Path("x"),
        "list": (1, np.int64(2)),
        "bool": np.True_,
        "d": {"n": None},
    }
    assert storable(value) == {"1": 0.5, "path": "x", "list": [1, 2], "bool": True, "d": {}}
    assert type(storable(value)["bool"]) is bool


def test_factors_of_several_runs():
    names = pd.Index(["CD3", "CD8", "CD20"])
    first = merge_factors(None, pd.DataFrame({"a": [1, 2], "factor": [3, 4]}, index=["CD8", "CD3"]), names)
    assert list(first.index) == list(names)
    np.testing.assert_array_equal(first, [[2, 4], [1, 3], [np.nan, np.nan]])
    second = merge_factors(first, pd.DataFrame({"b": [5.0], "factor": [6.0]}, index=["CD20"]), names)
    assert list(second.columns) == ["a", "b", "factor"]
    np.testing.assert_array_equal(second, [[2, np.nan, 4], [1, np.nan, 3], [np.nan, 5, 6]])
