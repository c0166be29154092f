"""Out to QuPath and back: every state, every id, and outlines on the pixel."""

import gzip
import json
import uuid
from zipfile import ZIP_DEFLATED, ZipFile

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from anndata import AnnData
from skimage.segmentation import expand_labels
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale

import nimbus_sd as ns
from nimbus_sd.spatial import find_regions, read_polygons

NAN = np.nan
STATES = ["positive", "likely positive", "undetermined", "likely negative", "negative", None]
VALUES = [1, 0.75, 0.5, 0.25, 0, NAN]
CHANNELS = ("CD3", "HLA-DR / x", "HLA-DR _ x")
IDS = [3, 7, 2**40, 11, 12, 13]


@pytest.fixture
def drawn():
    """Six cells, among them one in two parts, one with a hole, and a single pixel; ids beyond 2**31."""
    labels = np.zeros((30, 40), np.int64)
    labels[0:5, 0:5] = 3
    labels[1:3, 1:3] = 0
    labels[10:12, 4:9], labels[12:14, 9:12] = 7, 7
    labels[29, 39] = 2**40
    labels[5:9, 20:30], labels[9:12, 20:30], labels[20:25, 0:8] = 11, 12, 13
    return labels


@pytest.fixture
def sdata(make_sdata, drawn, table_of):
    image = np.zeros((3, 30, 40), np.uint8)
    sdata = make_sdata({"a": image, "b": image}, {"a_cells": drawn, "b_cells": drawn.T[::-1].T}, CHANNELS)
    silver = np.tile(np.array(VALUES, np.float32)[:, None], (2, 3))
    silver[:, 1] = np.roll(silver[:, 1], 1)
    sdata.tables["table"] = table_of({"a_cells": IDS, "b_cells": IDS}, CHANNELS, silver=silver)
    return sdata


def features(path):
    return json.loads(path.read_text())["features"]


def test_all_states_and_ids_come_back_from_folders_and_files(sdata, tmp_path, no_warning):
    files = ns.labels.to_qupath(sdata, tmp_path / "a", regions="a_cells")
    endings = ["CD3", "HLA-DR___x", "HLA-DR___x_2"]
    assert [file.name for file in files] == [f"a_cells.{ending}.geojson" for ending in endings]
    adata, other = sdata.tables["table"], ns.labels.to_qupath(sdata, tmp_path / "b", regions="b_cells")
    ns.labels.from_qupath(adata, [tmp_path / "a", *other], key_added="back")
    np.testing.assert_array_equal(adata.layers["back"], adata.layers["silver"])
    assert adata.layers["back"].dtype == np.float32
    content = json.loads(files[0].read_text())
    assert content["type"] == "FeatureCollection" and len({feature["id"] for feature in content["features"]}) == 6
    for feature, cell, state in zip(content["features"], IDS, STATES, strict=True):
        properties = feature["properties"]
        assert feature["type"] == "Feature" and str(uuid.UUID(feature["id"])) == feature["id"]
        assert properties["objectType"] == "detection" and properties["name"] == f"a_cells {cell} CD3"
        assert properties.get("classification", {}).get("name") == state
        assert shapely.geometry.shape(feature["geometry"]).is_valid


def test_outlines_hold_exactly_the_pixels(sdata, drawn):
    (region,) = find_regions(sdata, "a", "a_cells", pixel_size=0.5)
    outlines = dict(read_polygons(region, np.unique(drawn[drawn > 0])))
    assert set(outlines) == set(IDS)
    y, x = np.mgrid[:30, :40] + 0.5
    for cell, outline in outlines.items():
        np.testing.assert_array_equal(shapely.contains_xy(outline, x, y), drawn == cell)
        assert outline.area == (drawn == cell).sum()
    # A rectangle has four corners.
    assert len(outlines[11].exterior.coords) == 5 and len(outlines[3].interiors) == 1
    assert list(dict(read_polygons(region, np.array([7, 99])))) == [7]


def test_outlines_are_in_pixels_of_a_coarser_image(make_sdata, drawn):
    places = {"a": {"a": Scale([2, 2], axes=("y", "x"))}, "a_cells": {"a": Identity()}}
    coarse = make_sdata({"a": np.zeros((1, 15, 20), np.uint8)}, {"a_cells": drawn}, CHANNELS, places)
    (region,) = find_regions(coarse, pixel_size=1)
    assert dict(read_polygons(region, np.array([11])))[11].bounds == (10, 2.5, 15, 4.5)


