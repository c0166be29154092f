"""Crops of cells: those about which score and mean disagree, and typical and doubtful ones of clusters."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from spatialdata.transformations import Identity, Scale

import nimbus_sd as ns


def in_a_row(make_sdata, annotate, clusters, means, scores, **layers):
    """Cells of 10 x 10 side by side, as bright as their means, cells x channels."""
    n, m = means.shape
    labels = np.zeros((40, 11 * n + 2), np.int64)
    for i in range(n):
        labels[15:25, 2 + 11 * i : 12 + 11 * i] = i + 1
    image = np.stack([np.append(0, channel)[labels] for channel in means.T]).astype(np.uint16)
    sdata = make_sdata({"a": image}, {"a_cells": labels}, ("CD3", "CD20"))
    table = annotate(range(1, n + 1), ["a_cells"] * n, ("CD3", "CD20")[:m], nimbus=np.float32(scores), **layers)
    table.obsm["spatial"] = np.array([[7.0 + 11 * i, 20.0] for i in range(n)])
    table.obs["cluster"] = list(clusters)
    sdata.tables["table"] = table
    return sdata


@pytest.fixture
def uneven(make_sdata, annotate):
    """Eight cells in a row: two plainly positive, one dim positive, four negative, one of them bright."""
    means = np.array([[100, 90, 30, 10, 12, 8, 11, 95]], np.float32).T
    scores = np.array([[0.9, 0.95, 0.8, 0.1, 0.1, 0.1, np.nan, 0.2]]).T
    return in_a_row(make_sdata, annotate, "t" * 8, means, scores, integrated_expression=means)


def titles(axes) -> list[str]:
    return [ax.get_title() for ax in axes]


@pytest.mark.parametrize(
    ("kind", "first", "mean"), [("dim", "0.80", (30 - 11) / 79), ("bright", "0.20", (95 - 11) / 79)]
)
def test_only_cells_that_disagree_are_shown(uneven, kind, first, mean):
    # The medians of called negatives (10, 12, 8, 95) and positives (100, 90, 30) are 11 and 90.
    expected = [f"CD3: score {first}\nrelative mean {mean:.2f}"]
    assert titles(ns.pl.disagreement(uneven, kind, width=20)) == expected
    layers = uneven["table"].layers
    layers["integrated_expression"] = sparse.csr_matrix(layers["integrated_expression"])
    assert titles(ns.pl.disagreement(uneven, kind, width=20)) == expected


def test_the_most_extreme_cell_comes_first(uneven):
    uneven["table"].layers["integrated_expression"][4] = 80
    axes = ns.pl.disagreement(uneven, "bright", width=20)
    # The median negative is (10 + 80) / 2 now.
    assert [text.split()[-1] for text in titles(axes)] == [f"{(95 - 45) / 45:.2f}", f"{(80 - 45) / 45:.2f}"]
    assert titles(ns.pl.disagreement(uneven, "bright", n_cells=1, width=20)) == titles(axes)[:1]
    uneven["table"].layers["nimbus"][7] = 0.497
    # Not shown as 0.50, which would be called positive.
    assert titles(ns.pl.disagreement(uneven, "bright"))[0].startswith("CD3: score 0.497\n")
    # As many cells as there are axes, and as many axes as there are cells.
    for n in (1, 3):
        axes = plt.subplots(1, n, squeeze=False)[1].ravel()
        drawn = ns.pl.disagreement(uneven, "bright", width=10, ax=axes)
        assert len(drawn) == min(n, 2) and all(a is b for a, b in zip(drawn, axes, strict=False))
        assert [ax.get_visible() for ax in axes] == [i < 2 for i in range(n)]


def test_slivers_are_left_out(uneven):
    # A third of the median is kept.
    uneven["table"].obs["area"] = [90.0, 90, 90, 90, 90, 90, 90, 30]
    assert len(ns.pl.disagreement(uneven, "bright")) == 1
    uneven["table"].obs.loc["cell7", "area"] = 29.9
    with pytest.raises(ValueError, match=r"No cell called negative for CD3 has a relative mean above 0.5: nothing"):
        ns.pl.disagreement(uneven, "bright")


def outline(ax) -> np.ndarray:
    """Vertices of the cell's outline."""
    (drawn,) = [c for c in ax.collections if c.get_paths()]
    return drawn.get_paths()[0].vertices


