import numpy as np
import pandas as pd
import pytest
from spatialdata import SpatialData
from spatialdata.transformations import Identity

from nimbus_sd.spatial import RegionResult, find_regions, write_table
from nimbus_sd.spatial.elements import pair_elements, plain_images


def write(sdata, region, key_added):
    """Write a table under a key, as a run that stored score maps would."""
    ones = np.ones((1, 2), np.float32)
    result = RegionResult(region, np.array([3]), ones, ones, np.array([4]), ones)
    return write_table(
        sdata,
        [result],
        channels=region.channels,
        table_key="table",
        key_added=key_added,
        factors=pd.DataFrame({"factor": [1.0, 1.0]}, index=region.channels),
        provenance={},
    )


def fovs(build, pixels, cells, names=("a", "b")):
    """Fields of view as `read_fovs` and steinbock's reader write them, and all in one system besides."""
    systems = {name: {name: Identity(), "global": Identity()} for name in names}
    return build(
        {name: (pixels(), systems[name]) for name in names},
        {f"{name}_cells": (cells(), systems[name]) for name in names},
    )


def test_every_labels_element_finds_its_image(build, pixels, cells):
    sdata = fovs(build, pixels, cells, ("b", "a", "c"))
    assert pair_elements(sdata) == [("a", "a_cells"), ("b", "b_cells"), ("c", "c_cells")]


def test_two_masks_of_one_image_are_two_regions(build, pixels, cells):
    sdata = build({"image": pixels()}, {"nuclei": cells(), "cells": cells()})
    assert pair_elements(sdata) == [("image", "cells"), ("image", "nuclei")]


def test_pairs_keep_the_order_given(build, pixels, cells):
    sdata = fovs(build, pixels, cells)
    assert pair_elements(sdata, ["b", "a"], ["b_cells", "a_cells"]) == [("b", "b_cells"), ("a", "a_cells")]
    assert pair_elements(sdata, labels_key=["b_cells", "a_cells"]) == [("b", "b_cells"), ("a", "a_cells")]
    assert pair_elements(sdata, image_key="b") == [("b", "b_cells")]


def test_image_named_by_the_user_needs_unique_labels_only(build, pixels, cells):
    sdata = build({"multiplex": pixels(), "he": pixels()}, {"cells": cells()})
    assert pair_elements(sdata, image_key="multiplex") == [("multiplex", "cells")]


def test_unclear_pairs_list_the_candidates(build, pixels, cells):
    sdata = build({"one": pixels(), "two": pixels(), "far": (pixels(), {"away": Identity()})}, {"cells": cells()})
    with pytest.raises(ValueError, match=r"Which image belongs to labels 'cells'.*'one', 'two'\. Name the pairs"):
        pair_elements(sdata)
    sdata = build({"image": pixels()}, {"cells": cells(), "nuclei": cells()})
    with pytest.raises(ValueError, match=r"Which labels element belongs to image 'image'.*'cells', 'nuclei'"):
        pair_elements(sdata, image_key="image")


def test_two_images_each_alone_in_a_system_are_unclear(build, pixels, cells):
    sdata = build(
        {"one": (pixels(), {"x": Identity()}), "two": (pixels(), {"y": Identity()})},
        {"cells": (cells(), {"x": Identity(), "y": Identity()})},
    )
    with pytest.raises(ValueError, match="'one', 'two'"):
        pair_elements(sdata)


def test_no_common_coordinate_system(build, pixels, cells):
    sdata = build({"image": (pixels(), {"here": Identity()})}, {"cells": (cells(), {"there": Identity()})})
    with pytest.raises(ValueError, match=r"No image shares a coordinate system with labels 'cells'.*'there'.*'here'"):
        pair_elements(sdata)


def test_missing_elements_name_the_nearest(build, pixels, cells):
    sdata = fovs(build, pixels, cells)
    with pytest.raises(
        KeyError, match=r"No labels element 'a_cell'; there is: 'a_cells', 'b_cells'.*Did you mean 'a_cells'"
    ):
        pair_elements(sdata, "a", "a_cell")
    with pytest.raises(KeyError, match="No image 'nothing'; there is: 'a', 'b'"):
        pair_elements(sdata, "nothing")


@pytest.mark.parametrize(
    ("image_key", "labels_key", "message"),
    [
        (["a", "b"], ["a_cells"], "2 images and 1 labels elements"),
        (["a", "b"], ["a_cells", "a_cells"], "'a_cells' occur more than once"),
        (["a", "a"], None, "'a_cells' occur more than once"),
        ([], None, "empty list"),
    ],
)
def test_lists_that_make_no_pairs(build, pixels, cells, image_key, labels_key, message):
    with pytest.raises(ValueError, match=message):
        pair_elements(fovs(build, pixels, cells), image_key, labels_key)


def test_no_images_or_no_labels_says_what_exists(build, pixels, cells):
    with pytest.raises(ValueError, match=r"images 'image' and labels \(none\)"):
        pair_elements(build({"image": pixels()}))
    with pytest.raises(ValueError, match=r"images \(none\) and labels 'cells'"):
        pair_elements(build(labels={"cells": cells()}))
    with pytest.raises(ValueError, match="needed"):
        pair_elements(SpatialData())


def test_score_maps_are_no_candidates(build, pixels, cells):
    sdata = build({"image": pixels(), "image_nimbus": pixels(), "image_other": pixels()}, {"cells": cells()})
    assert plain_images(sdata) == ["image", "image_other"]
    region = find_regions(build({"image": pixels()}, {"cells": cells()}), pixel_size=1)[0]
    table = write(sdata, region, "other")
    assert "other" in table.uns
    assert plain_images(sdata) == ["image"]
    assert pair_elements(sdata) == [("image", "cells")]
