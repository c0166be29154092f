import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from spatialdata import SpatialData, read_zarr
from spatialdata.models import TableModel, get_table_keys
from spatialdata.transformations import Identity, Scale

from nimbus_sd.spatial import RegionResult, find_regions, write_table

CHANNELS = ["CD3", "CD8"]


@pytest.fixture(autouse=True)
def _no_other_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


@pytest.fixture
def sdata(build, pixels, cells) -> SpatialData:
    """Two fields of view with three channels; image b is half as fine as its labels."""
    return build(
        {"a": (pixels(3), {"a": Identity()}), "b": (pixels(3, 3, 4), {"b": Identity()})},
        {"a_cells": (cells(), {"a": Identity()}), "b_cells": (cells(), {"b": Scale([0.5, 0.5], ("y", "x"))})},
        channels=[*CHANNELS, "CD20"],
    )


def results_of(sdata, channels=CHANNELS, labels=("a_cells", "b_cells"), ids=(3, 5, 9), offset=0.0):
    """Results whose values tell region, cell and channel: e.g. 0.1035 + offset for region 1, id 3, third channel."""
    regions = find_regions(sdata, None, list(labels), channels=channels, pixel_size=0.5)
    return [result_of(region, ids, offset) for region in regions]


def result_of(region, ids, offset=0.0):
    number = np.array([["CD3", "CD8", "CD20"].index(channel) for channel in region.channels])
    ids = np.array(ids, np.int64)
    scores = ("ab".index(region.labels_key[0]) + 1) / 10 + ids[:, None] / 1000 + number / 10000 + offset
    centroid = np.stack([ids + 0.5, ids + 0.25], axis=1)
    return RegionResult(region, ids, scores.astype(np.float32), (scores * 1000).astype(np.float32), ids + 1, centroid)


def write(sdata, results, table_key="table", key_added="nimbus", factor=1.0, factors=None, **provenance):
    channels = results[0].region.channels
    if factors is None:
        regions = {result.region.labels_key: factor + 0.5 for result in results}
        factors = pd.DataFrame({**regions, "factor": factor}, index=channels)
    names = {"table_key": table_key, "key_added": key_added}
    return write_table(sdata, results, **names, factors=factors, provenance={"model": "m1", **provenance})


