"""Out to QuPath and back: every state, every id, and outlines on the pixel."""

import json
import uuid

import numpy as np
import pytest
import shapely
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
