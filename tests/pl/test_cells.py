"""Pictures of a channel and of cells: what is drawn, checked on the drawn arrays."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

import nimbus_sd as ns


def drawn_rgba(ax: Axes, layer: int = 0) -> np.ndarray:
    """Colours of an image that was drawn, (h, w, 4)."""
    picture = ax.images[layer]
    return picture.to_rgba(picture.get_array())


@pytest.mark.parametrize("draw", [ns.pl.image, ns.pl.cells])
def test_the_axes_are_returned_and_a_given_one_is_drawn_on(sdata, draw):
    ax = draw(sdata, "CD3", "a_cells")
    assert isinstance(ax, Axes) and ax.images
    assert not len(ax.get_xticks()) and not len(ax.get_yticks())
    figure, axes = plt.subplots(1, 2)
    assert draw(sdata, "CD3", "a_cells", ax=axes[1]) is axes[1]
    assert axes[1].images and not axes[0].images
    assert plt.get_fignums() == [ax.figure.number, figure.number]
    figure.canvas.draw()


@pytest.mark.parametrize("draw", [ns.pl.image, ns.pl.cells])
def test_the_data_are_left_as_they_were(sdata, draw):
    before = sdata["table"].copy()
    draw(sdata, "CD3", "a_cells")
    np.testing.assert_array_equal(sdata["table"].layers["nimbus"], before.layers["nimbus"])
    assert list(sdata["table"].layers) == list(before.layers)


def test_image_shows_the_pixels_of_its_channel(sdata):
    ax = ns.pl.image(sdata, "CD3", "b_cells", outlines=False)
    np.testing.assert_array_equal(ax.images[0].get_array(), sdata["b"].sel(c="CD3"))
    assert len(ax.images) == 1 and ax.get_title() == "CD3"


def test_image_is_as_bright_as_the_factor_or_else_the_quantile(sdata):
    pixels = sdata["a"].sel(c="CD3").values
    assert ns.pl.image(sdata, "CD3", "a_cells").images[0].get_clim() == (0, pytest.approx(np.quantile(pixels, 0.999)))
    factors = pd.DataFrame({"factor": [0.0, 42.0]}, index=["DAPI", "CD3"])
    sdata["table"].varm["nimbus_normalization"] = factors
    assert ns.pl.image(sdata, "CD3", "a_cells").images[0].get_clim() == (0, 42)
    # A factor of 0 is that of an empty channel.
    assert ns.pl.image(sdata, "DAPI", "a_cells").images[0].get_clim()[1] > 50


def test_image_outlines_cells_inside_their_boundary(sdata, labels):
    ax = ns.pl.image(sdata, "CD3", "a_cells")
    edge = ~np.ma.getmaskarray(ax.images[1].get_array())
    assert edge[0, 9] and edge[5, 9] and edge[5, 10] and not edge[5, 5]
    assert not edge[labels == 0].any()
    # Three sides of 10 pixels each; the image's edge is no boundary. Two pixels are on two sides.
    assert edge[labels == 11].sum() == 36


def test_an_empty_channel_can_be_drawn(make_sdata, labels):
    sdata = make_sdata(np.zeros((1, 30, 40), np.uint8), labels)
    assert ns.pl.image(sdata, "DAPI").images[0].get_clim() == (0, 1)


def test_cells_have_the_colour_of_their_score(sdata, labels):
    ax = ns.pl.cells(sdata, "CD3", "a_cells")
    colours = drawn_rgba(ax)
    for cell, score in ((3, 0.25), (8, 1.0), (2**40, 0.5)):
        expected = plt.colormaps["viridis"](score)
        np.testing.assert_allclose(colours[labels == cell], np.broadcast_to(expected, (100, 4)))
    # Where there is no cell, the black behind it is seen.
    assert (colours[labels == 0][:, 3] == 0).all()
    assert ax.get_facecolor() == to_rgba("black")
    assert ax.get_title() == "CD3: scores"


def test_cells_without_a_score_or_a_row_are_pale(sdata, labels):
    ax = ns.pl.cells(sdata, "CD3", "a_cells")
    pale = ~np.ma.getmaskarray(ax.images[1].get_array())
    # 11 has no score, 5 has no row.
    np.testing.assert_array_equal(pale, np.isin(labels, [11, 5]))
    colour = drawn_rgba(ax, 1)[pale][0]
    assert colour[3] == 1 and colour[:3].min() > 0.8
    assert (drawn_rgba(ax, 0)[pale][:, 3] == 0).all()


def test_nothing_is_pale_where_all_have_a_score(sdata, labels):
    sdata["table"].layers["nimbus"][:] = 0.3
    ax = ns.pl.cells(sdata, "CD3", "a_cells", crop=(slice(0, 20), slice(0, 40)))
    # The cells and their borders.
    assert len(ax.images) == 2 and not np.ma.getmaskarray(ax.images[1].get_array())[0, 9]


def test_regions_with_the_same_ids_are_kept_apart(sdata, labels):
    colours = drawn_rgba(ns.pl.cells(sdata, "CD3", "b_cells"))
    np.testing.assert_allclose(
        colours[labels == 3], np.broadcast_to(plt.colormaps["viridis"](0.9), (100, 4)), atol=1e-2
    )


def test_layer_and_colours_can_be_chosen(sdata, labels):
    ax = ns.pl.cells(sdata, "CD3", "a_cells", layer="gold", cmap="magma")
    np.testing.assert_allclose(drawn_rgba(ax)[0, 15], plt.colormaps["magma"](1.0))
    assert ax.get_title() == "CD3: gold labels"


def test_the_table_may_call_its_columns_as_it_likes(sdata, labels):
    expected = drawn_rgba(ns.pl.cells(sdata, "CD3", "a_cells"))
    table = sdata["table"].copy()
    table.obs = table.obs.rename(columns={"region": "fov", "instance_id": "label"})
    table.uns["spatialdata_attrs"] = {"region": ["a_cells", "b_cells"], "region_key": "fov", "instance_key": "label"}
    sdata.tables["table"] = table
    np.testing.assert_array_equal(drawn_rgba(ns.pl.cells(sdata, "CD3", "a_cells")), expected)


def test_crop(sdata, labels):
    crop = (slice(5, 25), slice(8, 40))
    pixels = ns.pl.image(sdata, "CD3", "a_cells", crop=crop).images[0].get_array()
    np.testing.assert_array_equal(pixels, sdata["a"].sel(c="CD3").values[crop])
    whole, part = drawn_rgba(ns.pl.cells(sdata, "CD3", "a_cells")), ns.pl.cells(sdata, "CD3", "a_cells", crop=crop)
    np.testing.assert_array_equal(drawn_rgba(part), whole[crop])


def test_labels_may_be_left_out_where_there_is_one_element(sdata, make_sdata, labels):
    with pytest.raises(ValueError, match=r"Pass `labels_key`, one of \['a_cells', 'b_cells'\]"):
        ns.pl.image(sdata, "CD3")
    one = make_sdata(np.ones((1, 30, 40), np.uint8), labels)
    assert ns.pl.image(one, "DAPI").images


def test_an_image_can_be_named_where_two_lie_on_the_cells(make_sdata, labels):
    from spatialdata.transformations import Identity

    images = {"codex": np.ones((1, 30, 40), np.uint8), "stain": np.full((1, 30, 40), 7, np.uint8)}
    places = {key: {"global": Identity()} for key in ("codex", "stain", "cells")}
    sdata = make_sdata(images, {"cells": labels}, transformations=places)
    with pytest.raises(ValueError, match="image_key"):
        ns.pl.image(sdata, "DAPI")
    assert ns.pl.image(sdata, "DAPI", image_key="stain").images[0].get_array().max() == 7


@pytest.mark.parametrize("draw", [ns.pl.image, ns.pl.cells])
def test_an_unknown_channel_names_those_that_are_near(sdata, draw):
    with pytest.raises(KeyError, match=r"No channel 'CD33'.*Did you mean 'CD3'"):
        draw(sdata, "CD33", "a_cells")


def test_missing_table_layer_and_column_are_named(sdata):
    with pytest.raises(KeyError, match=r"no table 'tabel'; there are \['table'\]. Run `predict` first"):
        ns.pl.cells(sdata, "CD3", "a_cells", table_key="tabel")
    with pytest.raises(KeyError, match=r"no layer 'silver'; there are \['nimbus', 'gold'\]"):
        ns.pl.cells(sdata, "CD3", "a_cells", layer="silver")
    sdata.tables["table"] = sdata["table"][:, ["DAPI"]].copy()
    with pytest.raises(KeyError, match=r"no column \['CD3'\]; there are \['DAPI'\]"):
        ns.pl.cells(sdata, "CD3", "a_cells")


def test_labels_without_any_row_are_pale_throughout(sdata, labels):
    table = sdata["table"][sdata["table"].obs["region"] == "b_cells"].copy()
    table.uns["spatialdata_attrs"]["region"] = ["b_cells"]
    sdata.tables["table"] = table
    ax = ns.pl.cells(sdata, "CD3", "a_cells")
    np.testing.assert_array_equal(~np.ma.getmaskarray(ax.images[1].get_array()), labels > 0)


def test_an_unknown_pixel_size_is_no_matter_here(sdata, no_warning):
    ns.pl.image(sdata, "CD3", "a_cells")
    ns.pl.cells(sdata, "CD3", "a_cells")


def test_neighbours_of_the_same_score_are_kept_apart(sdata, labels):
    sdata["table"].layers["nimbus"][:] = 0.3
    drawn = ns.pl.cells(sdata, "CD3", "a_cells").images[-1].get_array()
    dark = ~np.ma.getmaskarray(drawn)
    # Between 3 and 8 and between 3 and 2**40, one pixel wide; none towards the background.
    expected = np.zeros(labels.shape, bool)
    expected[0:10, 9] = expected[9, 0:10] = True
    np.testing.assert_array_equal(dark, expected)


def test_intensities_reach_to_the_factor_or_else_the_quantile(sdata):
    table = sdata["table"]
    table.layers["integrated_expression"] = np.linspace(0, 90, 16, dtype=np.float32).reshape(8, 2)
    what = {"labels_key": "a_cells", "layer": "integrated_expression"}
    top = np.quantile(table.layers["integrated_expression"][:, 1], 0.999)
    ax = ns.pl.cells(sdata, "CD3", **what)
    assert ax.images[0].get_clim() == (0, pytest.approx(top))
    assert ax.figure.axes[1].get_ylabel() == "integrated expression, 0 to the 99.9 % quantile"
    table.varm["nimbus_normalization"] = pd.DataFrame({"factor": [0.0, 42.0]}, index=["DAPI", "CD3"])
    ax = ns.pl.cells(sdata, "CD3", **what)
    assert ax.images[0].get_clim() == (0, 42)
    assert ax.figure.axes[1].get_ylabel() == "integrated expression, 0 to the normalisation factor"


def test_intensities_below_one_are_still_no_scores(sdata):
    sdata["table"].layers["integrated_expression"] = np.full((8, 2), 0.25, np.float32)
    ax = ns.pl.cells(sdata, "CD3", "a_cells", layer="integrated_expression")
    assert ax.images[0].get_clim() == (0, 0.25)


def test_a_colour_bar_comes_with_a_new_figure_only(sdata):
    ax = ns.pl.cells(sdata, "CD3", "a_cells")
    assert [one.get_ylabel() for one in ax.figure.axes] == ["", "negative (0) to positive (1)"]
    figure, given = plt.subplots()
    ns.pl.cells(sdata, "CD3", "a_cells", ax=given)
    assert figure.axes == [given]
