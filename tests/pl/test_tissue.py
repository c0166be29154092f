"""Pictures of tissue: what is drawn, checked on the drawn arrays."""

import tracemalloc

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, TableModel
from spatialdata.transformations import Identity

import nimbus_sd as ns
from nimbus_sd.pl._common import distinct

NO_CLUSTER = "#d9d9d9"
NO_CROPS = ((0, 100), slice(0, 10), (slice(0, 10),), None)


def drawn_rgba(ax: Axes, layer: int = 0) -> np.ndarray:
    """Colours of an image that was drawn, (h, w, 4)."""
    picture = ax.images[layer]
    return picture.to_rgba(picture.get_array())


def drawn_hex(ax: Axes, where: np.ndarray) -> set[str]:
    """Colours of some pixels; transparent ones are ""."""
    return {to_hex(color) if color[3] else "" for color in np.unique(drawn_rgba(ax)[where], axis=0)}


@pytest.mark.parametrize(
    ("draw", "what"), [(ns.pl.image, "CD3"), (ns.pl.cells, "CD3"), (ns.pl.cells, "cluster"), (ns.pl.comparison, "CD3")]
)
def test_axes_are_drawn_on_and_data_left_as_they_were(sdata, assert_same, draw, what, no_warning):
    before = sdata["table"].copy()
    shape = np.shape(draw(sdata, what, "a_cells"))
    figure, axes = plt.subplots(2, 4)
    given = axes[1].reshape(shape) if shape else axes[1, 0]
    drawn = np.ravel(draw(sdata, what, "a_cells", ax=given))
    assert all(a is b and a.images for a, b in zip(drawn, np.ravel(given), strict=True))
    # A colour bar comes with a new figure only.
    assert len(figure.axes) == 8 and len(plt.get_fignums()) == 2
    figure.canvas.draw()
    assert_same(sdata["table"], before)


def test_image_is_as_bright_as_the_factor_or_else_the_quantile(sdata, make_sdata, labels):
    pixels = sdata["a"].sel(c="CD3").values
    assert ns.pl.image(sdata, "CD3", "a_cells").images[0].get_clim() == (0, pytest.approx(np.quantile(pixels, 0.999)))
    factors = pd.DataFrame({"factor": [0.0, 42.0]}, index=["DAPI", "CD3"])
    sdata["table"].varm["nimbus_normalization"] = factors
    assert ns.pl.image(sdata, "CD3", "a_cells").images[0].get_clim() == (0, 42)
    # A factor of 0 is that of an empty channel.
    assert ns.pl.image(sdata, "DAPI", "a_cells").images[0].get_clim()[1] > 50
    empty = make_sdata(np.zeros((1, 30, 40), np.uint8), labels)
    assert ns.pl.image(empty, "DAPI").images[0].get_clim() == (0, 1)


def test_image_outlines_cells_inside_their_boundary(sdata, labels):
    edge = ~np.ma.getmaskarray(ns.pl.image(sdata, "CD3", "a_cells").images[1].get_array())
    assert edge[0, 9] and edge[5, 9] and edge[5, 10] and not edge[5, 5]
    assert not edge[labels == 0].any()
    # Three sides of 10 pixels each; the image's edge is no boundary. Two pixels are on two sides.
    assert edge[labels == 11].sum() == 36


def test_cells_have_the_colour_of_their_value(sdata, labels):
    ax = ns.pl.cells(sdata, "CD3", "a_cells")
    colours = drawn_rgba(ax)
    for cell, score in ((3, 0.25), (8, 1.0), (2**40, 0.5)):
        expected = plt.colormaps["viridis"](score)
        np.testing.assert_allclose(colours[labels == cell], np.broadcast_to(expected, (100, 4)))
    # Where there is no cell, the black behind it is seen.
    assert drawn_hex(ax, labels == 0) == {""} and ax.get_facecolor() == to_rgba("black")
    # Regions with the same ids are kept apart.
    other = drawn_rgba(ns.pl.cells(sdata, "CD3", "b_cells"))
    np.testing.assert_allclose(other[5, 5], plt.colormaps["viridis"](0.9), atol=1e-2)
    ax = ns.pl.cells(sdata, "CD3", "a_cells", layer="gold", cmap="magma")
    np.testing.assert_allclose(drawn_rgba(ax)[0, 15], plt.colormaps["magma"](1.0))


def test_cells_without_a_score_or_a_row_are_pale(sdata, labels):
    # 11 has no score, 5 has no row.
    pale = np.isin(labels, [11, 5])
    ax = ns.pl.cells(sdata, "CD3", "a_cells")
    (colour,) = drawn_hex(ax, pale)
    assert min(to_rgba(colour)[:3]) > 0.8 and colour not in drawn_hex(ax, ~pale)
    # Values below 0 are no missing ones.
    sdata["table"].layers["nimbus"][:, 1] -= 10
    assert colour not in drawn_hex(ns.pl.cells(sdata, "CD3", "a_cells"), ~pale)
    table = sdata["table"][sdata["table"].obs["region"] == "b_cells"].copy()
    table.uns["spatialdata_attrs"]["region"] = ["b_cells"]
    sdata.tables["table"] = table
    assert drawn_hex(ns.pl.cells(sdata, "CD3", "a_cells"), labels > 0) == {colour}


