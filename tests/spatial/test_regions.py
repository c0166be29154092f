import numpy as np
import pytest
from anndata import AnnData
from spatialdata import read_zarr
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale, Translation

import nimbus_sd as ns
from nimbus_sd.spatial import find_regions

ALL = slice(None)


def two(build, pixels, cells, first=("CD3", "CD8"), second=("CD3", "CD8")):
    return build(
        {"a": (pixels(len(first)), {"a": Identity()}), "b": (pixels(len(second), seed=1), {"b": Identity()})},
        {"a_cells": (cells(), {"a": Identity()}), "b_cells": (cells(), {"b": Identity()})},
        channels={"a": first, "b": second},
    )


def test_same_channel_index_means_the_same_channel_everywhere(build, pixels, cells):
    sdata = two(build, pixels, cells, ("CD3", "CD8"), ("CD8", "CD3"))
    a, b = find_regions(sdata, pixel_size=0.5)
    assert (a.image_key, a.labels_key, b.image_key, b.labels_key) == ("a", "a_cells", "b", "b_cells")
    assert a.channels == b.channels == ["CD3", "CD8"]
    np.testing.assert_array_equal(a.read_image([0], ALL, ALL)[0], pixels()[0])
    np.testing.assert_array_equal(b.read_image([0], ALL, ALL)[0], pixels(seed=1)[1])


def test_images_of_different_channels_need_a_choice(build, pixels, cells):
    sdata = two(build, pixels, cells, ("DAPI", "CD3", "CD8"), ("CD3", "DAPI", "CD20"))
    with pytest.raises(
        ValueError, match=r"\['CD8'\] only in 'a', \['CD20'\] only in 'b'.*all images have \['DAPI', 'CD3'\]"
    ):
        find_regions(sdata, pixel_size=0.5)
    regions = find_regions(sdata, channels=["CD3"], pixel_size=0.5)
    np.testing.assert_array_equal(regions[1].read_image([0], ALL, ALL)[0], pixels(3, seed=1)[0])
    with pytest.raises(KeyError, match=r"No channel 'CD8' in image 'b'; there is: 'CD3', 'DAPI', 'CD20'. Did you mean"):
        find_regions(sdata, channels=["CD8"], pixel_size=0.5)


def test_channel_arguments(build, pixels, cells):
    sdata = build({"image": pixels()}, {"cells": cells()})
    assert find_regions(sdata, channels="CD8", pixel_size=1)[0].channels == ["CD8"]
    with pytest.raises(ValueError, match="'CD8' more than once"):
        find_regions(sdata, channels=["CD8", "CD3", "CD8"], pixel_size=1)
    with pytest.raises(ValueError, match="`channels` is empty"):
        find_regions(sdata, channels=[], pixel_size=1)


def test_something_else_than_a_spatialdata():
    table = AnnData(np.zeros((3, 2)))
    for function in (find_regions, ns.predict):
        with pytest.raises(TypeError, match="Expected a SpatialData, got AnnData; pass the SpatialData"):
            function(table)


def test_unnamed_channels_are_called_by_number(build, pixels, cells):
    sdata = build({}, {"cells": cells()})
    sdata.images["image"] = Image2DModel.parse(pixels(3))
    assert find_regions(sdata, pixel_size=1)[0].channels == ["0", "1", "2"]
    assert find_regions(sdata, channels=[2], pixel_size=1)[0].channels == ["2"]


@pytest.mark.parametrize(
    ("transformation", "shape", "message"),
    [
        (
            Identity(),
            (6, 9),
            r"'image' is 6 x 8 pixels \(y, x\) and labels 'cells' are 6 x 9; one pixel of the labels covers 1 x 1",
        ),
        (Scale([2, 2], ("y", "x")), (6, 8), r"6 x 8 .* 6 x 8; one pixel of the labels covers 2 x 2 .* do not fit"),
        (Scale([0.5, 0.5], ("y", "x")), (6, 8), "one pixel of the image covers 2 x 2"),
        (Translation([1, 0], ("y", "x")), (6, 8), r"must lie on each other.*found: in 'global', y' = 1 y \+0 x \+1,"),
        (Scale([1.5, 1.5], ("y", "x")), (4, 6), "whole factor at most.*y' = 1.5 y"),
    ],
)
def test_elements_that_do_not_lie_on_each_other(build, pixels, transformation, shape, message):
    sdata = build({"image": pixels()}, {"cells": (np.zeros(shape, int), {"global": transformation})})
    with pytest.raises(ValueError, match=message):
        find_regions(sdata, pixel_size=0.5)


def test_pairs_given_without_common_system_are_an_error(build, pixels, cells):
    sdata = build({"image": (pixels(), {"here": Identity()})}, {"cells": (cells(), {"there": Identity()})})
    with pytest.raises(ValueError, match="found: no common coordinate system"):
        find_regions(sdata, "image", "cells", pixel_size=0.5)


def test_pixel_size_per_image(build, pixels, cells):
    sdata = two(build, pixels, cells)
    assert [r.pixel_size for r in find_regions(sdata, pixel_size={"a": 0.5, "b": 0.25})] == [0.5, 0.25]
    with pytest.raises(KeyError, match=r"No image 'c' \(named in `pixel_size`\)"):
        find_regions(sdata, pixel_size={"a": 0.5, "c": 0.25})
    with pytest.warns(UserWarning, match="pixel size of 'a', 'b' is not known"):
        assert [r.pixel_size for r in find_regions(sdata)] == [0.5, 0.5]


def test_pixel_size_of_the_argument_is_that_of_the_image(build, square, pixels):
    sdata = build({"image": pixels()}, {"cells": (np.zeros((12, 16), int), {"global": square(0.5)})})
    (region,) = find_regions(sdata, pixel_size=0.5)
    assert region.pixel_size == 0.25


def test_image_with_rectangular_pixels_is_an_error(build, pixels, cells):
    systems = {"global": Identity(), "um": Scale([0.5, 0.7], ("y", "x"))}
    sdata = build({"image": (pixels(), systems)}, {"cells": cells()})
    with pytest.raises(ValueError, match="must be square"):
        find_regions(sdata)


def test_elements_read_from_disk_give_the_same(tmp_path, build, square, pixels, cells):
    systems = {"fov": Identity(), "fov_um": square(0.5)}
    sdata = build({}, {})
    sdata.images["fov"] = Image2DModel.parse(
        pixels(2, 64, 96), c_coords=["CD3", "CD8"], transformations=systems, scale_factors=[2]
    )
    labels = np.zeros((32, 48), np.uint32)
    labels[4, 5] = 2**32 - 1
    sdata.labels["cells"] = Labels2DModel.parse(labels, transformations={"fov": square(2), "fov_um": square(1)})
    sdata.write(tmp_path / "sdata.zarr")
    (region,) = find_regions(read_zarr(tmp_path / "sdata.zarr"))
    assert (region.channels, region.shape, region.pixel_size, region.labels_repeat) == (
        ["CD3", "CD8"],
        (64, 96),
        0.5,
        2,
    )
    np.testing.assert_array_equal(region.read_image([1], slice(7, 60), slice(3, 90)), pixels(2, 64, 96)[1:, 7:60, 3:90])
    window = region.read_labels(slice(7, 11), slice(9, 13))
    assert window.tolist() == [[0, 0, 0, 0], [0, 2**32 - 1, 2**32 - 1, 0], [0, 2**32 - 1, 2**32 - 1, 0], [0, 0, 0, 0]]
