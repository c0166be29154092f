"""What says where cells are: labels on all or a part of the image, shapes, and cells that are grown."""

import warnings

import geopandas as gpd
import numpy as np
import pytest
import shapely
from skimage.segmentation import expand_labels
from spatialdata import read_zarr
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Identity, Scale, Sequence, Translation

import nimbus_sd as ns
from nimbus_sd._table import noted_by_region
from nimbus_sd.engine import check_reach
from nimbus_sd.spatial import find_regions, read_polygons

YX = ("y", "x")


@pytest.fixture
def score(small):
    def predict(sdata, *keys, **settings):
        factors = {"DAPI": 120.0, "CD3": 100.0}
        defaults = {"normalization": factors, "tta": False, "progress": False, "pixel_size": 0.5}
        return ns.predict(sdata, *keys, model=small, **defaults | settings)

    return predict


@pytest.fixture
def arrays(tissue):
    return tissue((120, 140), 2, seed=1)


@pytest.fixture
def whole(arrays, make_sdata, score):
    return score(make_sdata(*arrays))


def placed(labels, y, x, scale=1.0):
    """Labels whose corner lies at a pixel of the image."""
    transformation = Sequence([Scale([scale, scale], YX), Translation([y, x], YX)])
    return Labels2DModel.parse(labels, dims=YX, transformations={"fov": transformation})


def test_cores_of_a_slide_are_scored_where_they_lie(arrays, make_sdata, score, whole):
    image, labels = arrays
    sdata = make_sdata(image, labels)
    del sdata.labels["fov_cells"]
    parts = {"core_a": np.s_[:60, :], "core_b": np.s_[60:, 20:]}
    for key, part in parts.items():
        sdata.labels[key] = placed(labels[part], part[0].start or 0, part[1].start or 0)
    adata = score(sdata)
    for key, part in parts.items():
        # Scores of cells near the cut depend on their neighbours beyond it.
        inner = [i for i in np.unique(labels[part])[1:] if (labels[part] == i).sum() == (labels == i).sum()]
        rows = adata.obs["region"].eq(key) & adata.obs["instance_id"].isin(inner)
        same = whole[[f"fov_cells_{cell}" for cell in adata.obs.loc[rows, "instance_id"]]]
        np.testing.assert_allclose(adata.layers["integrated_expression"][rows], same.layers["integrated_expression"])
        np.testing.assert_array_equal(adata.obsm["spatial"][rows], same.obsm["spatial"])
    region = find_regions(sdata, labels_key="core_b", pixel_size=0.5)[0]
    np.testing.assert_array_equal(
        region.read_labels(slice(50, 70), slice(0, 30)), np.pad(labels[60:70, 20:30], ((10, 0), (20, 0)))
    )


@pytest.mark.parametrize("step", [2, 4])
def test_coarser_labels_at_an_offset(arrays, make_sdata, score, step):
    image, labels = arrays
    coarse = labels[:80:step, :60:step]
    sdata, full = make_sdata(image, labels), np.zeros_like(labels)
    full[10:90, 20:80] = np.kron(coarse, np.ones((step, step), int))[:80, :60]
    sdata.labels["fov_cells"] = placed(coarse, 10, 20, step)
    np.testing.assert_array_equal(score(sdata).layers["nimbus"], score(make_sdata(image, full)).layers["nimbus"])


def test_labels_beyond_the_image_or_beside_it(arrays, make_sdata, score, whole):
    image, labels = arrays
    sdata = make_sdata(image, labels)
    sdata.labels["fov_cells"] = placed(np.pad(labels, 7, constant_values=9999), -7, -7)
    with pytest.warns(UserWarning, match="'fov_cells' cover rows -7 to 127 and columns -7 to 147 .*beyond its edge"):
        adata = score(sdata)
    np.testing.assert_array_equal(adata.layers["nimbus"], whole.layers["nimbus"])
    sdata.labels["fov_cells"] = placed(labels, 0, 140)
    with pytest.raises(ValueError, match="they lie beside it"):
        score(sdata, table_key="other")
    sdata.labels["fov_cells"] = placed(labels[:60, :70], 0, 0)
    with pytest.warns(UserWarning, match="columns 0 to 70 .* 120 x 140 pixels .*; only what is on both is used"):
        score(sdata, table_key="other")