def test_neighbours_of_the_same_score_are_kept_apart(sdata, labels):
    dark = ~np.ma.getmaskarray(ns.pl.cells(sdata, "CD3", "a_cells").images[-1].get_array())
    # Between 3 and 8 and between 3 and 2**40, one pixel wide; none towards the background.
    expected = np.zeros(labels.shape, bool)
    expected[0:10, 9] = expected[9, 0:10] = True
    np.testing.assert_array_equal(dark, expected)


def test_intensities_reach_to_the_factor_or_else_the_quantile(sdata):
    table = sdata["table"]
    what = {"labels_key": "a_cells", "layer": "integrated_expression"}
    # Below 1 they are no scores either.
    for values in (np.linspace(0, 90, 16, dtype=np.float32).reshape(8, 2), np.full((8, 2), 0.25, np.float32)):
        table.layers["integrated_expression"] = values
        ax = ns.pl.cells(sdata, "CD3", **what)
        assert ax.images[0].get_clim() == (0, pytest.approx(np.quantile(values[:, 1], 0.999)))
    table.varm["nimbus_normalization"] = pd.DataFrame({"factor": [0.0, 42.0]}, index=["DAPI", "CD3"])
    ax = ns.pl.cells(sdata, "CD3", **what)
    assert ax.images[0].get_clim() == (0, 42)
    assert ax.figure.axes[1].get_ylabel() == "integrated expression, 0 to the normalisation factor"


def test_cells_have_the_colours_of_their_clusters(sdata, labels):
    ax = ns.pl.cells(sdata, "cluster", "a_cells")
    first, second = distinct(2)
    # 11 is without a cluster, 5 without a row.
    for cell, color in ((3, first), (8, first), (2**40, second), (11, NO_CLUSTER), (5, NO_CLUSTER), (0, "")):
        assert drawn_hex(ax, labels == cell) == {color}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["p", "q", "no cluster"]
    ax = ns.pl.cells(sdata, "cluster", "a_cells", groups="q")
    assert drawn_hex(ax, labels == 3) == {NO_CLUSTER} and drawn_hex(ax, labels == 2**40) == {second}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["q", "other cells"]
    sdata["table"].uns["cluster_colors"] = ["#111111", "#222222"]
    assert drawn_hex(ns.pl.cells(sdata, "cluster", "a_cells"), labels == 3) == {"#111111"}
    # Of a name that is both, `groups` says which.
    sdata["table"].obs["CD3"] = sdata["table"].obs["cluster"]
    assert ns.pl.cells(sdata, "CD3", "a_cells").get_title() == "CD3: scores"
    assert drawn_hex(ns.pl.cells(sdata, "CD3", "a_cells", groups=["p", "q"]), labels == 2**40) == {second}


def test_crop(sdata):
    crop = (slice(5, 25), slice(8, 40))
    pixels = ns.pl.image(sdata, "CD3", "a_cells", crop=crop).images[0].get_array()
    np.testing.assert_array_equal(pixels, sdata["a"].sel(c="CD3").values[crop])
    whole, part = (drawn_rgba(ns.pl.cells(sdata, "CD3", "a_cells", **what)) for what in ({}, {"crop": crop}))
    np.testing.assert_array_equal(part, whole[crop])
    axes = ns.pl.comparison(sdata, ["CD3"], "a_cells", crop=crop)
    assert {ax.images[0].get_array().shape for ax in axes.flat} == {(20, 32)}


def test_elements_may_be_left_out_where_there_is_one(sdata, make_sdata, labels):
    with pytest.raises(ValueError, match=r"Pass `labels_key`, one of \['a_cells', 'b_cells'\]"):
        ns.pl.image(sdata, "CD3")
    images = {"codex": np.ones((1, 30, 40), np.uint8), "stain": np.full((1, 30, 40), 7, np.uint8)}
    places = {key: {"global": Identity()} for key in ("codex", "stain", "cells")}
    two = make_sdata(images, {"cells": labels}, transformations=places)
    with pytest.raises(ValueError, match="image_key"):
        ns.pl.image(two, "DAPI")
    assert ns.pl.image(two, "DAPI", image_key="stain").images[0].get_array().max() == 7