def test_images_are_those_of_the_regions_as_they_are_named(sdata, tmp_path):
    given = {"regions": ["b_cells", "a_cells"], "channels": "CD3", "layer": None}
    named = ns.labels.to_qupath(sdata, tmp_path / "named", image_key=["b", "a"], **given)
    matched = ns.labels.to_qupath(sdata, tmp_path / "matched", **given)
    assert [path.read_text() for path in named] == [path.read_text() for path in matched] and len(named) == 2
    assert not any("classification" in feature["properties"] for path in named for feature in features(path))


def _class(value):
    return lambda features: features[0]["properties"].update(classification=value)


def _name(value):
    return lambda features: features[1]["properties"].update(name=value)


@pytest.fixture
def path(sdata, tmp_path):
    return ns.labels.to_qupath(sdata, tmp_path / "one", regions="a_cells", channels="CD3")[0]


LIKELY, POSITIVE = {"name": "Likely  Negative"}, {"names": ["positive"], "color": [1, 2, 3]}


@pytest.mark.parametrize("value, label", [(LIKELY, 0.25), (POSITIVE, 1), ("undetermined", 0.5), (None, NAN)])
def test_corrections_as_versions_of_qupath_write_them(sdata, path, value, label):
    objects = features(path)
    _class(value)(objects)
    # A bare list of objects is another form that it exports.
    path.write_text(json.dumps(objects))
    adata = sdata.tables["table"]
    adata.layers["gold"] = np.full(adata.shape, 0.75, np.float32)
    ns.labels.from_qupath(adata, [path])
    np.testing.assert_array_equal(adata.layers["gold"][:6, 0], [label, *VALUES[1:]])
    assert (adata.layers["gold"][6:] == 0.75).all() and (adata.layers["gold"][:, 1:] == 0.75).all()


@pytest.mark.parametrize(
    "change, error, message",
    [
        (_class({"name": "Tumor"}), ValueError, r"class\(es\) 'tumor'; a class is one of"),
        (_class({"names": 5}), ValueError, "'5'; a class is one of"),
        (lambda objects: objects[1]["properties"].pop("name"), ValueError, "1 of 6 objects .* first is number 2"),
        (lambda objects: objects[1].update(properties=["a_cells 5 CD3"]), ValueError, "number 2"),
        (lambda objects: objects.clear(), ValueError, "no cell"),
        (_name("a_cells 3 CD3"), ValueError, "more than one way"),
        (_name("c_cells 3 CD3"), KeyError, "No region 'c_cells'"),
    ],
)
def test_a_bad_file_changes_nothing(sdata, path, change, error, message):
    objects = features(path)
    change(objects)
    path.write_text(json.dumps({"features": objects}))
    with pytest.raises(error, match=message):
        ns.labels.from_qupath(sdata.tables["table"], path)
    assert "gold" not in sdata.tables["table"].layers


def test_what_is_no_geojson(sdata, tmp_path):
    adata = sdata.tables["table"]
    with pytest.raises(FileNotFoundError, match=r"no .geojson file in '.*"):
        ns.labels.from_qupath(adata, [tmp_path])
    for text, message in (("{", "no GeoJSON"), ("3", "no list of objects"), ('{"features": [1]}', "no list")):
        (tmp_path / "x.geojson").write_text(text)
        with pytest.raises(ValueError, match=message):
            ns.labels.from_qupath(adata, tmp_path)


