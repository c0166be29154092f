import warnings

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
    """Results whose values tell region, cell and channel: e.g. 0.135 + offset for region 1, id 3, third channel."""
    regions = find_regions(sdata, None, list(labels), channels=channels, pixel_size=0.5)
    return [result_of(region, ids, offset) for region in regions]


def result_of(region, ids, offset=0.0):
    number = np.array([["CD3", "CD8", "CD20"].index(channel) for channel in region.channels])
    ids = np.array(ids, np.int64)
    scores = ("ab".index(region.labels_key[0]) + 1) / 10 + ids[:, None] / 1000 + number / 10000 + offset
    return RegionResult(
        region=region,
        ids=ids,
        scores=scores.astype(np.float32),
        expression=(scores * 1000).astype(np.float32),
        area_px=ids + 1,
        centroid=np.stack([ids + 0.5, ids + 0.25], axis=1),
    )


def factors_of(results, factor=1.0):
    regions = {result.region.labels_key: factor + 0.5 for result in results}
    return pd.DataFrame({**regions, "factor": factor}, index=results[0].region.channels)


def write(sdata, results, table_key="table", key_added="nimbus", factor=1.0, **provenance):
    channels = results[0].region.channels
    return write_table(
        sdata,
        results,
        channels=channels,
        table_key=table_key,
        key_added=key_added,
        factors=factors_of(results, factor),
        provenance={"model": "m1", "sha256": "0" * 64, **provenance},
    )


def foreign(labels=("a_cells", "a_cells", "b_cells"), ids=(9, 3, 5), var_names=("CD3", "other", "CD8"), **obs):
    """A table of someone else, its rows in an order of its own."""
    frame = pd.DataFrame(
        {"where": pd.Categorical(labels), "number": list(ids), **obs}, index=[f"c{i}" for i in range(len(ids))]
    )
    table = AnnData(
        np.arange(len(ids) * len(var_names), dtype=np.float64).reshape(len(ids), -1),
        obs=frame,
        var=pd.DataFrame(index=list(var_names)),
    )
    return TableModel.parse(table, region=sorted(set(labels)), region_key="where", instance_key="number")


def test_new_table(sdata):
    results = results_of(sdata)
    table = write(sdata, results, pixel_size=0.5)
    assert table is sdata.tables["table"]
    assert list(table.var_names) == CHANNELS
    assert list(table.obs_names) == [f"{r}_cells_{i}" for r in "ab" for i in (3, 5, 9)]
    assert table.obs["region"].dtype == "category"
    assert list(table.obs["region"]) == ["a_cells"] * 3 + ["b_cells"] * 3
    assert table.obs["instance_id"].dtype == np.int64
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
    assert table.varm["nimbus_normalization"].equals(
        pd.DataFrame({"a_cells": 1.5, "b_cells": 1.5, "factor": 1.0}, index=CHANNELS)
    )
    assert table.uns["nimbus"]["pixel_size"] == 0.5
    assert table.uns["nimbus"]["area_unit"] == "um^2"
    assert (
        sorted(table.uns["nimbus"]["wrote"])
        == table.uns["nimbus"]["wrote"]
        == [
            "X",
            "layers/integrated_expression",
            "layers/nimbus",
            "obs/area",
            "obsm/spatial",
        ]
    )


def test_table_survives_disk(tmp_path, sdata):
    provenance = {"angles": ["a", "b"], "tta": True, "n": 3, "nested": {"x": 1.5, "none": None}, "revision": None}
    table = write(sdata, results_of(sdata, ids=[1, 2**62]), **provenance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "sdata.zarr")
        back = read_zarr(tmp_path / "sdata.zarr")
    read = back.tables["table"]
    for key in ("nimbus", "integrated_expression"):
        np.testing.assert_array_equal(read.layers[key], table.layers[key])
        assert read.layers[key].dtype == np.float32
    np.testing.assert_array_equal(read.X, table.X)
    np.testing.assert_array_equal(read.obsm["spatial"], table.obsm["spatial"])
    pd.testing.assert_frame_equal(read.obs, table.obs)
    pd.testing.assert_frame_equal(read.varm["nimbus_normalization"], table.varm["nimbus_normalization"])
    assert list(read.var_names) == CHANNELS
    uns = read.uns["nimbus"]
    assert {key: uns[key] for key in ("model", "tta", "n", "area_unit")} == {
        "model": "m1",
        "tta": True,
        "n": 3,
        "area_unit": "um^2",
    }
    assert list(uns["angles"]) == ["a", "b"]
    assert uns["nested"] == {"x": 1.5}
    assert "revision" not in uns
    # And is known as ours: a channel can be added.
    grown = write(back, results_of(back, ["CD20"], ids=[1, 2**62]))
    assert list(grown.var_names) == [*CHANNELS, "CD20"]
    assert grown.obs["instance_id"].tolist() == [1, 2**62] * 2
    np.testing.assert_array_equal(grown.layers["nimbus"][:, :2], table.layers["nimbus"])


