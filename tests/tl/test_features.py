import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Labels2DModel, TableModel
from spatialdata.transformations import Identity

import nimbus_sd as ns
from nimbus_sd.spatial import Region

LAYERS = ["median_expression", "eroded_expression", "positive_pixels"]
KEYS = {"region_key": "region", "instance_key": "instance_id"}


@pytest.fixture
def sdata(make_sdata, tissue) -> SpatialData:
    """Two fields of view with a table whose rows are in disorder, and lack some cells."""
    images, labels, tables = {}, {}, []
    for seed, name in enumerate(("a", "b")):
        images[name], labels[f"{name}_cells"] = tissue((90, 70), 3, seed=seed)
        ids = np.setdiff1d(labels[f"{name}_cells"], 0)
        tables.append(pd.DataFrame({"region": f"{name}_cells", "instance_id": ids}))
    obs = pd.concat(tables).sample(frac=0.9, random_state=1).reset_index(drop=True).astype({"region": "category"})
    obs.index = [f"c{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=["CD20", "other", "DAPI", "CD3"])
    x = np.random.default_rng(0).random((len(obs), 4))
    table = AnnData(x, obs=obs, var=var, layers={"gold": np.ones(x.shape)})
    sdata = make_sdata(images, labels, ("DAPI", "CD3", "CD20"))
    sdata.tables["table"] = TableModel.parse(table, region=list(labels), **KEYS)
    return sdata


def run(sdata, **options):
    return ns.tl.cell_features(sdata, pixel_size=0.5, progress=False, **options)


def test_rows_columns_and_places(sdata):
    before = sdata.tables["table"].copy()
    table = run(sdata)
    assert table is sdata.tables["table"]
    for key in LAYERS:
        assert table.layers[key].dtype == np.float32 and table.layers[key].shape == table.shape
        assert np.isnan(table.layers[key][:, 1]).all()
    threshold, boundary = table.var["pixel_threshold"], table.obsp["boundary"]
    assert np.isnan(threshold["other"]) and threshold.drop("other").notna().all()
    assert boundary.format == "csr" and boundary.dtype == np.float32 and boundary.nnz
    for region, name in (("a_cells", "DAPI"), ("b_cells", "CD3")):
        channel, labels = np.asarray(sdata.images[region[0]].sel(c=name)), np.asarray(sdata.labels[region])
        mine = (table.obs["region"] == region).to_numpy()
        cells, ids = table[mine, name], table.obs["instance_id"][mine]
        pixels = [channel[labels == cell] for cell in ids]
        np.testing.assert_array_equal(cells.layers["median_expression"][:, 0], [np.median(part) for part in pixels])
        shares = [(part > threshold[name]).mean() for part in pixels]
        np.testing.assert_allclose(cells.layers["positive_pixels"][:, 0], shares, rtol=1e-6)
        edges = [(labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])]
        ends = np.concatenate([np.stack([x.ravel(), y.ravel()]) for a, b in edges for x, y in ((a, b), (b, a))], axis=1)
        contacts = pd.crosstab(*ends[:, ends[0] != ends[1]]).loc[ids]
        np.testing.assert_array_equal(cells.obs["perimeter"], contacts.sum(axis=1))
        shared = contacts.reindex(columns=ids, fill_value=0)
        np.testing.assert_array_equal(boundary[mine][:, mine].toarray(), shared)
        assert boundary[mine].sum() == shared.to_numpy().sum()
    # What was there stays.
    pd.testing.assert_frame_equal(table.obs.drop(columns="perimeter"), before.obs)
    np.testing.assert_array_equal(table.X, before.X)
    np.testing.assert_array_equal(table.layers["gold"], before.layers["gold"])


@pytest.mark.filterwarnings("ignore:.*zarr")
def test_joins_what_predict_made_and_predict_can_go_on(sdata, small, tmp_path):
    del sdata.tables["table"]
    settings = {"model": small, "pixel_size": 0.5, "tta": False, "progress": False}
    ns.predict(sdata, channels=["CD3"], **settings)
    # The pixel size is known from there.
    table = ns.tl.cell_features(sdata, progress=False)
    assert table.shape[1] == 1 and np.isfinite(table.layers["median_expression"]).all()
    assert table.uns["cell_features"]["pixel_size"] == {"a_cells": 0.5, "b_cells": 0.5}
    assert (table.layers["nimbus"] >= 0).all()
    grown = ns.predict(sdata, channels=["CD20"], **settings)
    np.testing.assert_array_equal(grown.layers["median_expression"][:, 0], table.layers["median_expression"][:, 0])
    assert np.isnan(grown.layers["median_expression"][:, 1]).all()
    # A second call replaces the first, and the disk keeps all of it.
    again = ns.tl.cell_features(sdata, progress=False)
    assert np.isfinite(again.layers["median_expression"]).all()
    sdata.write(tmp_path / "s.zarr")
    back = read_zarr(tmp_path / "s.zarr")
    read = ns.tl.cell_features(back, progress=False)
    for key in LAYERS:
        np.testing.assert_array_equal(read.layers[key], again.layers[key])
    assert (read.obsp["boundary"] != again.obsp["boundary"]).nnz == 0
    (tmp_path / "s.zarr").rename(tmp_path / "moved.zarr")
    with pytest.raises(FileNotFoundError, match="was away while it was read"):
        ns.tl.cell_features(back, progress=False)


