"""Out to QuPath and back: every state, every id, and outlines on the pixel."""

import json
import uuid

import numpy as np
import pytest
import shapely

import nimbus_sd as ns
from nimbus_sd.spatial import find_regions, read_polygons

NAN = np.nan
STATES = ["positive", "likely positive", "undetermined", "likely negative", "negative", None]
VALUES = [1, 0.75, 0.5, 0.25, 0, NAN]
CHANNELS = ("CD3", "HLA-DR / x", "HLA-DR _ x")


@pytest.fixture
def drawn():
    """Six cells, among them one in two parts, one with a hole, and a single pixel; ids beyond 2**31."""
    labels = np.zeros((30, 40), np.int64)
    labels[0:5, 0:5] = 3
    labels[1:3, 1:3] = 0
    labels[10:12, 4:9], labels[12:14, 9:12] = 7, 7
    labels[29, 39] = 2**40
    labels[5:9, 20:30] = 11
    labels[9:12, 20:30] = 12
    labels[20:25, 0:8] = 13
    return labels


@pytest.fixture
def sdata(make_sdata, drawn, table_of):
    image = np.zeros((3, 30, 40), np.uint8)
    found = make_sdata({"a": image, "b": image}, {"a_cells": drawn, "b_cells": drawn.T[::-1].T}, CHANNELS)
    ids = [3, 7, 2**40, 11, 12, 13]
    silver = np.tile(np.array(VALUES, np.float32)[:, None], (2, 3))
    silver[:, 1] = np.roll(silver[:, 1], 1)
    found.tables["table"] = table_of({"a_cells": ids, "b_cells": ids}, CHANNELS, silver=silver)
    return found


def test_all_states_and_ids_come_back(sdata, tmp_path, no_warning):
    files = ns.labels.to_qupath(sdata, tmp_path / "out")
    assert [file.name for file in files][:3] == [
        "a_cells.CD3.geojson",
        "a_cells.HLA-DR___x.geojson",
        "a_cells.HLA-DR___x_2.geojson",
    ]
    adata = sdata.tables["table"]
    ns.labels.from_qupath(adata, tmp_path / "out", key_added="back")
    np.testing.assert_array_equal(adata.layers["back"], adata.layers["silver"])
    assert adata.layers["back"].dtype == np.float32


def test_objects_are_what_qupath_reads(sdata, tmp_path):
    (path,) = ns.labels.to_qupath(sdata, tmp_path, regions="a_cells", channels="CD3")
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection" and len(content["features"]) == 6
    classes = {}
    for one in content["features"]:
        assert one["type"] == "Feature" and str(uuid.UUID(one["id"])) == one["id"]
        assert one["properties"]["objectType"] == "detection"
        classes[one["properties"]["name"]] = one["properties"].get("classification", {}).get("name")
        assert shapely.geometry.shape(one["geometry"]).is_valid
    ids = [3, 7, 2**40, 11, 12, 13]
    assert classes == {f"a_cells {cell} CD3": state for cell, state in zip(ids, STATES, strict=True)}
    assert len({one["id"] for one in content["features"]}) == 6


def test_outlines_hold_exactly_the_pixels(sdata, drawn):
    (region,) = find_regions(sdata, "a", "a_cells", pixel_size=0.5)
    outlines = dict(read_polygons(region, np.unique(drawn[drawn > 0])))
    assert set(outlines) == {3, 7, 2**40, 11, 12, 13}
    y, x = np.mgrid[:30, :40] + 0.5
    for cell, outline in outlines.items():
        np.testing.assert_array_equal(shapely.contains_xy(outline, x, y), drawn == cell)
        assert outline.area == (drawn == cell).sum()
    # A rectangle has four corners.
    assert len(outlines[11].exterior.coords) == 5 and len(outlines[3].interiors) == 1
    assert list(dict(read_polygons(region, np.array([7, 99])))) == [7]


def test_outlines_are_in_pixels_of_a_coarser_image(make_sdata, drawn):
    from spatialdata.transformations import Identity, Scale

    places = {"a": {"a": Scale([2, 2], axes=("y", "x"))}, "a_cells": {"a": Identity()}}
    coarse = make_sdata({"a": np.zeros((1, 15, 20), np.uint8)}, {"a_cells": drawn}, CHANNELS, places)
    (region,) = find_regions(coarse, pixel_size=1)
    outlines = dict(read_polygons(region, np.array([11])))
    assert outlines[11].bounds == (10, 2.5, 15, 4.5)


def test_images_are_those_of_the_regions_as_they_are_named(sdata, tmp_path):
    given = {"regions": ["b_cells", "a_cells"], "channels": "CD3", "layer": None}
    ns.labels.to_qupath(sdata, tmp_path / "named", image_key=["b", "a"], **given)
    ns.labels.to_qupath(sdata, tmp_path / "found", **given)
    for path in (tmp_path / "found").iterdir():
        assert path.read_text() == (tmp_path / "named" / path.name).read_text()


def _changed(path, change):
    content = json.loads(path.read_text())
    change(content["features"])
    path.write_text(json.dumps(content))


