"""Crops of cells about which score and mean disagree."""

import numpy as np
import pytest

import nimbus_sd as ns


@pytest.fixture
def uneven(make_sdata, annotate):
    """Eight cells in a row: two plainly positive, one dim positive, four negative, one of them bright."""
    labels = np.zeros((40, 90), np.int64)
    for i in range(8):
        labels[15:25, 2 + 11 * i : 12 + 11 * i] = i + 1
    means = np.array([100, 90, 30, 10, 12, 8, 11, 95], np.float32)
    image = np.concatenate([[0], means])[labels].astype(np.uint16)[None]
    sdata = make_sdata({"a": image}, {"a_cells": labels}, ("CD3",))
    scores = np.array([0.9, 0.95, 0.8, 0.1, 0.1, 0.1, np.nan, 0.2], np.float32)[:, None]
    table = annotate(range(1, 9), ["a_cells"] * 8, ("CD3",), nimbus=scores, integrated_expression=means[:, None])
    table.obsm["spatial"] = np.array([[7.0 + 11 * i, 20.0] for i in range(8)])
    sdata.tables["table"] = table
    return sdata


@pytest.mark.parametrize(("kind", "first", "mean"), [("dim", "0.80", "0.25"), ("bright", "0.20", "1.06")])
def test_the_most_extreme_cell_comes_first(uneven, kind, first, mean):
    # The medians of called negatives (10, 12, 8, 95) and positives (100, 90, 30) are 11 and 90.
    axes = ns.pl.disagreement(uneven, kind, n_cells=2, width=20)
    assert len(axes) == 2
    expected = {"dim": (30 - 11) / 79, "bright": (95 - 11) / 79}[kind]
    assert axes[0].get_title() == f"CD3: score {first}, mean {expected:.2f}"


def test_crops_stay_in_the_image_and_show_the_cell(uneven):
    for here in ns.pl.disagreement(uneven, "bright", n_cells=4, width=20):
        assert here.images[0].get_array().shape == (20, 20)
        (outline,) = [c for c in here.collections if c.get_paths()]
        assert outline.get_paths()[0].vertices.size


def test_it_draws_on_given_axes(uneven):
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 3)
    drawn = ns.pl.disagreement(uneven, "dim", n_cells=3, width=10, ax=axes)
    assert all(a is b for a, b in zip(drawn, axes, strict=True))


def test_what_is_not_there_is_named(uneven):
    with pytest.raises(ValueError, match="'dim' or 'bright'"):
        ns.pl.disagreement(uneven, "wrong")
    with pytest.raises(KeyError, match=r"no column \['CD4'\]; there are \['CD3'\]"):
        ns.pl.disagreement(uneven, channels=["CD4"])
    with pytest.raises(KeyError, match="no layer 'other'"):
        ns.pl.disagreement(uneven, layer="other")
    uneven.tables["table"].layers["nimbus"][:] = 0.1
    with pytest.raises(ValueError, match="None of CD3"):
        ns.pl.disagreement(uneven)
