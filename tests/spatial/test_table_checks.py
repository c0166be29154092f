import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata.models import TableModel

from nimbus_sd.spatial import check_keys, find_regions
from nimbus_sd.spatial.checks import same_name as has_key


@pytest.fixture
def checked(build, pixels, cells):
    """Check names against a SpatialData with image ``image``, labels ``cells`` and, where given, a table."""

    def check(table=None, table_key="table", key_added="nimbus", channels=("CD3", "CD8")):
        sdata = build({"image": pixels()}, {"cells": cells()})
        if table is not None:
            sdata.tables["table"] = table
        check_keys(sdata, table_key, key_added, channels, find_regions(sdata, pixel_size=1))

    return check


def annotated(regions=("cells", "cells"), ids=(3, 5), var_names=("CD3", "CD8"), **parts):
    obs = pd.DataFrame(
        {"region": pd.Categorical(regions), "instance_id": list(ids)}, index=[str(i) for i in range(len(ids))]
    )
    table = AnnData(np.zeros((len(ids), len(var_names))), obs=obs, var=pd.DataFrame(index=list(var_names)), **parts)
    return TableModel.parse(table, region=sorted(set(regions)), region_key="region", instance_key="instance_id")


def test_usual_names_pass(checked):
    checked()
    checked(annotated())
    checked(annotated(var_names=("CD8", "other", "CD3")))
    checked(key_added="Nimbus-v2.1_x")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "__a", ".", "..", "_index", "a:b", 3, None])
def test_names_that_cannot_be_stored(checked, name):
    with pytest.raises(ValueError, match=r"`key_added` is .*; it must consist of letters, digits"):
        checked(key_added=name)
    with pytest.raises(ValueError, match=r"`table_key` is .*; it must consist of letters, digits"):
        checked(table_key=name)


@pytest.mark.parametrize("name", ["integrated_expression", "gold", "Silver", "spatialdata_attrs"])
def test_reserved_keys(checked, name):
    with pytest.raises(ValueError, match=f"`key_added` is '{name}', which is kept for something else"):
        checked(key_added=name)


@pytest.mark.parametrize("name", ["image", "cells", "Cells", "Table"])
def test_table_keys_that_are_taken(checked, name):
    with pytest.raises(ValueError, match=f"`table_key` is '{name}', but there is an element '{name.lower()}'"):
        checked(annotated(), table_key=name)


def test_table_without_annotation(checked):
    with pytest.raises(ValueError, match=r"'table' does not say which cells its rows are.*another `table_key`"):
        checked(AnnData(np.zeros((2, 2)), var=pd.DataFrame(index=["CD3", "CD8"])))


def test_table_of_something_else(checked):
    genes = annotated(var_names=[f"gene{i}" for i in range(7)])
    with pytest.raises(
        ValueError, match=r"something else: its 7 columns \('gene0', .* 'gene4', \.\.\.\) are none of the channels"
    ):
        checked(genes)


def test_missing_channels(checked):
    with pytest.raises(
        ValueError, match=r"'table' has no columns 'CD8', and they cannot be added. Pass `channels` without"
    ):
        checked(annotated(var_names=("CD3", "CD20")))


def test_table_of_other_regions(checked):
    with pytest.raises(ValueError, match=r"no rows for 'cells'; it is about 'nuclei'. Pass another `table_key`"):
        checked(annotated(("nuclei", "nuclei")))


def test_rows_that_are_not_unique(checked):
    table = annotated()
    table.obs["instance_id"] = [3, 3]
    with pytest.raises(ValueError, match="several rows for one label of 'cells'"):
        checked(table)
    with pytest.raises(ValueError, match="several columns of the same name"):
        checked(annotated(var_names=("CD3", "CD3")), channels=["CD3"])


def test_ids_that_are_no_numbers(checked):
    table = annotated()
    table.obs["instance_id"] = ["x1", "x2"]
    with pytest.raises(ValueError, match="must hold the labels of 'cells' as whole numbers"):
        checked(table)


def test_ids_of_other_regions_may_be_anything(checked):
    table = annotated(("cells", "spots"))
    table.obs["instance_id"] = ["3", "AAACC-1"]
    checked(table)


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        ("layers", "Nimbus", r"layers\['Nimbus'\], and 'nimbus', which would be added, must differ by more than case"),
        ("layers", "Integrated_Expression", r"layers\['Integrated_Expression'\]"),
        ("uns", "NIMBUS", r"uns\['NIMBUS'\], and 'nimbus'"),
        ("uns", "nimbus", r"another entry uns\['nimbus'\]"),
        ("varm", "Nimbus_normalization", r"varm\['Nimbus_normalization'\]"),
        ("varm", "nimbus_normalization", r"another entry varm\['nimbus_normalization'\]"),
    ],
)
def test_keys_that_are_taken_in_the_table(checked, where, key, message):
    table = annotated()
    getattr(table, where)[key] = {"params": 1} if where == "uns" else np.zeros((2, 2))
    with pytest.raises(ValueError, match=message):
        checked(table)


@pytest.mark.parametrize("layer", ["nimbus", "integrated_expression"])
def test_layer_of_others_under_our_key(checked, layer):
    with pytest.raises(ValueError, match="of another origin, which would be overwritten"):
        checked(annotated(layers={layer: np.zeros((2, 2))}))


def test_has_key_does_not_look_at_case():
    assert has_key({"Area": 1}, "area")
    assert not has_key({"area_px": 1}, "area")