def on_disk(sdata, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(path)
        return read_zarr(path)


def foreign(labels=("a_cells", "a_cells", "b_cells"), ids=(9, 3, 5), var_names=("CD3", "other", "CD8"), **obs):
    """A table of someone else, its rows in an order of its own."""
    frame = pd.DataFrame({"where": pd.Categorical(labels), "number": list(ids), **obs}, index=["c0", "c1", "c2"])
    table = AnnData(np.arange(9, dtype=np.float64).reshape(3, 3), obs=frame, var=pd.DataFrame(index=list(var_names)))
    return TableModel.parse(table, region=sorted(set(labels)), region_key="where", instance_key="number")


def test_new_table(sdata):
    results = results_of(sdata)
    table = write(sdata, results, pixel_size=0.5)
    assert table is sdata.tables["table"]
    assert list(table.var_names) == CHANNELS
    assert list(table.obs_names) == [f"{r}_cells_{i}" for r in "ab" for i in (3, 5, 9)]
    assert table.obs["region"].dtype == "category" and table.obs["instance_id"].dtype == np.int64
    assert list(table.obs["region"]) == ["a_cells"] * 3 + ["b_cells"] * 3
    assert get_table_keys(table) == (["a_cells", "b_cells"], "region", "instance_id")
    scores, expression = (np.concatenate([getattr(r, part) for r in results]) for part in ("scores", "expression"))
    assert table.layers["nimbus"].dtype == table.X.dtype == np.float32
    np.testing.assert_array_equal(table.layers["nimbus"], scores)
    np.testing.assert_array_equal(table.layers["integrated_expression"], expression)
    np.testing.assert_array_equal(table.X, expression)
    assert not np.shares_memory(table.X, table.layers["integrated_expression"])
    # um^2 of 0.5 um pixels, and of 0.25 um pixels where the labels are twice as fine as the image.
    np.testing.assert_allclose(table.obs["area"], [1, 1.5, 2.5, 0.25, 0.375, 0.625])
    # x, y in pixels of the image.
    np.testing.assert_allclose(table.obsm["spatial"][[0, 3]], [[3.25, 3.5], [1.625, 1.75]])
    factors = pd.DataFrame({"a_cells": 1.5, "b_cells": 1.5, "factor": 1.0}, index=CHANNELS)
    assert table.varm["nimbus_normalization"].equals(factors)
    wrote = ["X", "layers/integrated_expression", "layers/nimbus", "obs/area", "obsm/spatial"]
    assert table.uns["nimbus"] == {"model": "m1", "pixel_size": 0.5, "area_unit": "um^2", "wrote": wrote}


def test_table_survives_disk(tmp_path, sdata):
    odd = {"angles": ("a", np.int64(2)), "tta": np.True_, "path": Path("x"), 1: np.float32(0.5)}
    table = write(sdata, results_of(sdata, ids=[1, 2**62]), nested=odd | {"none": None}, revision=None)
    assert table.uns["nimbus"]["nested"] == {"angles": ["a", 2], "tta": True, "path": "x", "1": 0.5}
    assert type(table.uns["nimbus"]["nested"]["tta"]) is bool and "revision" not in table.uns["nimbus"]
    table.uns["nimbus"]["nested"]["angles"] = ["a", "b"]
    back = on_disk(sdata, tmp_path / "sdata.zarr")
    read = back.tables["table"]
    for key in ("nimbus", "integrated_expression"):
        np.testing.assert_array_equal(read.layers[key], table.layers[key])
        assert read.layers[key].dtype == np.float32
    np.testing.assert_array_equal(read.obsm["spatial"], table.obsm["spatial"])
    pd.testing.assert_frame_equal(read.obs, table.obs)
    pd.testing.assert_frame_equal(read.varm["nimbus_normalization"], table.varm["nimbus_normalization"])
    # It is known as ours: a channel can be added, beside columns of the user.
    read.obs["flag"], read.obs["name"] = True, "x"
    grown = write(back, results_of(back, ["CD20"], ids=[1, 2**62]))
    assert list(grown.var_names) == [*CHANNELS, "CD20"]
    assert grown.obs["instance_id"].tolist() == [1, 2**62] * 2
    np.testing.assert_array_equal(grown.layers["nimbus"][:, :2], table.layers["nimbus"])
    again = on_disk(back, tmp_path / "grown.zarr").tables["table"]
    np.testing.assert_array_equal(again.layers["nimbus"], grown.layers["nimbus"])
    assert again.obs["instance_id"].dtype == np.int64


def test_regions_without_cells(tmp_path, sdata):
    a, b = results_of(sdata)
    empty = result_of(b.region, [])
    table = write(sdata, [a, empty])
    assert get_table_keys(table)[0] == ["a_cells"] and table.n_obs == 3
    assert write(sdata, [result_of(a.region, []), empty], "nothing").shape == (0, 2)
    back = on_disk(sdata, tmp_path / "sdata.zarr")
    assert back.tables["nothing"].shape == (0, 2)
    assert write(back, results_of(back), "nothing").n_obs == 6


def test_scored_channels_and_regions_are_replaced_others_stay(sdata):
    before = write(sdata, results_of(sdata)).copy()
    with pytest.warns(UserWarning, match="1 rows of table 'table' are of no cell of the masks"):
        table = write(sdata, results_of(sdata, ["CD8"], ["b_cells"], ids=[3, 5], offset=0.5), factor=7.0)
    changed = np.zeros((6, 2), bool)
    changed[3:6, 1] = True
    for key in ("nimbus", "integrated_expression"):
        np.testing.assert_array_equal(table.layers[key][~changed], before.layers[key][~changed])
    np.testing.assert_allclose(table.layers["nimbus"][3:5, 1] - before.layers["nimbus"][3:5, 1], 0.5, atol=1e-6)
    # Cell 9 of b is in no mask any more.
    assert np.isnan(table.layers["nimbus"][5, 1])
    np.testing.assert_array_equal(table.X, table.layers["integrated_expression"])
    np.testing.assert_allclose(table.obs["area"], [1, 1.5, 2.5, 0.25, 0.375, np.nan])
    normalization = table.varm["nimbus_normalization"]
    assert list(normalization.columns) == ["a_cells", "b_cells", "factor"]
    assert normalization.to_numpy().tolist() == [[1.5, 1.5, 1.0], [1.5, 7.5, 7.0]]


def test_our_table_grows_by_channels_and_regions_but_not_by_cells_taken_out(sdata):
    first = write(sdata, results_of(sdata, labels=["a_cells"]))
    first.obs["flag"], first.obs["count"], first.obs["cluster"] = True, 4, pd.Categorical(["x", "y", "x"])
    first.layers["gold"], first.obsm["pca"] = np.ones((3, 2), np.int8), np.ones((3, 5))
    first.obsm["frame"] = pd.DataFrame({"q": [1.0, 2, 3]}, index=first.obs_names)
    first.obsp["graph"] = sparse.csr_matrix(np.eye(3))
    first.var["panel"], first.varm["loading"] = ["t", "t"], np.ones((2, 4))
    first.uns["mine"] = {"x": 1}
    before = first.copy()

    with pytest.warns(UserWarning, match="1 cells of the masks have no row"):
        table = write(sdata, results_of(sdata, ["CD20", "CD3"], ids=[3, 4, 5, 9], offset=0.5))
    assert list(table.var_names) == ["CD3", "CD8", "CD20"]
    assert list(table.obs_names) == [*before.obs_names, "b_cells_3", "b_cells_4", "b_cells_5", "b_cells_9"]
    assert get_table_keys(table)[0] == ["a_cells", "b_cells"]
    assert table.obs["instance_id"].tolist() == [3, 5, 9, 3, 4, 5, 9]
    np.testing.assert_array_equal(table.layers["nimbus"][:3, 1], before.layers["nimbus"][:, 1])
    assert np.isnan(table.layers["nimbus"][3:, 1]).all()
    np.testing.assert_allclose(table.layers["nimbus"][3], [0.703, np.nan, 0.7032], atol=1e-6)
    np.testing.assert_array_equal(table.X, table.layers["integrated_expression"])
    assert not np.isnan(table.obs["area"]).any() and not np.isnan(table.obsm["spatial"]).any()
    # What the user put there stays, with nothing for what is new.
    assert table.obs["flag"].tolist()[:3] == [True] * 3
    assert table.obs[["flag", "count", "cluster"]].isna().sum().tolist() == [4, 4, 4]
    assert np.isnan(table.layers["gold"]).sum() == 21 - 6
    assert (table.obsm["pca"][:3] == 1).all() and table.obsm["frame"]["q"].tolist()[:3] == [1, 2, 3]
    assert table.obsp["graph"].shape == (7, 7) and table.obsp["graph"].sum() == 3
    assert table.var["panel"].tolist()[:2] == ["t", "t"] and table.varm["loading"].shape == (3, 4)
    assert table.uns["mine"] == {"x": 1}
    normalization = table.varm["nimbus_normalization"]
    assert normalization["factor"].tolist() == [1, 1, 1] and normalization["b_cells"].isna().tolist() == [0, 1, 0]
    # The table that was there before is not touched.
    assert first.shape == (3, 2)


def test_foreign_table_is_joined_by_region_and_id(sdata):
    sdata.tables["table"] = foreign(extra=["p", "q", "r"])
    before = sdata.tables["table"].copy()
    results = results_of(sdata)
    with pytest.warns(UserWarning, match="3 cells of the masks have no row in table 'table'"):
        table = write(sdata, results)
    pd.testing.assert_frame_equal(table.obs.drop(columns="area"), before.obs)
    np.testing.assert_array_equal(table.X, before.X)
    assert list(table.var_names) == ["CD3", "other", "CD8"]
    assert table.uns["spatialdata_attrs"] == before.uns["spatialdata_attrs"]
    for key, part in (("nimbus", "scores"), ("integrated_expression", "expression")):
        a, b = (getattr(result, part) for result in results)
        np.testing.assert_array_equal(table.layers[key][:, [0, 2]], np.stack([a[2], a[0], b[1]]))
        assert np.isnan(table.layers[key][:, 1]).all()
    np.testing.assert_allclose(table.obs["area"], [2.5, 1, 0.375])
    np.testing.assert_allclose(table.obsm["spatial"][1], [3.25, 3.5])
    assert "X" not in table.uns["nimbus"]["wrote"]
    # What we added there is kept up.
    sdata.tables["table"] = before
    table = write(sdata, results_of(sdata, labels=["a_cells"], ids=[3, 9]))
    assert np.isnan(table.obs["area"]).tolist() == [False, False, True]
    assert np.isnan(table.layers["nimbus"]).sum(axis=1).tolist() == [1, 1, 3]
    table = write(sdata, results_of(sdata, labels=["b_cells"], ids=[5]))
    np.testing.assert_allclose(table.obs["area"], [2.5, 1, 0.375])
    assert not np.isnan(table.obsm["spatial"]).any()


def test_area_and_position_of_others_are_left_alone_and_ids_may_be_text(sdata):
    theirs = foreign(Area=[1.0, 2.0, 3.0])
    theirs.obsm["spatial"] = np.ones((3, 2))
    theirs.obs["number"] = pd.Categorical(["9", "3", "5"])
    sdata.tables["table"] = theirs
    table = write(sdata, results_of(sdata, labels=["a_cells"], ids=[3, 9]))
    np.testing.assert_allclose(table.layers["nimbus"][:2, 0], [0.109, 0.103], atol=1e-6)
    assert list(table.obs.columns) == ["where", "number", "Area"]
    assert (table.obsm["spatial"] == 1).all() and "area_unit" not in table.uns["nimbus"]


def test_layers_of_others_stay_and_may_be_sparse(sdata):
    theirs = foreign()
    theirs.X = sparse.csr_matrix(theirs.X)
    theirs.layers["nimbus"] = sparse.csr_matrix(np.full((3, 3), 0.25))
    sdata.tables["table"] = theirs
    results = results_of(sdata, ["CD3"], ["b_cells"], ids=[5])
    with pytest.raises(ValueError, match=r"layers\['nimbus'\] of another origin"):
        write(sdata, results)
    table = write(sdata, results, key_added="other")
    np.testing.assert_allclose(table.layers["other"][2], [0.205, np.nan, np.nan], atol=1e-6)
    assert (table.layers["nimbus"].toarray() == 0.25).all() and sparse.issparse(table.X)


def test_a_second_key_leaves_the_first_alone(sdata):
    first = write(sdata, results_of(sdata)).copy()
    table = write(sdata, results_of(sdata, offset=0.3), key_added="other", sha256="1")
    np.testing.assert_allclose(table.layers["other"], first.layers["nimbus"] + 0.3, atol=1e-6)
    np.testing.assert_array_equal(table.layers["nimbus"], first.layers["nimbus"])
    assert table.uns["nimbus"] == first.uns["nimbus"]


def test_mixing_models_in_a_layer_is_told(sdata):
    write(sdata, results_of(sdata), views=8, quantile=0.999, sha256="1")
    with pytest.warns(UserWarning, match=r"made otherwise .model 'm1', views 8, quantile 0.999.*not scored now"):
        write(sdata, results_of(sdata, ["CD8"]), model="m2", views=1, sha256="1", quantile=None)
    # All are replaced: nothing to tell.
    write(sdata, results_of(sdata), model="m3")


def test_changed_x_is_not_ours_any_more(sdata):
    table = write(sdata, results_of(sdata))
    table.X = np.log1p(table.X)
    logged = table.X.copy()
    with pytest.raises(ValueError, match="no columns 'CD20', and they cannot be added any more, since X was changed"):
        write(sdata, results_of(sdata, ["CD3", "CD20"]))
    with pytest.warns(UserWarning, match="2 cells of the masks have no row"):
        after = write(sdata, results_of(sdata, ids=[2, 3, 5, 9], offset=0.1))
    np.testing.assert_array_equal(after.X, logged)
    np.testing.assert_allclose(after.layers["nimbus"][0, 0], 0.203, atol=1e-6)
    np.testing.assert_allclose(after.layers["integrated_expression"][0, 0], 203, atol=1e-3)


def test_an_error_leaves_everything_as_it_was(sdata):
    write(sdata, results_of(sdata))
    before = sdata.tables["table"]
    copy = before.copy()
    bad = pd.DataFrame({"factor": ["not", "numbers"]}, index=CHANNELS)
    with pytest.raises(ValueError, match="could not convert"):
        write(sdata, results_of(sdata, offset=0.5), factors=bad)
    assert sdata.tables["table"] is before and before.shape == (6, 2)
    np.testing.assert_array_equal(before.layers["nimbus"], copy.layers["nimbus"])
    assert before.uns["nimbus"] == copy.uns["nimbus"]