def test_several_labels_of_one_image_are_not_all_used_without_a_word(arrays, make_sdata, score):
    sdata = make_sdata(*arrays)
    sdata.labels["nuclei"] = sdata.labels["fov_cells"]
    with pytest.warns(UserWarning, match="'fov' has several labels, 'fov_cells', 'nuclei', and all are used"):
        score(sdata)


@pytest.fixture
def outlined(arrays, make_sdata):
    """The cells of the labels as polygons with names."""
    sdata = make_sdata(*arrays)
    (region,) = find_regions(sdata, pixel_size=0.5)
    polygons = dict(read_polygons(region, np.unique(arrays[1])[1:]))
    frame = gpd.GeoDataFrame(geometry=list(polygons.values()), index=[f"cell-{i}" for i in polygons])
    sdata.shapes["outlines"] = ShapesModel.parse(frame, transformations={"fov": Identity()})
    del sdata.labels["fov_cells"]
    return sdata


def test_shapes_are_scored_as_the_labels_that_they_outline(outlined, score, whole, tmp_path):
    with pytest.raises(ValueError, match=r"labels \(none\). Cells that are shapes \('outlines'\) .* `shapes_key`"):
        score(outlined)
    adata = score(outlined, shapes_key="outlines")
    np.testing.assert_array_equal(adata.layers["nimbus"], whole.layers["nimbus"])
    assert adata.obs["instance_id"].tolist() == [f"cell-{i}" for i in whole.obs["instance_id"]]
    assert adata.uns["spatialdata_attrs"]["region"] == ["outlines"]
    ns.tl.cell_features(outlined, progress=False)
    outlined.write(tmp_path / "store.zarr")
    stored = read_zarr(tmp_path / "store.zarr")
    shuffled = stored.tables["table"][::-1].copy()
    stored.tables["table"] = shuffled
    joined = score(stored, shapes_key="outlines", key_added="again")
    np.testing.assert_array_equal(joined.layers["again"], whole.layers["nimbus"][::-1])
    assert joined.obs_names.equals(shuffled.obs_names)
    assert ns.pl.disagreement is not None and len(ns.pl.cells(stored, "CD3").get_images()) > 0
    with pytest.raises(ValueError, match="`labels_key` and `shapes_key` both"):
        score(stored, None, "x", shapes_key="outlines")


def test_shapes_without_a_pixel_are_told(outlined, score):
    outlined.shapes["outlines"].loc["cell-x", "geometry"] = shapely.box(3.6, 3.6, 4.4, 4.4)

    with pytest.warns(UserWarning, match="1 shape.* have no row"):
        assert "outlines_cell-x" not in score(outlined, shapes_key="outlines").obs_names


@pytest.mark.parametrize("tile_size", [None, 32])
def test_grown_cells_are_those_of_a_grown_mask(arrays, make_sdata, score, tile_size):
    image, labels = arrays
    sdata = make_sdata(image, labels)
    adata = score(sdata, grow=1.5, tile_size=tile_size)
    grown = score(make_sdata(image, expand_labels(labels, 3)), tile_size=tile_size)
    for layer in ("nimbus", "integrated_expression"):
        np.testing.assert_array_equal(adata.layers[layer], grown.layers[layer])
    assert adata.uns["nimbus"]["grow"] == {"fov_cells": 1.5} and (adata.obs["area"] == grown.obs["area"]).all()
    # What is measured later is measured in the same cells.
    ns.tl.cell_features(sdata, progress=False)
    edges = make_sdata(image, expand_labels(labels, 3))
    score(edges)
    ns.tl.cell_features(edges, progress=False)
    np.testing.assert_array_equal(
        sdata.tables["table"].layers["median_expression"], edges.tables["table"].layers["median_expression"]
    )
    # The last call says how far, whatever was measured before.
    assert noted_by_region(score(sdata), "grow") == {"fov_cells": 0}
    score(sdata, key_added="other", grow=1)
    with pytest.warns(UserWarning, match=r"`grow` of 'fov_cells' as 0.0 and 1.0; that of uns\['other'\] is taken"):
        assert noted_by_region(sdata.tables["table"], "grow") == {"fov_cells": 1}


