"""Image, mask, scores and truth side by side."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import nimbus_sd as ns


def test_one_row_per_channel(sdata):
    axes = ns.pl.comparison(sdata, ["CD3", "DAPI"], "a_cells")
    assert axes.shape == (2, 4)
    assert [ax.get_title() for ax in axes[0]] == ["image", "mask", "scores", "gold labels"]
    assert not any(ax.get_title() for ax in axes[1])
    assert [row[0].get_ylabel() for row in axes] == ["CD3", "DAPI"]
    for row in axes:
        # The mask is the image with outlines.
        assert [len(ax.images) for ax in row[:2]] == [1, 2]
        np.testing.assert_array_equal(row[0].images[0].get_array(), row[1].images[0].get_array())
        assert all(ax.images for ax in row)
    np.testing.assert_array_equal(axes[1, 0].images[0].get_array(), sdata["a"].sel(c="DAPI"))
    # The colour bar is an Axes more.
    assert len(axes[0, 0].figure.axes) == 9
    axes[0, 0].figure.canvas.draw()


def test_of_the_usual_layers_those_that_exist_are_shown(sdata):
    del sdata["table"].layers["gold"]
    axes = ns.pl.comparison(sdata, ["CD3"], "a_cells")
    assert [ax.get_title() for ax in axes[0]] == ["image", "mask", "scores"]
    sdata["table"].layers["mine"] = sdata["table"].layers["nimbus"]
    axes = ns.pl.comparison(sdata, ["CD3"], "a_cells", layers=["mine"])
    assert [ax.get_title() for ax in axes[0]] == ["image", "mask", "mine"]


def test_given_axes_are_drawn_on(sdata):
    figure, given = plt.subplots(2, 4)
    axes = ns.pl.comparison(sdata, ["CD3", "DAPI"], "a_cells", ax=given)
    assert axes.shape == (2, 4) and all(a is b for a, b in zip(axes.flat, given.flat, strict=True))
    assert all(ax.images for ax in given.flat)
    assert len(figure.axes) == 8 and plt.get_fignums() == [figure.number]
    # One channel needs no second dimension.
    _, row = plt.subplots(1, 4)
    assert ns.pl.comparison(sdata, ["CD3"], "a_cells", ax=row).shape == (1, 4)


def test_axes_of_another_shape_are_an_error(sdata):
    _, given = plt.subplots(2, 3)
    with pytest.raises(ValueError, match=r"shape \(2, 3\); \(2, 4\) is needed"):
        ns.pl.comparison(sdata, ["CD3", "DAPI"], "a_cells", ax=given)


def test_a_single_channel_may_be_a_plain_name(sdata):
    assert ns.pl.comparison(sdata, "CD3", "a_cells").shape == (1, 4)


def test_crop_holds_for_all(sdata):
    axes = ns.pl.comparison(sdata, ["CD3"], "a_cells", crop=(slice(0, 20), slice(5, 30)))
    assert {ax.images[0].get_array().shape for ax in axes.flat} == {(20, 25)}


def test_missing_table_and_channel_are_named(sdata):
    with pytest.raises(KeyError, match=r"no table 'cells'; there are \['table'\]"):
        ns.pl.comparison(sdata, ["CD3"], "a_cells", table_key="cells")
    with pytest.raises(KeyError, match="No channel 'CD4'"):
        ns.pl.comparison(sdata, ["CD4"], "a_cells")


def test_a_layer_that_is_asked_for_must_exist(sdata):
    with pytest.raises(KeyError, match=r"no layer \['silver', 'mine'\]; there are \['nimbus', 'gold'\]"):
        ns.pl.comparison(sdata, ["CD3"], "a_cells", layers=["nimbus", "silver", "mine"])


def test_the_colour_bar_says_what_the_colours_mean(sdata):
    axes = ns.pl.comparison(sdata, ["CD3"], "a_cells")
    assert axes[0, 0].figure.axes[-1].get_ylabel() == "negative (0) to positive (1)"
    sdata["table"].layers["integrated_expression"] = np.full((8, 2), 50, np.float32)
    axes = ns.pl.comparison(sdata, ["CD3"], "a_cells", layers=["nimbus", "gold", "integrated_expression"])
    assert axes[0, 0].figure.axes[-1].get_ylabel().splitlines() == [
        "scores, gold labels: negative (0) to positive (1)",
        "integrated expression: 0 to the 99.9 % quantile (1)",
    ]


def test_no_channel_is_an_error(sdata):
    with pytest.raises(ValueError, match="`channels` is empty"):
        ns.pl.comparison(sdata, [], "a_cells")