def test_some_regions(sdata):
    table = run(sdata, labels_key="b_cells")
    measured = table.obs["perimeter"].notna().to_numpy()
    np.testing.assert_array_equal(measured, table.obs["region"] == "b_cells")
    np.testing.assert_array_equal(np.isfinite(table.layers["positive_pixels"][:, 0]), measured)
    # Thresholds rest on this region alone, and a later call replaces everything.
    alone = table.var["pixel_threshold"].copy()
    table = run(sdata)
    assert table.obs["perimeter"].notna().all()
    assert not alone.equals(table.var["pixel_threshold"])


def test_large_ids_single_pixels_cells_without_pixels_and_a_region_without_cells(make_sdata):
    labels = np.zeros((64, 64), np.uint32)
    labels[4:20, 4:20], labels[20:30, 4:20], labels[63, 63], labels[40, 40:42] = 3_000_000_000, 7, 4_000_000_001, 9
    image = np.random.default_rng(0).integers(1, 200, (2, 64, 64)).astype(np.uint16)
    sdata = make_sdata({"i": image, "n": image}, {"i_cells": labels, "n_cells": labels * 0}, ("A", "B"))
    ids = [9, 3_000_000_000, 5, 4_000_000_001, 7]
    obs = pd.DataFrame({"region": pd.Categorical(["i_cells"] * 5), "instance_id": ids}, index=list("vwxyz"))
    table = AnnData(np.zeros((5, 2)), obs=obs, var=pd.DataFrame(index=["A", "B"]))
    sdata.tables["table"] = TableModel.parse(table, region="i_cells", **KEYS)
    table = run(sdata, image_key=["i", "n"], labels_key=["i_cells", "n_cells"])
    present = [np.median(image[0][labels == i]) if i != 5 else np.nan for i in ids]
    np.testing.assert_array_equal(table.layers["median_expression"][:, 0], present)
    # Cell 5 is in no mask; a single pixel has no interior; 2 of its 4 edges are the image's border.
    np.testing.assert_array_equal(table.obs["perimeter"], [6, 64, np.nan, 2, 52])
    assert np.isfinite(table.layers["eroded_expression"][:, 0]).tolist() == [False, True, False, False, True]
    assert table.obsp["boundary"][1, 4] == table.obsp["boundary"][4, 1] == 16 and table.obsp["boundary"].nnz == 2


def test_the_table_stays_as_it_was_if_reading_fails(sdata, monkeypatch):
    table = sdata.tables["table"]
    before = table.copy()
    read = Region.read_image

    def fails(self, *window):
        if self.labels_key == "b_cells":
            raise OSError("disk gone")
        return read(self, *window)

    monkeypatch.setattr(Region, "read_image", fails)
    with pytest.raises(OSError, match="disk gone"):
        run(sdata)
    assert sorted(k for k in table.layers if k) == ["gold"] and not table.obsp and set(table.uns) == set(before.uns)
    assert list(table.obs) == list(before.obs) and list(table.var) == list(before.var)


def test_what_cannot_be_joined(sdata):
    table = sdata.tables["table"]
    with pytest.raises(KeyError, match=r"no table 'cells'.*'table'.*predict"):
        run(sdata, table_key="cells")
    table.obs["Perimeter"] = 1.0
    with pytest.raises(ValueError, match="of another origin"):
        run(sdata)
    del table.obs["Perimeter"]
    table.var_names = ["CD20", "other", "x", "CD3"]
    with pytest.raises(KeyError, match=r"No column 'DAPI' in table 'table'"):
        run(sdata, channels=["DAPI", "CD3"])
    # Labels and channels that the table does not name are not looked at.
    labels, place = np.asarray(sdata.labels["a_cells"].data), {"a": Identity()}
    sdata.labels["c_cells"] = Labels2DModel.parse(labels, transformations=place)
    assert np.isfinite(run(sdata).layers["median_expression"]).all(axis=0).tolist() == [True, False, False, True]
    table.var_names = list("wxyz")
    with pytest.raises(ValueError, match="something else"):
        run(sdata)