def _class(value):
    return lambda features: features[0]["properties"].update(classification=value)


@pytest.mark.parametrize(
    "value, label",
    [
        ({"name": "Likely  Negative"}, 0.25),
        ({"names": ["positive"], "color": [1, 2, 3]}, 1),
        ({"name": "negative", "colorRGB": -1}, 0),
        ("undetermined", 0.5),
        (None, NAN),
    ],
)
def test_corrections_as_versions_of_qupath_write_them(sdata, tmp_path, value, label):
    (path,) = ns.labels.to_qupath(sdata, tmp_path, regions="a_cells", channels="CD3")
    _changed(path, _class(value))
    content = json.loads(path.read_text())
    # A bare list of objects is another form that it exports.
    path.write_text(json.dumps(content["features"]))
    adata = sdata.tables["table"]
    adata.layers["gold"] = np.full(adata.shape, 0.75, np.float32)
    ns.labels.from_qupath(adata, [path])
    np.testing.assert_array_equal(adata.layers["gold"][:6, 0], [label, *VALUES[1:]])
    # Other cells and channels keep their labels.
    assert (adata.layers["gold"][6:] == 0.75).all() and (adata.layers["gold"][:, 1:] == 0.75).all()


@pytest.mark.parametrize(
    "change, error, message",
    [
        (_class({"name": "Tumor"}), ValueError, r"class\(es\) 'tumor'; a class is one of"),
        (lambda features: features[1]["properties"].pop("name"), ValueError, "1 of 6 objects .* first is number 2"),
        (lambda features: features[1]["properties"].update(name="a_cells x CD3"), ValueError, "number 2"),
        (lambda features: features[1]["properties"].update(name="a_cells 3 CD3"), ValueError, "more than one way"),
        (lambda features: features[1]["properties"].update(name="c_cells 3 CD3"), KeyError, "No region 'c_cells'"),
        (lambda features: features[1]["properties"].update(name="a_cells 3 CD4"), KeyError, "No channel 'CD4'"),
        (lambda features: features.clear(), ValueError, "no cell"),
        (lambda features: features[1].update(properties=["a_cells 5 CD3"]), ValueError, "number 2"),
        (lambda features: features[1].pop("properties"), ValueError, "number 2"),
        (_class({"names": 5}), ValueError, "'5'; a class is one of"),
    ],
)
def test_a_bad_file_changes_nothing(sdata, tmp_path, change, error, message):
    (path,) = ns.labels.to_qupath(sdata, tmp_path, regions="a_cells", channels="CD3")
    _changed(path, change)
    adata = sdata.tables["table"]
    with pytest.raises(error, match=message):
        ns.labels.from_qupath(adata, path)
    assert "gold" not in adata.layers


def test_what_is_no_geojson(sdata, tmp_path):
    adata = sdata.tables["table"]
    for text, message in (("{", "no GeoJSON"), ("3", "no list of objects"), ('{"features": [1]}', "no list")):
        (tmp_path / "x.geojson").write_text(text)
        with pytest.raises(ValueError, match=message):
            ns.labels.from_qupath(adata, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"in .*empty"):
        ns.labels.from_qupath(adata, tmp_path / "empty")


def test_folders_and_files_are_read_together(sdata, tmp_path):
    adata = sdata.tables["table"]
    for region in ("a", "b"):
        ns.labels.to_qupath(sdata, tmp_path / region, regions=f"{region}_cells")
    ns.labels.from_qupath(adata, [tmp_path / "a", *(tmp_path / "b").iterdir()], key_added="back")
    np.testing.assert_array_equal(adata.layers["back"], adata.layers["silver"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no .geojson file in '.*empty'"):
        ns.labels.from_qupath(adata, [tmp_path / "a", tmp_path / "empty"])


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


def test_nothing_is_overwritten(sdata, tmp_path):
    ns.labels.to_qupath(sdata, tmp_path, regions="b_cells", channels="CD3")
    with pytest.raises(FileExistsError, match="may hold corrections; nothing was written"):
        ns.labels.to_qupath(sdata, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


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


def test_from_scratch_and_chosen_cells(sdata, tmp_path):
    (path, *_) = ns.labels.to_qupath(sdata, tmp_path / "all", layer=None, regions=["b_cells"])
    assert all("classification" not in one["properties"] for one in json.loads(path.read_text())["features"])
    adata = sdata.tables["table"]
    adata.layers["nimbus"] = np.full(adata.shape, 0.5, np.float32)
    cells = ns.labels.draw_cells(adata, 4)
    files = ns.labels.to_qupath(sdata, tmp_path / "some", cells=cells)
    names = [one["properties"]["name"] for file in files for one in json.loads(file.read_text())["features"]]
    wanted = [f"{region} {cell} {channel}" for region, cell, channel in cells.iloc[:, :3].itertuples(index=False)]
    assert sorted(names) == sorted(wanted)
    with pytest.raises(KeyError, match="draw_cells"):
        ns.labels.to_qupath(sdata, tmp_path / "x", cells=cells[["region"]])