def test_regions_without_cells(tmp_path, sdata):
    results = results_of(sdata)
    empty = result_of(results[1].region, [])
    table = write(sdata, [results[0], empty])
    assert get_table_keys(table)[0] == ["a_cells"]
    assert table.n_obs == 3
    table = write(sdata, [result_of(results[0].region, []), empty], "nothing")
    assert table.shape == (0, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "sdata.zarr")
        back = read_zarr(tmp_path / "sdata.zarr")
    assert back.tables["nothing"].shape == (0, 2)
    assert write(back, results_of(back), "nothing").n_obs == 6


def test_scored_channels_and_regions_are_replaced_others_stay(sdata):
    before = write(sdata, results_of(sdata)).copy()
    table = write(sdata, results_of(sdata, ["CD8"], ["b_cells"], ids=[3, 5], offset=0.5), factor=7.0)
    changed = np.zeros((6, 2), bool)
    changed[3:5, 1] = True
    # Cell 9 of b is in no mask any more.
    assert np.isnan(table.layers["nimbus"][5, 1])
    changed[5, 1] = True
    for key in ("nimbus", "integrated_expression"):
        np.testing.assert_array_equal(table.layers[key][~changed], before.layers[key][~changed])
    np.testing.assert_allclose(table.layers["nimbus"][3:5, 1] - before.layers["nimbus"][3:5, 1], 0.5, atol=1e-6)
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
    assert not np.isnan(table.obs["area"]).any()
    assert not np.isnan(table.obsm["spatial"]).any()
    # What the user put there stays, with nothing for what is new.
    assert table.obs["flag"].tolist()[:3] == [True] * 3
    assert table.obs["flag"].isna().sum() == table.obs["count"].isna().sum() == table.obs["cluster"].isna().sum() == 4
    assert np.isnan(table.layers["gold"]).sum() == 21 - 6
    assert (table.obsm["pca"][:3] == 1).all()
    assert table.obsm["frame"]["q"].tolist()[:3] == [1, 2, 3]
    assert table.obsp["graph"].shape == (7, 7)
    assert table.obsp["graph"].sum() == 3
    assert table.var["panel"].tolist()[:2] == ["t", "t"]
    assert table.varm["loading"].shape == (3, 4)
    assert table.uns["mine"] == {"x": 1}
    assert sorted(table.varm["nimbus_normalization"].index) == ["CD20", "CD3", "CD8"]
    # The table that was there before is not touched.
    assert first.shape == (3, 2)


