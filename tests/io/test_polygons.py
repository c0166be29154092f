"""Cells as polygons from GeoJSON."""

import gzip
import json
from zipfile import ZipFile

import numpy as np
import pytest
import tifffile
from skimage.segmentation import expand_labels

from nimbus_sd.io import read_fovs
from nimbus_sd.spatial import find_regions

SQUARE = [[[2, 3], [8, 3], [8, 9], [2, 9], [2, 3]]]
HOLE = [[4, 5], [6, 5], [6, 7], [4, 7], [4, 5]]
PARTS = [[[[20, 1], [25, 1], [25, 4], [20, 1]]], [[[20, 10], [24, 10], [24, 14], [20, 14], [20, 10]]]]


def feature(coordinates, kind="Polygon", identity=None, **properties):
    place = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": place, "properties": properties} | ({"id": identity} if identity else {})


CELLS = [
    feature([[[0, 0], [30, 0], [30, 20], [0, 20], [0, 0]]], identity="x", objectType="annotation"),
    feature([*SQUARE, HOLE], identity="b-1", objectType="cell", classification={"name": "T cell"}),
    feature(PARTS, "MultiPolygon", "a-2", objectType="detection", classification={"names": ["B", "plasma"]}),
]


@pytest.fixture
def image(tmp_path):
    tifffile.imwrite(tmp_path / "slide.tif", np.ones((20, 30), np.uint16))
    return tmp_path / "slide.tif"


def put(path, content):
    text = json.dumps(content).encode()
    if path.suffix == ".zip":
        with ZipFile(path, "w") as archive:
            archive.writestr("cells.geojson", text)
            archive.writestr("__MACOSX/cells.geojson", b"?")
    else:
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["slide.geojson", "slide.json", "slide.geojson.gz", "slide.zip"])
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_cells_of_qupath(image, tmp_path, name, folder):
    (tmp_path / "masks").mkdir()
    path = put(tmp_path / "masks" / name, {"type": "FeatureCollection", "features": CELLS})
    sdata = read_fovs(image, path.parent if folder else path, pixel_size=0.5)
    cells = sdata.shapes["slide_cells"]
    assert (cells.index.tolist(), cells["class"].tolist()) == (["b-1", "a-2"], ["T cell", "B: plasma"])
    (region,) = find_regions(sdata, labels_key="slide_cells")
    labels = region.read_labels(slice(None), slice(None))
    expected = np.zeros((20, 30), int)
    expected[3:9, 2:8], expected[5:7, 4:6], expected[10:14, 20:24] = 1, 0, 2
    np.testing.assert_array_equal(labels[:, :20], expected[:, :20])
    np.testing.assert_array_equal(labels[5:], expected[5:])
    assert region.pixel_size == 0.5 and (labels[1:4, 20:25] == 2).any()


def test_polygons_without_kinds_and_ids(image, tmp_path):
    sdata = read_fovs(image, put(tmp_path / "slide.geojson", [feature(SQUARE), feature(SQUARE)]))
    assert sdata.shapes["slide_cells"].index.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CELLS[:1], "must be polygons; there are none among 1 objects"),
        ([feature([3, 4], "Point")], "there are geometries of type Point"),
        ([{"type": "Feature", "geometry": None}], "geometry is damaged"),
        ([feature([[[0, 0], [1]]])], "geometry is damaged"),
        ({"a": 1}, "no list of objects"),
    ],
)
def test_what_is_no_polygon(image, tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_fovs(image, put(tmp_path / "slide.geojson", content))


def test_masks_grow(image, tmp_path):
    mask = np.zeros((20, 30), np.uint16)
    mask[5:8, 5:8], mask[5:8, 10:12] = 7, 9
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    sdata = read_fovs(image, tmp_path / "mask.tif", pixel_size=0.5, grow=1.5)
    np.testing.assert_array_equal(sdata.labels["slide_labels"], expand_labels(mask, 3))
    assert sdata.attrs["grow"] == 1.5
    with pytest.raises(ValueError, match="pixel size of 'slide' is not known"):
        read_fovs(image, tmp_path / "mask.tif", grow=1.5)
    with pytest.raises(ValueError, match="holds polygons; grow these by `grow` of `predict`"):
        read_fovs(image, put(tmp_path / "slide.geojson", CELLS), pixel_size=0.5, grow=1.5)
