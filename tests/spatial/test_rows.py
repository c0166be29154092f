"""Rows of tables, which parts are from us, and what is wrong with names and tables, found before the work."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from spatialdata.models import TableModel

from nimbus_sd.spatial import check_cells, check_keys, dense, find_regions, matched, new_table, rows_of
from nimbus_sd.spatial.rows import is_extendable, stored_ids


def labels(key, instances=None):
    """What `rows_of` asks a region for."""
    return SimpleNamespace(labels_key=key, instances=instances)


def test_rows_of_labels():
    table = new_table({"a": np.array([3, 2**62]), "b": np.array([3])}, ["CD3"])[[2, 1, 0]].copy()
    rows, ids = rows_of(table, labels("a"))
    assert rows.tolist() == [1, 2] and ids.tolist() == [2**62, 3] and ids.dtype == np.int64
    assert rows_of(table, labels("c"))[0].size == 0
    rows, source = matched(table, labels("a"), np.array([1, 3, 5]))
    assert rows.tolist() == [2] and source.tolist() == [1]


@pytest.mark.parametrize("instances", [pd.Index(["x", "12", "7"]), pd.Index([70, 12, 7])], ids=["text", "numbers"])
def test_rows_of_shapes(instances):
    table = new_table({"a": np.array(["7", "12", "new"])}, ["CD3"])
    rows, numbers = rows_of(table, labels("a", instances))
    assert rows.tolist() == [0, 1, 2] and numbers.tolist() == [3, 2, 0]


@pytest.mark.parametrize("bad", [["1", "x"], [1.5, 2.0], ["1", str(2**63)], [1.0, np.nan]])
def test_ids_that_are_not_whole_numbers(bad):
    table = new_table({"a": np.array([1, 2])}, ["CD3"])
    table.obs["instance_id"] = bad
    with pytest.raises(ValueError, match=r"obs\['instance_id'\] must hold the labels of 'a' as whole"):
        rows_of(table, labels("a"))


WHOLE = {
    "float": lambda ids: ids.astype(float),
    "uint8": lambda ids: ids.astype(np.uint8),
    "nullable": lambda ids: pd.array(ids, "Int64"),
    "nullable float": lambda ids: pd.array(ids.astype(float), "Float64"),
    "text": lambda ids: ids.astype(str).astype(object),
    "text with decimals": lambda ids: ids.astype(float).astype(str).astype(object),
    "text with blanks": lambda ids: np.array([f" {i} " for i in ids], object),
    "categories": lambda ids: pd.Categorical(ids),
    "categories of floats": lambda ids: pd.Categorical(ids.astype(float)),
    "categories of text": lambda ids: pd.Categorical(ids.astype(float).astype(str)),
    "mixed": lambda ids: np.array([str(ids[0]), *ids[1:]], object),
}


@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("instances", [None, pd.Index([7, 3, 5, 9]), pd.Index(["7", "3", "5", "9"])])
def test_whole_numbers_in_any_form(write, instances):
    table = annotated(text_ids=write(np.array([3, 5])))
    expected = [3, 5] if instances is None else [2, 3]
    assert rows_of(table, labels("cells", instances))[1].tolist() == expected
    # What SpatialData takes.
    table.obs["instance_id"] = stored_ids(table)
    TableModel.validate(table)
    assert rows_of(table, labels("cells", instances))[1].tolist() == expected


@pytest.mark.parametrize(
    "bad",
    [[3, np.nan], [3.5, 5], [2.0**53 + 2, 5], [True, False], pd.array([3, None], "Int64"), np.float32([3, 2**25])],
)
def test_numbers_of_which_the_meaning_is_not_certain(bad):
    with pytest.raises(ValueError, match="must hold the labels of its regions as whole numbers, but holds"):
        stored_ids(annotated(text_ids=bad))


def test_a_table_of_other_cells(build, pixels, cells):
    sdata = build({"image": pixels()}, {"cells": cells()})
    regions = find_regions(sdata, pixel_size=1)
    for ids in ((3, 99), (99, 9)):
        sdata.tables["table"] = annotated(ids=ids)
        check_cells(sdata, "table", regions)
    sdata.tables["table"] = annotated(ids=(99, 98))
    with pytest.raises(ValueError, match="rows for 'cells', but of none of its cells: '99', '98'"):
        check_cells(sdata, "table", regions)
    check_cells(sdata, "other", regions)


def test_dense_is_a_writable_float_copy():
    values = np.arange(4.0).reshape(2, 2)
    for given in (values, values.astype(int), sparse.csr_matrix(values), pd.DataFrame(values)):
        copy = dense(given, (2, 2))
        np.testing.assert_array_equal(copy, values)
        copy[0, 0] = np.nan
    assert values[0, 0] == 0 and dense(values.astype(int), (2, 2)).dtype == np.float32
    assert np.isnan(dense(None, (3, 2))).all()


@pytest.fixture
def refused(build, pixels, cells):
    """Check names against a SpatialData with image ``image``, labels ``cells`` and, where given, a table."""

    def check(message, table=None, table_key="table", key_added="nimbus", channels=("CD3", "CD8")):
        sdata = build({"image": pixels()}, {"cells": cells()})
        if table is not None:
            sdata.tables["table"] = table
        regions = find_regions(sdata, pixel_size=1)
        with contextlib.nullcontext() if message is None else pytest.raises(ValueError, match=message):
            check_keys(sdata, table_key, key_added, channels, regions)

    return check


def annotated(regions=("cells", "cells"), ids=(3, 5), var_names=("CD3", "CD8"), text_ids=None, **parts):
    obs = pd.DataFrame({"region": pd.Categorical(regions), "instance_id": list(ids)}, list(map(str, range(len(ids)))))
    table = AnnData(np.zeros((len(ids), len(var_names))), obs=obs, var=pd.DataFrame(index=list(var_names)), **parts)
    table = TableModel.parse(table, region=sorted(set(regions)), region_key="region", instance_key="instance_id")
    if text_ids is not None:
        table.obs["instance_id"] = text_ids
    return table


def test_usual_names_pass(refused):
    refused(None, annotated(var_names=("CD8", "other", "CD3")))
    refused(None, key_added="Nimbus-v2.1_x")
    # Ids of other regions may be anything.
    refused(None, annotated(("cells", "spots"), text_ids=["3", "AAACC-1"]))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "__a", ".", "..", "_index", "a:b", 3, None])
def test_names_that_cannot_be_stored(refused, name):
    for argument in ("key_added", "table_key"):
        refused(f"`{argument}` is .*; it must consist of letters, digits", **{argument: name})


def test_names_that_are_taken(refused):
    for name in ("integrated_expression", "gold", "Silver", "spatialdata_attrs"):
        refused(f"`key_added` is '{name}', which is kept for something else", key_added=name)
    for name in ("image", "cells", "Cells", "Table"):
        message = f"`table_key` is '{name}', but there is an element '{name.lower()}'"
        refused(message, annotated(), table_key=name)


NO_ANNOTATION = AnnData(np.zeros((2, 2)), var=pd.DataFrame(index=["CD3", "CD8"]))
GENES = [f"gene{i}" for i in range(7)]


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (NO_ANNOTATION, r"'table' does not say which cells its rows are.*another `table_key`"),
        (annotated(var_names=GENES), r"its 7 columns \('gene0', .* 'gene4', \.\.\..* are none of 'CD3', 'CD8'"),
        (annotated(var_names=("CD3", "CD20")), r"'table' has no columns 'CD8', and they cannot be added. Pass"),
        (annotated(("nuclei", "nuclei")), r"no rows for 'cells'; it is about 'nuclei'. Pass another `table_key`"),
        (annotated(text_ids=[3, 3]), "several rows for one label of 'cells'"),
        (annotated(var_names=("CD3", "CD3")), "has several columns of the same name"),
        *(
            (annotated(text_ids=ids), "must hold the labels of 'cells' as whole numbers")
            for ids in (["1", "x2"], ["1", str(2**63)])
        ),
    ],
)
def test_tables_that_cannot_be_joined(refused, table, message):
    refused(message, table)


@pytest.mark.parametrize(
    ("where", "key"),
    [("layers", "nimbus"), ("layers", "integrated_expression"), ("uns", "NIMBUS"), ("varm", "nimbus_normalization")],
)
def test_keys_that_are_taken_in_the_table(refused, where, key):
    table = annotated()
    getattr(table, where)[key] = {"params": 1} if where == "uns" else np.zeros((2, 2))
    refused(rf"{where}\['{key}'\] of another origin.*Pass another key", table)


def ours():
    values = np.array([[1, np.nan], [3, 4]])
    uns = {"nimbus": {"wrote": ["X", "layers/nimbus"]}}
    return AnnData(values, layers={"integrated_expression": values.copy()}, uns=uns)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.uns["nimbus"]["wrote"].remove("X"),
        lambda table: table.X.__setitem__((1, 1), 5),
        lambda table: table.layers.pop("integrated_expression"),
        lambda table: setattr(table, "raw", table),
        lambda table: setattr(table, "X", sparse.csr_matrix(np.nan_to_num(table.X))),
    ],
)
def test_only_tables_that_are_as_we_made_them_are_extended(change):
    table = ours()
    assert is_extendable(table)
    change(table)
    assert not is_extendable(table)