def test_cells_are_found_where_the_labels_are_finer_than_the_image(uneven, make_sdata):
    table = uneven["table"]
    # Far apart, so that a crop around the wrong place does not hold the cell.
    image = np.kron(uneven["a"].values, np.ones((1, 2, 2)))
    fine = np.kron(uneven["a_cells"].values, np.ones((4, 4), int))
    table.obsm["spatial"] = table.obsm["spatial"] * 2
    places = {"a": {"a": Identity()}, "a_cells": {"a": Scale([0.5, 0.5], axes=("y", "x"))}}
    sdata = make_sdata({"a": image}, {"a_cells": fine}, ("CD3",), transformations=places)
    sdata.tables["table"] = table
    (crop,) = ns.pl.disagreement(sdata, "bright", width=60)
    # The eighth cell, 40 pixels wide, is the only one that is as bright as this.
    assert (np.asarray(crop.images[0].get_array()) == 95).sum() == 40 * 40
    assert (np.ptp(outline(crop).round().astype(int), axis=0) >= 39).all()


def test_the_table_may_call_its_columns_as_it_likes(uneven):
    (crop,) = ns.pl.disagreement(uneven, "bright", width=20)
    # At the image's edge crops are as large.
    assert crop.images[0].get_array().shape == (20, 20)
    table = uneven["table"].copy()
    table.obs = table.obs.rename(columns={"region": "fov", "instance_id": "label"}).astype({"label": str})
    table.uns["spatialdata_attrs"] |= {"region_key": "fov", "instance_key": "label"}
    uneven.tables["table"] = table
    (again,) = ns.pl.disagreement(uneven, "bright", width=20)
    np.testing.assert_array_equal(outline(again), outline(crop))


def test_what_is_not_there_is_named(uneven):
    for what, error, words in (
        ({"kind": "wrong"}, ValueError, "'dim' or 'bright'"),
        ({"channels": ["CD4"]}, KeyError, r"no channel 'CD4'; there are \['CD3'\]"),
        ({"n_cells": 0}, ValueError, "`n_cells`"),
    ):
        with pytest.raises(error, match=words):
            ns.pl.disagreement(uneven, **what)
    table = uneven["table"]
    table.obsm["spatial"] = table.obsm["spatial"] * 0.1
    with pytest.raises(ValueError, match=r"Cell 8 of 'a_cells' is not around its place"):
        ns.pl.disagreement(uneven, "bright", width=20)
    table.layers["nimbus"][:] = 0.1
    with pytest.raises(ValueError, match="None of CD3"):
        ns.pl.disagreement(uneven)
    del table.obsm["spatial"]
    with pytest.raises(KeyError, match=r"no obsm\['spatial'\]"):
        ns.pl.disagreement(uneven)


@pytest.fixture
def row(make_sdata, annotate):
    """Nine cells in a row; the third "t" cell scores like "b", and the ninth is a sliver."""
    scores = np.array([[9, 8, 2, 9, 1, 1, 3, 1, 10], [1, 1, 6, 2, 9, 8, 7, 9, 0]]).T / 10
    sdata = in_a_row(make_sdata, annotate, "ttttbbbbt", 100 * scores, scores)
    sdata["table"].obs["area"] = [90.0] * 8 + [10]
    return sdata


def outlined(ax) -> int:
    """Which of the cells in the row has the outline, where the crop begins at the image's left edge."""
    return round((outline(ax)[:, 0].mean() - 6.5) / 11) + 1