def test_grow_must_be_a_distance(arrays, make_sdata, score):
    for grow in (-1, np.nan, "2"):
        with pytest.raises(ValueError, match=r"`grow` is .*; it must be a number of um"):
            score(make_sdata(*arrays), grow=grow)


def test_signal_around_the_masks_is_told(arrays, make_sdata, score):
    _, labels = arrays
    nuclei = np.where(expand_labels(labels == 0, 5), 0, labels)
    ring = (expand_labels(nuclei, 3) > 0) & (nuclei == 0)
    image = np.stack([np.where(nuclei > 0, 200, 10), np.where(ring, 200, 10)]).astype(np.uint16)
    with pytest.warns(UserWarning, match=r"outside the masks, .* in channel\(s\) 'CD3' \(\d\d+%\).*consider `grow`"):
        score(make_sdata(image, nuclei))
    for settings in ({"grow": 1.5}, {"channels": ["DAPI"]}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            score(make_sdata(image, nuclei), **settings)
        assert not any("outside the masks" in str(warning.message) for warning in caught)
    both = make_sdata({"a": image[1:], "b": image[1:]}, {"a_cells": nuclei, "b_cells": np.zeros_like(nuclei)})
    with pytest.warns(UserWarning, match="outside the masks") as alone:
        check_reach(find_regions(both, labels_key="a_cells", pixel_size=0.5))
    with pytest.warns(UserWarning, match="outside the masks") as beside_none:
        check_reach(find_regions(both, pixel_size=0.5))
    assert str(alone[0].message) == str(beside_none[0].message)


def test_grown_and_other_cells_do_not_mix_in_silence(arrays, make_sdata, score):
    sdata = make_sdata(*arrays)
    score(sdata, channels=["CD3"], grow=1.5)
    with pytest.warns(UserWarning, match="keeps scores of cells of 'fov_cells' that were grown otherwise"):
        adata = score(sdata, channels=["DAPI"])
    assert adata.uns["nimbus"]["grow"] == {"fov_cells": 0.0}


def test_rows_of_no_cell_are_told(arrays, make_sdata, score):
    sdata = make_sdata(*arrays)
    score(sdata)
    sdata.tables["table"].obs["instance_id"] = [9999, *sdata.tables["table"].obs["instance_id"][1:]]
    with pytest.warns(UserWarning, match=r"\d+ rows of table 'table' are of no cell of the masks.* Check the ids"):
        score(sdata, key_added="again")


def test_a_table_knows_the_image_of_its_cells(arrays, make_sdata, score):
    sdata = make_sdata(*arrays)
    sdata.images["other"] = sdata.images["fov"]
    with pytest.raises(ValueError, match="Which image belongs to labels 'fov_cells' is not clear"):
        score(sdata)
    score(sdata, "fov", "fov_cells")
    ns.tl.cell_features(sdata, progress=False)
    assert len(ns.pl.cells(sdata, "CD3").get_images()) > 0


def test_pictures_show_what_the_labels_cover(arrays, make_sdata, score):
    image, labels = arrays
    sdata = make_sdata(image, labels)
    sdata.labels["fov_cells"] = placed(labels[:60, :50], 40, 80)
    score(sdata)
    for ax in (ns.pl.image(sdata, "CD3"), ns.pl.cells(sdata, "CD3")):
        assert ax.get_images()[0].get_array().shape[:2] == (60, 50)