@pytest.mark.parametrize(
    ("draw", "what", "error", "words"),
    [
        (ns.pl.image, {"channel": "CD33"}, KeyError, "No channel 'CD33'.*Did you mean 'CD3'"),
        (ns.pl.cells, {"color": "CD33"}, KeyError, "No channel or column of obs 'CD33'.*Did you mean 'CD3'"),
        (ns.pl.cells, {"color": "cluster", "groups": ["z"]}, KeyError, "no cluster 'z'; there are"),
        (ns.pl.cells, {"color": "CD3", "table_key": "tabel"}, KeyError, r"no table 'tabel'; there are \['table'\]"),
        (ns.pl.cells, {"color": "CD3", "layer": "silver"}, KeyError, r"no layer 'silver'; .*\['gold', 'nimbus'\]"),
        (ns.pl.cells, {"color": "CD3", "crop": (slice(0, 9, 2),) * 2}, ValueError, "without steps"),
        *((ns.pl.image, {"channel": "CD3", "crop": crop}, ValueError, "must be two slices") for crop in NO_CROPS),
        (ns.pl.comparison, {"channels": []}, ValueError, "`channels` is empty"),
        (ns.pl.comparison, {"channels": "CD3", "ax": np.empty((2, 3))}, ValueError, r"\(2, 3\); \(1, 4\) is needed"),
    ],
)
def test_what_is_wrong_is_said(sdata, draw, what, error, words):
    with pytest.raises(error, match=words):
        draw(sdata, labels_key="a_cells", **what)
    assert not plt.get_fignums()
    with pytest.raises(TypeError, match="SpatialData, and was given AnnData"):
        ns.pl.cells(sdata["table"], "cluster", "a_cells")


def test_comparison_has_one_row_per_channel(sdata):
    axes = ns.pl.comparison(sdata, ["CD3", "DAPI"], "a_cells")
    assert [ax.get_title() for ax in axes[0]] == ["image", "mask", "scores", "gold labels"]
    assert [row[0].get_ylabel() for row in axes] == ["CD3", "DAPI"]
    for row in axes:
        # The mask is the image with outlines.
        assert [len(ax.images) for ax in row[:2]] == [1, 2]
        np.testing.assert_array_equal(row[0].images[0].get_array(), row[1].images[0].get_array())
    np.testing.assert_array_equal(axes[1, 0].images[0].get_array(), sdata["a"].sel(c="DAPI"))
    # Of the usual layers those that exist, or those that are named.
    del sdata["table"].layers["gold"]
    assert [ax.get_title() for ax in ns.pl.comparison(sdata, "CD3", "a_cells")[0]] == ["image", "mask", "scores"]
    sdata["table"].layers["integrated_expression"] = np.full((8, 2), 50, np.float32)
    axes = ns.pl.comparison(sdata, ["CD3"], "a_cells", layers=["nimbus", "integrated_expression"])
    scores, expression = axes[0, 0].figure.axes[-1].get_ylabel().splitlines()
    assert scores.startswith("scores: negative (0)") and expression.startswith("integrated expression: 0 to the 99.9 %")


@pytest.fixture(scope="module")
def slide() -> SpatialData:
    """Square cells of 20 pixels on 8000 x 8000, read block by block, and their table."""

    def block(block_info=None):
        (top, bottom), (left, right) = block_info[None]["array-location"]
        return (np.arange(top, bottom)[:, None] // 20 * 400 + np.arange(left, right) // 20 + 1).astype(np.uint32)

    labels = da.map_blocks(block, chunks=((1000,) * 8,) * 2, dtype=np.uint32)
    table = AnnData(
        obs=pd.DataFrame({"region": pd.Categorical(["cells"] * 400**2), "instance_id": np.arange(1, 400**2 + 1)}),
        var=pd.DataFrame(index=["CD3"]),
        layers={"nimbus": np.linspace(0, 1, 400**2, dtype=np.float32)[:, None]},
    )
    table.obs["cluster"] = pd.Categorical((np.arange(400**2) % 7).astype(str))
    image = da.zeros((1, 8000, 8000), chunks=(1, 1000, 1000), dtype=np.uint8)
    return SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["CD3"])},
        labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"))},
        tables={"table": TableModel.parse(table, region="cells", region_key="region", instance_key="instance_id")},
    )


def test_large_crops_are_drawn_at_every_kth_pixel(slide):
    crop = (slice(7, 5990), slice(1000, 3505))
    ax = ns.pl.cells(slide, "cluster", crop=crop)
    full = slide["cells"].data[crop].compute()
    every = full[::3, ::3]
    assert max(every.shape) <= 2500
    np.testing.assert_array_equal(ax.images[0].get_array(), (every - 1) % 7)
    # Borders are those of the full image, one pixel wide.
    towards = np.zeros(full.shape, bool)
    towards[:, :-1] = full[:, :-1] != full[:, 1:]
    towards[:-1] |= full[:-1] != full[1:]
    np.testing.assert_array_equal(~np.ma.getmaskarray(ax.images[1].get_array()), towards[::3, ::3])
    # Places are still in pixels of the crop.
    for picture in ax.images:
        assert picture.get_extent() == [-0.5, 3 * every.shape[1] - 0.5, 3 * every.shape[0] - 0.5, -0.5]
    # A small crop has all of its pixels.
    assert ns.pl.cells(slide, "CD3", crop=(slice(0, 2500), slice(0, 900))).images[0].get_array().shape[0] == 2500


def test_memory_of_a_slide_is_bounded(slide):
    tracemalloc.start()
    try:
        ns.pl.cells(slide, "cluster").figure.canvas.draw()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Less than its labels alone, in 64 bit, would take.
    assert peak < 8 * 8000**2