def test_gallery_shows_typical_and_doubtful_cells(row):
    axes = ns.pl.cluster_gallery(row, "cluster", n_cells=2, width=100)
    assert axes.shape == (2, 4)
    # Means are (0.76, 0.2) of "t", with the sliver, and (0.15, 0.825) of "b".
    b, t = axes
    assert [outlined(ax) for ax in t] == [2, 4, 3, 4] and [outlined(ax) for ax in b[:3]] == [6, 5, 7]
    assert t[2].get_title() == "or b?" and b[2].get_title() == "or t?" and t[0].get_title() == ""
    assert [text.get_text() for text in t[0].texts] == ["t", "CD3"]
    only = ns.pl.cluster_gallery(row, "cluster", "b", n_cells=5, width=100, channels=["CD3", "CD20"])
    # Fewer cells than places: empty axes.
    assert only.shape == (1, 10) and [len(ax.images) for ax in only[0]] == [1] * 4 + [0] + [1] * 4 + [0]
    # A single cluster has no doubtful cells.
    row["table"].obs["one"] = "x"
    (axes,) = ns.pl.cluster_gallery(row, "one", n_cells=2, width=100)
    assert [len(ax.images) for ax in axes] == [1, 1, 0, 0]


CD3 = {"channels": np.array(["CD3"])}


@pytest.mark.parametrize(
    "uns",
    [
        {"cluster": {"tool": "leiden", "params": CD3}},
        {"cluster": {"tool": "flowsom", "params": {}, **CD3}},
        {"cluster": {"tool": "metaclusters.apply", "params": {"groupby": "x"}}, "x": {"tool": "leiden", "params": CD3}},
    ],
    ids=["leiden", "flowsom", "merged"],
)
def test_gallery_judges_by_the_channels_that_clusters_are_of(row, uns):
    """The second "t" cell is the nearest to their mean of CD3, 0.728, but far from that of CD20."""
    table = row["table"]
    table.layers["nimbus"][:2] = [[0.8, 0.1], [0.74, 0.9]]

    def typical() -> int:
        return outlined(ns.pl.cluster_gallery(row, "cluster", "t", n_cells=1, width=100)[0, 0])

    assert typical() == 4
    table.uns.update(uns)
    assert typical() == 2
    # A cell needs no score elsewhere.
    table.layers["nimbus"][1, 1] = np.nan
    assert typical() == 2


def test_gallery_takes_typical_cells_that_the_edge_cuts_last(row):
    labels = row["a_cells"]
    cut = np.array(labels.data)
    cut[:15][:, 13:23] = 2
    labels.data = cut
    axes = ns.pl.cluster_gallery(row, "cluster", "t", n_cells=4, width=40)
    # The second cell, else the first, reaches up to the edge.
    assert [np.ptp(outline(ax)[:, 1]) > 15 for ax in axes[0, :4]] == [False, False, False, True]


def test_gallery_is_as_bright_as_what_is_shown(row):
    """Without a factor, with one far above what is there, and one below, which clips; the first colour is magenta."""
    magenta = np.array([1, 0.15, 0.75])
    for factor, top in ((None, 90), (1000.0, 90), (45.0, 45)):
        if factor:
            frame = pd.DataFrame({"factor": [factor] * 2}, index=["CD3", "CD20"])
            row["table"].varm["nimbus_normalization"] = frame
        (axes,) = ns.pl.cluster_gallery(row, "cluster", "t", n_cells=1, width=100, channels=["CD20"])
        pixels = np.asarray(axes[0].images[0].get_array())
        np.testing.assert_allclose(pixels[20, 7 + 11 * 4], magenta, atol=0.01)
        np.testing.assert_allclose(pixels[20, 7], magenta * 10 / top, atol=0.01)


def test_gallery_says_what_is_wrong(row):
    for what, error, words in (
        ({"clusters": "z"}, KeyError, "no cluster 'z'"),
        ({"n_cells": 0}, ValueError, "`n_cells` is 0"),
        ({"width": 0.5}, ValueError, "`width` is 0.5"),
        ({"channels": ["CD3"] * 4}, ValueError, "one to three"),
    ):
        with pytest.raises(error, match=words):
            ns.pl.cluster_gallery(row, "cluster", **what)
    row["table"].layers["nimbus"][:, 0] = [np.nan] * 8 + [0.5]
    with pytest.raises(ValueError, match=r"No cell .* has a score in every channel"):
        ns.pl.cluster_gallery(row, "cluster", "b")