def test_grown_table_survives_disk(tmp_path, sdata):
    table = write(sdata, results_of(sdata, labels=["a_cells"]))
    table.obs["flag"], table.obs["name"] = True, "x"
    table = write(sdata, results_of(sdata, ["CD20"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "sdata.zarr")
        read = read_zarr(tmp_path / "sdata.zarr").tables["table"]
    np.testing.assert_array_equal(read.layers["nimbus"], table.layers["nimbus"])
    assert read.obs["instance_id"].dtype == np.int64


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
    a, b = (result.scores for result in results)
    np.testing.assert_array_equal(table.layers["nimbus"][:, [0, 2]], np.stack([a[2], a[0], b[1]]))
    a, b = (result.expression for result in results)
    np.testing.assert_array_equal(table.layers["integrated_expression"][:, [0, 2]], np.stack([a[2], a[0], b[1]]))
    assert np.isnan(table.layers["nimbus"][:, 1]).all()
    np.testing.assert_allclose(table.obs["area"], [2.5, 1, 0.375])
    np.testing.assert_allclose(table.obsm["spatial"][1], [3.25, 3.5])
    assert "X" not in table.uns["nimbus"]["wrote"]


def test_cells_without_score_are_nan(sdata):
    sdata.tables["table"] = foreign(ids=(9, 7, 5))
    table = write(sdata, results_of(sdata, labels=["a_cells"], ids=[9]))
    assert np.isnan(table.layers["nimbus"]).sum(axis=1).tolist() == [1, 3, 3]
    assert np.isnan(table.obs["area"]).tolist() == [False, True, True]


def test_area_and_position_of_others_are_left_alone(sdata):
    theirs = foreign(ids=(9, 3, 5), Area=[1.0, 2.0, 3.0])
    theirs.obsm["spatial"] = np.ones((3, 2))
    sdata.tables["table"] = theirs
    table = write(sdata, results_of(sdata, labels=["a_cells"], ids=[9]))
    assert list(table.obs.columns) == ["where", "number", "Area"]
    assert (table.obsm["spatial"] == 1).all()


def test_area_that_we_added_to_a_foreign_table_is_kept_up(sdata):
    sdata.tables["table"] = foreign()
    write(sdata, results_of(sdata, labels=["a_cells"], ids=[3, 9]))
    table = write(sdata, results_of(sdata, labels=["b_cells"], ids=[5]))
    np.testing.assert_allclose(table.obs["area"], [2.5, 1, 0.375])
    assert not np.isnan(table.obsm["spatial"]).any()


def test_ids_as_text_and_categories_are_joined(sdata):
    theirs = foreign(ids=(9, 3, 5))
    theirs.obs["number"] = pd.Categorical(["9", "3", "5"])
    sdata.tables["table"] = theirs
    table = write(sdata, results_of(sdata, labels=["a_cells"], ids=[3, 9]))
    np.testing.assert_allclose(table.layers["nimbus"][:2, 0], [0.109, 0.103], atol=1e-6)


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
    assert (table.layers["nimbus"].toarray() == 0.25).all()
    assert sparse.issparse(table.X)


def test_a_second_key_leaves_the_first_alone(sdata):
    first = write(sdata, results_of(sdata)).copy()
    table = write(sdata, results_of(sdata, offset=0.3), key_added="other", sha256="1")
    np.testing.assert_array_equal(table.layers["nimbus"], first.layers["nimbus"])
    np.testing.assert_allclose(table.layers["other"], first.layers["nimbus"] + 0.3, atol=1e-6)
    assert table.uns["nimbus"] == first.uns["nimbus"]
    assert table.varm["nimbus_normalization"].equals(first.varm["nimbus_normalization"])


def test_mixing_models_in_a_layer_is_told(sdata):
    write(sdata, results_of(sdata))
    with pytest.warns(
        UserWarning, match="keeps scores made otherwise .model 'm1'.*. for cells or channels not scored now"
    ):
        write(sdata, results_of(sdata, ["CD8"]), model="m2")
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


@pytest.mark.parametrize("ids", [[3, 5], [3, 5, 9]])
def test_an_error_leaves_everything_as_it_was(sdata, ids):
    write(sdata, results_of(sdata))
    before = sdata.tables["table"]
    copy = before.copy()
    results = results_of(sdata, ids=ids, offset=0.5)
    bad = pd.DataFrame({"factor": ["not", "numbers"]}, index=CHANNELS)
    with pytest.raises(ValueError, match="could not convert"):
        write_table(
            sdata, results, channels=CHANNELS, table_key="table", key_added="nimbus", factors=bad, provenance={}
        )
    assert sdata.tables["table"] is before
    np.testing.assert_array_equal(before.layers["nimbus"], copy.layers["nimbus"])
    assert before.uns["nimbus"] == copy.uns["nimbus"]
    assert before.shape == (6, 2)


def test_ids_beyond_int64_are_an_error(sdata):
    (result,) = results_of(sdata, labels=["a_cells"], ids=[3])
    object.__setattr__(result, "ids", np.array([2**63], np.uint64))
    with pytest.raises(ValueError, match=f"'a_cells' hold the id {2**63}, but a table holds ids up to {2**63 - 1}"):
        write(sdata, [result])
    assert "table" not in sdata.tables
