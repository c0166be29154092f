"""Polygons and circles as labels."""

import pickle

import geopandas as gpd
import numpy as np
import pytest
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import Affine, Identity, MapAxis, Scale

from nimbus_sd.spatial import find_regions

ALL = slice(None)
SIZE = (40, 60)
HOLED = shapely.Polygon(shapely.box(3.2, 4.1, 20.7, 17.9).exterior, [shapely.box(8, 8, 12, 13).exterior])
APART = shapely.MultiPolygon([shapely.box(30, 2, 36, 9), shapely.Polygon([(31, 20), (55, 22.5), (40, 38)])])
INVALID = shapely.Polygon([(44, 4), (54, 12), (54, 4), (44, 12)])


@pytest.fixture
def drawn(build):
    """Return the region of shapes on an image of noughts."""

    def draw(geometry, index=None, places=None, **columns):
        sdata = build({"image": np.zeros((1, *SIZE), np.uint8)}, channels=())
        frame = gpd.GeoDataFrame(columns, geometry=list(geometry), index=index)
        sdata.shapes["shapes"] = ShapesModel.parse(frame, transformations=places or {"global": Identity()})
        return find_regions(sdata, labels_key="shapes", pixel_size=0.5)[0]

    return draw


def holding(shape):
    """Pixels whose centre a shape holds, one by one."""
    centres = ((y, x, shapely.Point(x + 0.5, y + 0.5)) for y in range(SIZE[0]) for x in range(SIZE[1]))
    return {(y, x) for y, x, centre in centres if shape.intersects(centre)}


def pixels_of(labels, cell):
    return set(zip(*(axis.tolist() for axis in np.nonzero(labels == cell)), strict=True))


def test_a_pixel_belongs_to_the_first_shape_that_holds_its_centre(drawn):
    shapes = [HOLED, APART, shapely.box(15, 10, 33, 25), shapely.box(-9, -9, -1, -1), shapely.Polygon()]
    labels = drawn(shapes).read_labels(ALL, ALL)
    assert pixels_of(labels, 1) == holding(HOLED) and pixels_of(labels, 2) == holding(APART)
    assert pixels_of(labels, 3) == holding(shapes[2]) - holding(HOLED) - holding(APART)
    assert labels.dtype == np.int64 and set(np.unique(labels)) == {0, 1, 2, 3}
    assert pixels_of(drawn([INVALID]).read_labels(ALL, ALL), 1)


def test_circles(drawn):
    labels = drawn(shapely.points([[10.5, 12.5], [40, 20]]), radius=[5.0, 2.2]).read_labels(ALL, ALL)
    y, x = np.indices(SIZE) + 0.5
    # The first one's edge runs through centres of pixels, which are its own.
    np.testing.assert_array_equal(labels == 1, np.hypot(x - 10.5, y - 12.5) <= 5)
    np.testing.assert_array_equal(labels == 2, np.hypot(x - 40, y - 20) <= 2.2)


@pytest.mark.parametrize(
    "placed",
    [
        Scale([0.325, 0.325], ("x", "y")),
        Affine([[0.3, -0.4, 7], [0.5, 0.2, -9], [0, 0, 1]], ("x", "y"), ("x", "y")),
        MapAxis({"x": "y", "y": "x"}),
    ],
    ids=["um", "sheared", "swapped"],
)
def test_any_affine_placement(drawn, placed):
    matrix = np.linalg.inv(placed.to_affine_matrix(("x", "y"), ("x", "y")))
    moved = shapely.transform([HOLED, APART], lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2])
    labels = drawn(moved, places={"um": placed, "global": placed}).read_labels(ALL, ALL)
    np.testing.assert_array_equal(labels, drawn([HOLED, APART]).read_labels(ALL, ALL))


def test_any_window_is_a_part_of_the_whole_and_can_be_sent_to_workers(drawn):
    region = pickle.loads(pickle.dumps(drawn([HOLED, APART, shapely.box(15, 10, 33, 25)])))
    whole = region.read_labels(ALL, ALL)
    for window in (np.s_[3:9, 4:40], np.s_[0:1, 59:60], np.s_[17:40, 0:33], np.s_[5:5, 2:9]):
        np.testing.assert_array_equal(region.read_labels(*window), whole[window])


def test_a_table_calls_shapes_by_their_index(drawn):
    assert drawn([HOLED, APART], index=["b-1", "a-1"]).cell_ids(np.array([2, 1])).tolist() == ["a-1", "b-1"]
    assert drawn([HOLED, APART], index=[70, 7]).cell_ids(np.array([2])).tolist() == [7]
    large = np.array([2**62 + 1, 2**62], np.uint64)
    assert drawn([HOLED, APART], index=large).cell_ids(np.array([2, 1])).dtype == np.int64
    assert drawn([HOLED, APART], index=large * 2).cell_ids(np.array([1])).tolist() == [str(2**63 + 2)]
    with pytest.raises(ValueError, match="'shapes' have several rows 'a'; give each"):
        drawn([HOLED, APART], index=["a", "a"])


def test_only_the_part_of_the_image_that_shapes_lie_on_counts(drawn):
    region = drawn([APART, shapely.box(-9, -9, -1, -1), shapely.Polygon()])
    assert region.reaches(slice(2, 3), slice(54, 55)) and not region.reaches(slice(0, 2), slice(0, 60))
    assert region.covered == (slice(2, 38), slice(30, 55))
    with pytest.raises(ValueError, match="Shapes 'shapes' do not lie on image 'image'"):
        drawn([shapely.box(-9, -9, -1, -1), shapely.Polygon()])


def test_shapes_elsewhere(drawn):
    with pytest.raises(ValueError, match="No image shares a coordinate system with labels 'shapes'"):
        drawn([HOLED], places={"other": Identity()})
    with pytest.raises(ValueError, match="only 'global', with a transformation that is not affine and invertible"):
        drawn([HOLED], places={"global": Scale([1, 0], ("x", "y"))})