def test_cells_that_the_other_side_has_not_are_said(sdata, tmp_path):
    adata = sdata.tables["table"]
    files = ns.labels.to_qupath(sdata, tmp_path / "all", channels=["CD3"])
    few = adata[adata.obs["instance_id"] != 3].copy()
    with pytest.warns(UserWarning, match=r"labels 2 cells that the table has not, such as cell 3 of 'a_cells'"):
        ns.labels.from_qupath(few, files)
    np.testing.assert_array_equal(few.layers["gold"][:, 0], VALUES[1:] * 2)
    sdata.labels["a_cells"].data[:] = 0
    with pytest.warns(UserWarning, match="6 cells of the table have no pixels in labels 'a_cells', such as 3"):
        ns.labels.to_qupath(sdata, tmp_path / "none", channels="CD3")


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"regions": "c"}, KeyError, "No region 'c'"),
        ({"channels": ["CD4"]}, KeyError, "No channel 'CD4'"),
        ({"layer": "gold"}, KeyError, "no layer 'gold'"),
        ({"table_key": "rna"}, KeyError, "No table 'rna'"),
        ({"regions": []}, ValueError, "no cell to write"),
        ({"image_key": ["a"]}, ValueError, r"1 images for the 2 regions"),
        ({"image_key": "c"}, KeyError, "No image 'c'"),
    ],
)
def test_bad_requests(sdata, tmp_path, given, error, message):
    with pytest.raises(error, match=message):
        ns.labels.to_qupath(sdata, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(sdata, path):
    with pytest.raises(FileExistsError, match="may hold corrections; nothing was written"):
        ns.labels.to_qupath(sdata, path.parent)
    assert len(list(path.parent.iterdir())) == 1


def test_chosen_cells(sdata, tmp_path):
    adata = sdata.tables["table"]
    adata.layers["nimbus"] = np.full(adata.shape, 0.5, np.float32)
    cells = ns.labels.draw_cells(adata, 4)
    files = ns.labels.to_qupath(sdata, tmp_path / "some", cells=cells)
    names = [feature["properties"]["name"] for file in files for feature in features(file)]
    assert sorted(names) == sorted(f"{region} {cell} {channel}" for region, cell, channel in cells.to_numpy()[:, :3])
    for wrong, message in ((cells[["region"]], "draw_cells"), (cells.assign(instance_id=99), "that the table has not")):
        with pytest.raises(KeyError, match=message):
            ns.labels.to_qupath(sdata, tmp_path / "x", cells=wrong)


@pytest.fixture
def typed(sdata):
    """Types, with one missing and one that QuPath splits, and scores, with one missing."""
    adata = sdata.tables["table"]
    adata.obs["type"] = pd.Categorical(["T: CD4", "B", None, "T:CD8", "B", "B"] * 2)
    adata.layers["nimbus"] = np.linspace(0, 1, adata.n_obs * 3, dtype=np.float32).reshape(-1, 3)
    adata.layers["nimbus"][1, 0] = NAN
    return adata


def test_types_and_scores_go_out_and_corrected_types_come_back(sdata, typed, tmp_path, no_warning):
    channels = ["CD3", "HLA-DR / x"]
    files = ns.labels.to_qupath(sdata, tmp_path, class_key="type", measurements="nimbus", channels=channels)
    assert [file.name for file in files] == ["a_cells.geojson", "b_cells.geojson"]
    first, second, third = (feature["properties"] for feature in features(files[0])[:3])
    assert first["name"] == "a_cells 3" and first["classification"] == {"name": "T: CD4"}
    assert first["measurements"] == {"nimbus: CD3": 0, "nimbus: HLA-DR / x": pytest.approx(1 / 35, rel=1e-5)}
    # What is missing has no entry.
    assert list(second["measurements"]) == ["nimbus: HLA-DR / x"] and "classification" not in third
    ns.labels.from_qupath(typed, files, class_key="back")
    assert typed.obs["back"].astype(object).fillna("").tolist() == [
        "T: CD4", "B", "", "T: CD8", "B", "B", "T: CD4", "B", "", "T: CD8", "B", "B",
    ]  # fmt: skip
    objects = features(files[0])
    objects[0]["properties"]["classification"] = {"names": ["T", "CD8"], "color": [1, 2, 3]}
    objects[1]["properties"]["classification"] = {"name": "Macrophage"}
    del objects[4]["properties"]["classification"], objects[5:]
    # Cells with a nucleus, as QuPath writes them.
    objects[0] |= {"nucleusGeometry": objects[0]["geometry"]}
    objects[0]["properties"]["objectType"] = "cell"
    files[0].write_text(json.dumps({"features": objects}))
    ns.labels.from_qupath(typed, files[0], class_key="type")
    # Names are those that the column had; other cells keep their types.
    expected = ["T:CD8", "Macrophage", "", "T:CD8", "", "B", "T: CD4", "B", "", "T:CD8", "B", "B"]
    assert typed.obs["type"].astype(object).fillna("").tolist() == expected
    assert list(typed.obs["type"].cat.categories) == ["B", "T: CD4", "T:CD8", "Macrophage"]


def test_whole_cells_are_no_labels(sdata, typed, tmp_path):
    files = ns.labels.to_qupath(sdata, tmp_path, measurements=["nimbus", "silver"], regions="b_cells")
    assert list(features(files[0])[0]["properties"]["measurements"])[-1] == "silver: HLA-DR _ x"
    with pytest.raises(ValueError, match="without a name such as 'fov1_labels 17 CD3'"):
        ns.labels.from_qupath(typed, files)
    with pytest.raises(ValueError, match="`cells` are for proofreading"):
        ns.labels.to_qupath(sdata, tmp_path / "x", class_key="type", cells=ns.labels.draw_cells(typed, 4))
    with pytest.raises(KeyError, match="no column 'leiden'"):
        ns.labels.to_qupath(sdata, tmp_path / "x", class_key="leiden")


def compressed(path, how):
    """A file as QuPath and others compress it."""
    if how == "gz":
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
    else:
        packed = path.with_suffix(".zip")
        with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
            archive.write(path, f"../../{path.name.upper()}")
            archive.writestr(f"__MACOSX/._{path.name}", b"\0")
            archive.writestr("readme.txt", b"\0")
    path.unlink()
    return packed


@pytest.mark.parametrize("how", ["gz", "zip"])
def test_compressed_files(sdata, path, how, monkeypatch):
    adata, packed = sdata.tables["table"], compressed(path, how)
    for given in (packed, packed.parent):
        ns.labels.from_qupath(adata, given, key_added="back")
        np.testing.assert_array_equal(adata.layers.pop("back")[:6, 0], VALUES)
    # Nothing is unpacked onto the disk.
    assert list(packed.parent.iterdir()) == [packed]
    monkeypatch.setattr("nimbus_sd._geojson._MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="holds more than"):
        ns.labels.from_qupath(adata, packed)
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        ns.labels.from_qupath(adata, packed)


def test_cells_are_those_that_were_scored(sdata, drawn, tmp_path):
    """Grown ones, and shapes with their names."""
    grown = sdata.tables["table"].copy()
    # The pixel size is what was passed to `predict`.
    grown.uns["nimbus"] = {"grow": {"a_cells": 2.0}, "pixel_size": {"a_cells": 1.0}, "wrote": []}
    sdata.tables["table"] = grown
    (file,) = ns.labels.to_qupath(sdata, tmp_path / "grown", class_key="region", regions="a_cells")
    areas = [shapely.geometry.shape(feature["geometry"]).area for feature in features(file)]
    expected = expand_labels(drawn, 2)
    assert areas == [(expected == cell).sum() for cell in IDS]

    names = ["cell 1", "é-2", "7"]
    boxes = [shapely.box(x, 2, x + 3, 6) for x in (1, 10, 20)]
    sdata.shapes["outlines"] = ShapesModel.parse(
        gpd.GeoDataFrame(geometry=boxes, index=names), transformations={"a": Identity()}
    )
    obs = pd.DataFrame({"region": "outlines", "instance_id": names, "type": ["T", "B", "T"]}, index=names)
    table = AnnData(
        np.zeros((3, 1), np.float32), obs=obs.astype({"region": "category"}), var=pd.DataFrame(index=["CD3"])
    )
    table.layers["silver"] = np.array([[1], [0], [NAN]], np.float32)
    arguments = {"region": "outlines", "region_key": "region", "instance_key": "instance_id"}
    sdata.tables["shapes"] = TableModel.parse(table, **arguments)
    table = sdata.tables["shapes"]
    files = ns.labels.to_qupath(sdata, tmp_path / "types", class_key="type", table_key="shapes")
    assert [shapely.geometry.shape(feature["geometry"]).bounds for feature in features(files[0])] == [
        box.bounds for box in boxes
    ]
    ns.labels.from_qupath(table, files, class_key="back")
    assert (table.obs["back"] == table.obs["type"]).all()
    ns.labels.from_qupath(table, ns.labels.to_qupath(sdata, tmp_path / "silver", table_key="shapes"), key_added="again")
    np.testing.assert_array_equal(table.layers["again"], table.layers["silver"])


def test_samples_whose_regions_have_the_same_names(sdata):
    twice = ad.concat([sdata.tables["table"]] * 2, index_unique="-")
    with pytest.raises(ValueError, match="several rows for 12 cells, such as cell 3 of 'a_cells'"):
        ns.labels.to_csv(twice, "x.csv", layer="silver")
    sdata.tables["table"].obs["instance_id"] = 3
    with pytest.raises(ValueError, match="several rows for one label of 'a_cells'"):
        ns.pl.cells(sdata, "CD3", "a_cells", layer="silver")
    # Where regions are the groups of cells.
    for function in (
        ns.labels.evaluation_regions,
        lambda adata: ns.metrics.marker_metrics(adata, "silver", "silver", n_boot=2),
    ):
        with pytest.warns(UserWarning, match="12 cells have the region and id of another one, such as in 'a_cells'"):
            function(twice)
