"""Pictures of clusters: what is drawn is what the table says."""

import tracemalloc

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex, to_rgba
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, TableModel

import nimbus_sd as ns
from nimbus_sd.pl._clusters import NO_CLUSTER, colors_of, distinct


@pytest.fixture
def four() -> AnnData:
    """Clusters "a" (2 cells), "b" (2), "c" (3) and "d" (1), and two cells without one; "a" and "c" are alike."""
    scores = [
        [1, 0.9],
        [0.8, 0.9],
        [0, 0.1],
        [0.2, np.nan],
        [0.8, 0.8],
        [0.8, 0.8],
        [0.8, 0.8],
        [0.1, 1],
        [1, 0],
        [0, 1],
    ]
    return AnnData(
        obs=pd.DataFrame(
            {
                "cluster": pd.Categorical([*"aabbcccd", None, None], [*"abcd", "unused"]),
                "region": pd.Categorical([*"xxxxxxyy", "x", "y"]),
                "wide": ["1"] * 2 + ["2"] * 2 + ["1"] * 3 + ["2"] * 3,
            },
            index=[f"c{i}" for i in range(10)],
        ),
        var=pd.DataFrame(index=["CD3", "CD20"]),
        layers={"nimbus": np.array(scores, np.float32), "integrated_expression": 10 * np.array(scores, np.float32)},
    )


def ticks(ax, which="y") -> list[str]:
    return [tick.get_text() for tick in getattr(ax, f"get_{which}ticklabels")()]


def test_matrix_holds_the_means_of_cells_that_are_scored(four):
    ax = ns.pl.score_matrix(four, "cluster", dendrogram=False)
    assert ticks(ax) == list("abcd") and ticks(ax, "x") == ["CD3", "CD20"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.9, 0.9], [0.1, 0.1], [0.8, 0.8], [0.1, 1]], rtol=1e-6)
    numbers = [text.get_text() for here in ax.figure.axes for text in here.texts]
    assert numbers == ["2", "2", "3", "1", "cells"]


def test_like_clusters_lie_side_by_side(four):
    ax = ns.pl.score_matrix(four, "cluster")
    order = ticks(ax)
    assert abs(order.index("a") - order.index("c")) == 1
    # The sizes follow the rows.
    numbers = [text.get_text() for here in ax.figure.axes for text in here.texts][:4]
    assert numbers == [{"a": "2", "b": "2", "c": "3", "d": "1"}[name] for name in order]
    # A tree of four has three joints, that of two markers is none.
    (tree,) = [c for here in ax.figure.axes for c in here.collections if here is not ax and len(c.get_paths()) == 3]
    assert len(tree.get_paths()) == 3


def test_intensities_are_scaled_for_each_marker(four):
    ax = ns.pl.score_matrix(four, "cluster", "integrated_expression", channels=["CD20"], dendrogram=False)
    np.testing.assert_allclose(ax.images[0].get_array()[:, 0], [8 / 9, 0, 7 / 9, 1], rtol=1e-6)
    assert [here.get_title() for here in ax.figure.axes[-1].child_axes] == [
        "integrated expression,\nlowest to highest cluster"
    ]


def test_matrix_in_given_axes_and_of_one_cluster(four):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    four.obs["one"] = "x"
    assert ns.pl.score_matrix(four, "one", ax=ax) is ax and ax.figure is figure
    figure.canvas.draw()


def test_a_marker_without_scores_is_left_blank(four):
    four.layers["nimbus"][:, 1] = np.nan
    ax = ns.pl.score_matrix(four, "cluster")
    assert np.ma.getmaskarray(ax.images[0].get_array())[:, ticks(ax, "x").index("CD20")].all()


def test_one_channel_may_be_named_alone(four):
    assert ticks(ns.pl.score_matrix(four, "cluster", channels="CD20"), "x") == ["CD20"]
    assert ticks(ns.pl.merging(four, "cluster", "wide", channels="CD20")[0], "x") == ["CD20"]
    legend = ns.pl.som_stars(som(), channels="CD20").get_legend().get_texts()
    assert [text.get_text() for text in legend][:3] == ["marker", "CD20", "metacluster"]


def test_composition_is_the_share_of_each_region(four):
    ax = ns.pl.composition(four, "cluster")
    assert ticks(ax) == ["x", "y"]
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(-1, 2)
    np.testing.assert_allclose(widths, np.array([[2, 0], [2, 0], [2, 1], [0, 1], [1, 1]]) / [7, 3])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*"abcd", "no cluster"]
    assert [text.get_text() for text in ax.texts] == ["7", "3"]
    ax = ns.pl.composition(four, "wide", by="cluster")
    assert ticks(ax) == list("abcd")
    four.obs["age"] = [60.5] * 10
    with pytest.raises(ValueError, match=r"obs\['age'\] holds numbers such as 60\.5"):
        ns.pl.composition(four, "wide", by="age")


def test_colours_are_those_of_scanpy_where_there_are_some(four):
    four.uns["cluster_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    bars = ns.pl.composition(four, "cluster").patches
    assert [to_hex(bars[i].get_facecolor()) for i in (0, 2, 4, 6)] == ["#111111", "#222222", "#333333", "#444444"]
    # Not those of another number of clusters.
    four.uns["cluster_colors"] = ["#111111"]
    assert to_hex(ns.pl.composition(four, "cluster").patches[0].get_facecolor()) == distinct(4)[0]


def test_cells_without_a_type_are_grey_unless_a_colour_is_given(four):
    four.obs["type"] = four.obs["cluster"].cat.rename_categories({"b": "ambiguous", "d": "unassigned"})
    colors = colors_of(four, "type")
    assert list(colors) == ["a", "ambiguous", "c", "unassigned"]
    assert [colors["a"], colors["c"]] == distinct(2)
    for name in ("ambiguous", "unassigned"):
        red, green, blue = to_rgba(colors[name])[:3]
        assert red == green == blue and colors[name] != NO_CLUSTER
    assert colors["ambiguous"] != colors["unassigned"]
    four.uns["type_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    assert colors_of(four, "type")["unassigned"] == "#444444"


def test_many_colours_can_be_told_apart():
    from skimage.color import rgb2lab

    colors = distinct(30)
    assert len(set(colors)) == 30 and colors[:8] == distinct(8)
    lab = rgb2lab(np.array([to_rgba(color)[:3] for color in colors]))
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(30)
    # About 2.3 can just be seen.
    assert distance.min() > 15


def test_two_clusterings_side_by_side(four):
    four.obs["other"] = [*"nnmmnnnm", "m", "m"]
    ax = ns.pl.compare_clusterings(four, "cluster", "other")
    # Of 28 pairs, 5 are together in the first and 13 in the second, 5 in both: (5 - 5 * 13 / 28) / (9 - 5 * 13 / 28).
    assert ax.get_title() == "adjusted Rand index 0.40"
    assert ticks(ax) == ["b", "d", "a", "c"] and ticks(ax, "x") == ["m", "n"]
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1, 0], [1, 0], [0, 1], [0, 1]])
    assert ns.pl.compare_clusterings(four, "wide", "wide").get_title().endswith("1.00")
    four.obs["rest"] = [None] * 8 + ["r"] * 2
    with pytest.raises(ValueError, match="No cell has a cluster in both"):
        ns.pl.compare_clusterings(four, "cluster", "rest")


def test_merging_shows_where_cells_went(four):
    axes = ns.pl.merging(four, "cluster", "wide")
    left, flow, right = axes
    assert set(ticks(left)[:2]) in ({"a", "c"}, {"b", "d"}) and set(ticks(right)) == {"1", "2"}
    assert len(flow.patches) == 4
    assert [left.get_title(), right.get_title()] == ["cluster: 4", "wide: 2"]
    # Ribbons begin at their row and end in that of their metacluster.
    for patch, name in zip(flow.patches, ticks(left), strict=True):
        start, end = patch.get_path().vertices[[0, 3], 1]
        row = ticks(right).index("1" if name in "ac" else "2")
        assert int(start * 4) == ticks(left).index(name) and int(end * 2) == row
    # A cluster that was split has several.
    four.obs["split"] = ["1", "2", "2", "2", "1", "1", "1", "2", "2", "2"]
    assert len(ns.pl.merging(four, "cluster", "split")[1].patches) == 5
    with pytest.raises(ValueError, match="three are needed"):
        ns.pl.merging(four, "cluster", "wide", ax=[left])


def som(**changes) -> AnnData:
    adata = AnnData(obs=pd.DataFrame(index=["x", "y", "z"]))
    adata.uns["flowsom_nimbus"] = {
        "codes": np.array([[1, 0], [1, 0.25], [0, 1], [0, 1], [0.5, 0], [0, 0.5]]),
        "counts": np.array([4, 1, 9, 0, 1, 1]),
        "channels": np.array(["CD3", "CD20"]),
        "metaclusters": np.array(["1", "1", "2", "2", "10", "2"]),
        "params": {"xdim": 3, "ydim": 2},
    } | changes
    return adata


def test_stars_lie_on_the_grid_and_show_codes():
    ax = ns.pl.som_stars(som())
    squares, discs, *stars = [[path.vertices for path in one.get_paths()] for one in ax.collections[:4]]
    assert len(squares) == 6 and len(discs) == 5
    # Nodes 0, 1 and 4 have CD3; node 3 has no cell. Node i lies at (i // 2, i % 2).
    assert [one[-2].round().tolist() for one in stars[0]] == [[0, 0], [0, 1], [2, 0]]
    assert [one[-2].round().tolist() for one in stars[1]] == [[0, 1], [1, 0], [2, 1]]
    # On the same node, a quarter of the value is half of the length.
    assert np.ptp(stars[1][0][:, 0]) == pytest.approx(np.ptp(stars[0][1][:, 0]) / 2, rel=0.01)
    # Nine cells make a larger star than one.
    assert np.ptp(discs[2][:, 0]) > 1.3 * np.ptp(discs[1][:, 0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        *("marker", "CD3", "CD20"),
        *("metacluster", "1", "2", "10"),
    ]
    (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[1, 1]]


@pytest.mark.parametrize("engine", ["minisom", "online", pytest.param("batch", marks=pytest.mark.slow)])
def test_nodes_are_drawn_where_the_map_was_fitted(engine):
    """Stars side by side are alike, as they are on the grid; in another order of the nodes they would not be."""
    xdim, ydim = 9, 3
    values = np.random.default_rng(0).random((2000, 2), np.float32)
    adata = AnnData(obs=pd.DataFrame(index=np.arange(2000).astype(str)), var=pd.DataFrame(index=["CD3", "CD20"]))
    adata.layers["nimbus"] = values
    ns.tl.flowsom(adata, xdim=xdim, ydim=ydim, engine=engine, n_metaclusters=4)
    ax = ns.pl.som_stars(adata)
    squares, _, *stars = ax.collections[:4]
    centres = np.array([path.vertices[:4].mean(axis=0) for path in squares.get_paths()])
    codes = adata.uns["flowsom_nimbus"]["codes"]

    def between(x, y):
        """Mean distance of the codes of nodes that share a side."""
        beside = np.abs(x[:, None] - x) + np.abs(y[:, None] - y) == 1
        return np.linalg.norm(codes[:, None] - codes, axis=-1)[beside].mean()

    drawn = between(*centres.round().astype(int).T)
    node = np.arange(xdim * ydim)
    assert drawn < 0.7 * between(node % xdim, node // xdim)
    # Their stars are theirs: areas of wedges as the codes say, the largest star as reference.
    counts = adata.uns["flowsom_nimbus"]["counts"]
    for channel, wedges in enumerate(stars):
        at = np.array([path.vertices[-2].round() for path in wedges.get_paths()])
        np.testing.assert_array_equal(at, centres[(counts > 0) & (codes[:, channel] > 0)].round())
        length = np.array([np.ptp(path.vertices[:, 0]) for path in wedges.get_paths()])
        size = 0.27 + 0.2 * np.sqrt(counts / counts.max())
        np.testing.assert_allclose(length, size * np.sqrt(codes[:, channel]), rtol=0.02)
    # Each node's square has the colour of its metacluster.
    colors = pd.Series([to_hex(color) for color in squares.get_facecolor()])
    assert (colors.groupby(adata.uns["flowsom_nimbus"]["metaclusters"]).nunique() == 1).all()
    assert colors.nunique() == 4


def test_metaclusters_have_the_colours_of_their_column():
    adata = som()
    adata.obs["flowsom_nimbus"] = pd.Categorical(["1", "2", "10"], ["1", "2", "10"])
    adata.uns["flowsom_nimbus_colors"] = ["#111111", "#222222", "#333333"]
    squares = ns.pl.som_stars(adata).collections[0].get_facecolor()
    assert [to_hex(color) for color in squares] == ["#111111", "#111111", "#222222", "#222222", "#333333", "#222222"]


def test_what_is_no_som_is_said():
    with pytest.raises(KeyError, match=r"no uns\['other'\]; run `nimbus_sd.tl.flowsom`"):
        ns.pl.som_stars(som(), "other")
    adata = som()
    del adata.uns["flowsom_nimbus"]["codes"]
    with pytest.raises(KeyError, match=r"lacks \['codes'\]"):
        ns.pl.som_stars(adata)
    with pytest.raises(ValueError, match="6 nodes, which is not xdim x ydim = 2 x 2"):
        ns.pl.som_stars(som(params={"xdim": 2, "ydim": 2}))
    with pytest.raises(KeyError, match="no channel 'CD4'; it has"):
        ns.pl.som_stars(som(), channels=["CD4"])


@pytest.fixture
def clustered(sdata):
    """Cells 3 and 8 of both fields of view are "p", 2**40 is "q", 11 is in none."""
    table = sdata["table"]
    of = {3: "p", 8: "p", 2**40: "q", 11: None}
    table.obs["cluster"] = pd.Categorical([of[i] for i in table.obs["instance_id"]])
    return sdata


def test_cells_have_the_colours_of_their_clusters(clustered, labels):
    ax = ns.pl.clusters(clustered, "cluster", "a_cells")
    shown = np.asarray(ax.images[0].get_array()) / 255
    first, second = (to_rgba(color) for color in distinct(2))
    assert np.allclose(shown[labels == 3], first) and np.allclose(shown[labels == 8], first)
    assert np.allclose(shown[labels == 2**40], second)
    # Without a cluster, and without a row.
    for cell in (11, 5):
        assert np.allclose(shown[labels == cell], to_rgba("#d9d9d9"))
    assert (shown[labels == 0, 3] == 0).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["p", "q", "no cluster"]


def test_chosen_clusters_stand_out(clustered, labels):
    import matplotlib.pyplot as plt

    ax = ns.pl.clusters(clustered, "cluster", "a_cells", groups="q")
    shown = np.asarray(ax.images[0].get_array()) / 255
    assert np.allclose(shown[labels == 3], to_rgba("#d9d9d9"))
    assert np.allclose(shown[labels == 2**40], to_rgba(distinct(2)[1]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["q", "other cells"]
    crop = (slice(0, 10), slice(0, 20))
    here = plt.subplots()[1]
    assert ns.pl.clusters(clustered, "cluster", "b_cells", crop=crop, ax=here) is here and here.get_legend() is None
    with pytest.raises(KeyError, match="no cluster 'z'; it has"):
        ns.pl.clusters(clustered, "cluster", "a_cells", groups=["z"])
    with pytest.raises(KeyError, match="no column 'leiden'"):
        ns.pl.clusters(clustered, "leiden", "a_cells")
    with pytest.raises(TypeError, match="needs the tissue, a SpatialData, and was given AnnData"):
        ns.pl.clusters(clustered["table"], "cluster", "a_cells")


def grid_of_cells(side: int):
    """A slide of square cells of 20 pixels, read block by block, and its table."""
    across = side // 20

    def block(block_info=None):
        (top, bottom), (left, right) = block_info[None]["array-location"]
        return (np.arange(top, bottom)[:, None] // 20 * across + np.arange(left, right) // 20 + 1).astype(np.uint32)

    labels = da.map_blocks(block, chunks=(((1000,) * (side // 1000)),) * 2, dtype=np.uint32)
    table = AnnData(
        obs=pd.DataFrame(
            {
                "region": pd.Categorical(["cells"] * across**2),
                "instance_id": np.arange(1, across**2 + 1),
                "cluster": pd.Categorical((np.arange(across**2) % 7).astype(str)),
            },
            index=np.arange(across**2).astype(str),
        ),
        var=pd.DataFrame(index=["CD3"]),
        layers={"nimbus": np.linspace(0, 1, across**2, dtype=np.float32)[:, None]},
    )
    image = da.zeros((1, side, side), chunks=(1, 1000, 1000), dtype=np.uint8)
    return SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["CD3"])},
        labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"))},
        tables={"table": TableModel.parse(table, region="cells", region_key="region", instance_key="instance_id")},
    )


def test_large_crops_are_drawn_at_every_kth_pixel():
    slide = grid_of_cells(6000)
    crop = (slice(7, 5990), slice(1000, 3505))
    ax = ns.pl.clusters(slide, "cluster", crop=crop)
    shown, borders = (one.get_array() for one in ax.images)
    full = slide["cells"].data[crop].compute()
    every = full[::3, ::3]
    assert shown.shape == (*every.shape, 4) and max(every.shape) <= 2500
    colors = np.rint(255 * np.array([to_rgba(color) for color in distinct(7)]))
    np.testing.assert_array_equal(shown, colors[(every - 1) % 7])
    # Borders are those of the full image, one pixel wide.
    towards = np.zeros(full.shape, bool)
    towards[:, :-1] = full[:, :-1] != full[:, 1:]
    towards[:-1] |= full[:-1] != full[1:]
    np.testing.assert_array_equal(~np.ma.getmaskarray(borders), towards[::3, ::3])
    # Places are still in pixels of the crop.
    for one in ax.images:
        assert one.get_extent() == [-0.5, 3 * every.shape[1] - 0.5, 3 * every.shape[0] - 0.5, -0.5]
    ax = ns.pl.cells(slide, "CD3", crop=crop)
    np.testing.assert_allclose(ax.images[0].get_array(), (every - 1) / (300**2 - 1), atol=1e-6)
    # A small crop has all of its pixels.
    assert ns.pl.clusters(slide, "cluster", crop=(slice(0, 2500), slice(0, 900))).images[0].get_array().shape[0] == 2500


def test_memory_of_a_slide_is_bounded():
    slide = grid_of_cells(8000)
    tracemalloc.start()
    try:
        ns.pl.clusters(slide, "cluster").figure.canvas.draw()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Less than its labels alone, in 64 bit, would take.
    assert peak < 8 * 8000**2


@pytest.mark.parametrize("n_types", [2, 30])
def test_names_take_nothing_from_the_picture(four, clustered, n_types):
    """However many clusters there are and however long their names, pictures keep their size and nothing overlaps."""
    names = [f"a rather long name of a cell type {i}" for i in range(n_types)]
    many = AnnData(obs=pd.DataFrame({"type": pd.Categorical.from_codes(np.arange(90) % n_types, names)}))
    many.obs["region"] = "a region of a long name"
    many.uns["som"] = som().uns["flowsom_nimbus"] | {
        "metaclusters": names[:1] * 6,
        "channels": names,
        "codes": np.full((6, n_types), 0.5),
    }
    clustered["table"].obs["type"] = pd.Categorical.from_codes([0, 1] * 4, names)
    for ax, least in (
        (ns.pl.composition(many, "type"), (3, 0.5)),
        (ns.pl.som_stars(many, "som"), (3, 2)),
        (ns.pl.clusters(clustered, "type", "a_cells"), (4, 3)),
    ):
        figure = ax.figure
        figure.canvas.draw()
        inches = figure.dpi_scale_trans.inverted()
        place = ax.get_window_extent().transformed(inches)
        assert place.width >= least[0] and place.height >= least[1]
        legend = ax.get_legend().get_window_extent().transformed(inches)
        width, height = figure.get_size_inches()
        assert legend.x1 <= width + 0.01 and legend.y0 >= -0.01 and legend.y1 <= height + 0.01
        beside = [text.get_window_extent().transformed(inches).x1 for text in ax.texts]
        assert legend.x0 > max(beside, default=place.x1)


@pytest.mark.parametrize("crop", [(0, 100), slice(0, 10), (slice(0, 10),), None])
def test_crops_are_two_slices(clustered, crop):
    for drawn, what in ((ns.pl.clusters, "cluster"), (ns.pl.cells, "CD3"), (ns.pl.image, "CD3")):
        with pytest.raises(ValueError, match=r"`crop` is .*; it must be two slices, of rows and of columns, as"):
            drawn(clustered, what, "a_cells", crop=crop)


@pytest.fixture
def row(make_sdata, annotate):
    """Nine cells in a row, 10 x 10; the third "t" cell scores like "b", and the ninth is a sliver."""
    labels = np.zeros((40, 100), np.int64)
    for i in range(9):
        labels[15:25, 2 + 11 * i : 12 + 11 * i] = i + 1
    scores = np.array(
        [[0.9, 0.1], [0.8, 0.1], [0.2, 0.6], [0.9, 0.2], [0.1, 0.9], [0.1, 0.8], [0.3, 0.7], [0.1, 0.9], [1, 0]],
        np.float32,
    )
    image = np.stack([np.append(0, scores[:, i] * 100)[labels] for i in (0, 1)]).astype(np.uint16)
    sdata = make_sdata({"x": image}, {"x_cells": labels}, ("CD3", "CD20"))
    table = annotate(range(1, 10), ["x_cells"] * 9, ("CD3", "CD20"), nimbus=scores)
    table.obsm["spatial"] = np.array([[7.0 + 11 * i, 20.0] for i in range(9)])
    table.obs["cluster"] = list("ttttbbbbt")
    table.obs["area"] = [90.0] * 8 + [10]
    sdata.tables["table"] = table
    return sdata


def outlined(ax) -> int:
    """Which of the cells in the row has the outline, where the crop begins at the image's left edge."""
    (outline,) = [one for one in ax.collections if one.get_paths()]
    return round((outline.get_paths()[0].vertices[:, 0].mean() - 6.5) / 11) + 1


def test_gallery_shows_typical_and_doubtful_cells(row):
    axes = ns.pl.cluster_gallery(row, "cluster", n_cells=2, width=100)
    assert axes.shape == (2, 4)
    # Means are (0.76, 0.2) of "t", with the sliver, and (0.15, 0.825) of "b".
    b, t = axes
    assert [outlined(ax) for ax in t] == [2, 4, 3, 4] and [outlined(ax) for ax in b[:3]] == [6, 5, 7]
    assert t[2].get_title() == "or b?" and b[2].get_title() == "or t?" and t[0].get_title() == ""
    assert [text.get_text() for text in t[0].texts if text.get_text() != "typical"] == ["t", "CD3"]
    assert 9 not in {outlined(ax) for ax in t}
    only = ns.pl.cluster_gallery(row, "cluster", "b", n_cells=5, width=100, channels=["CD3", "CD20"])
    # Fewer cells than places: empty axes.
    assert only.shape == (1, 10) and [len(ax.images) for ax in only[0]] == [1] * 4 + [0] + [1] * 4 + [0]


@pytest.mark.parametrize(
    "uns",
    [
        {"cluster": {"tool": "leiden", "params": {"channels": np.array(["CD3"])}}},
        {"cluster": {"tool": "flowsom", "params": {}, "channels": np.array(["CD3"])}},
        {
            "cluster": {"tool": "metaclusters.apply", "params": {"groupby": "finer"}},
            "finer": {"tool": "leiden", "params": {"channels": np.array(["CD3"])}},
        },
    ],
)
def test_gallery_judges_by_the_channels_that_clusters_are_of(row, uns):
    """The second "t" cell is the nearest to their mean of CD3, 0.728, but far from that of CD20."""
    table = row["table"]
    table.layers["nimbus"][0, 0], table.layers["nimbus"][1, 0] = 0.8, 0.74
    table.layers["nimbus"][0, 1], table.layers["nimbus"][1, 1] = 0.1, 0.9
    assert outlined(ns.pl.cluster_gallery(row, "cluster", "t", n_cells=1, width=100)[0, 0]) == 4
    table.uns.update(uns)
    assert outlined(ns.pl.cluster_gallery(row, "cluster", "t", n_cells=1, width=100)[0, 0]) == 2
    # A cell needs no score elsewhere.
    table.layers["nimbus"][1, 1] = np.nan
    assert outlined(ns.pl.cluster_gallery(row, "cluster", "t", n_cells=1, width=100)[0, 0]) == 2


def test_gallery_takes_typical_cells_that_the_edge_cuts_last(row):
    labels = row["x_cells"]
    cut = np.array(labels.data)
    cut[:15][:, 13:23] = 2
    labels.data = cut
    axes = ns.pl.cluster_gallery(row, "cluster", "t", n_cells=4, width=40)
    outer = [
        np.ptp(next(c for c in ax.collections if c.get_paths()).get_paths()[0].vertices[:, 1]) for ax in axes[0, :4]
    ]
    # The second cell, else the first, reaches up to the edge.
    assert [high > 15 for high in outer] == [False, False, False, True]


def test_gallery_is_as_bright_as_what_is_shown(row):
    """With a factor far above what is there; one below clips."""
    for factor, dim in ((1000.0, 10 / 90), (45.0, 10 / 45)):
        frame = pd.DataFrame({"factor": [factor] * 2}, index=["CD3", "CD20"])
        row["table"].varm["nimbus_normalization"] = frame
        (axes,) = ns.pl.cluster_gallery(row, "cluster", "t", n_cells=1, width=100, channels=["CD20"])
        pixels = np.asarray(axes[0].images[0].get_array())
        np.testing.assert_allclose(pixels[20, 7 + 11 * 4], np.array([1, 0.15, 0.75]), atol=0.01)
        np.testing.assert_allclose(pixels[20, 7], np.array([1, 0.15, 0.75]) * dim, atol=0.01)


def test_gallery_mixes_the_markers_colours(row):
    (axes,) = ns.pl.cluster_gallery(row, "cluster", "t", n_cells=1, width=100, channels=["CD20"])
    pixels = np.asarray(axes[0].images[0].get_array())
    # The brightest, 90, is the 99.9 % quantile; the first colour is magenta.
    np.testing.assert_allclose(pixels[20, 7 + 11 * 4], np.array([1, 0.15, 0.75]), atol=0.01)
    np.testing.assert_allclose(pixels[20, 7], np.array([1, 0.15, 0.75]) * 10 / 90, atol=0.01)


def test_gallery_of_a_single_cluster_doubts_nobody(row):
    row["table"].obs["one"] = "x"
    (axes,) = ns.pl.cluster_gallery(row, "one", n_cells=2, width=100)
    assert [len(ax.images) for ax in axes] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ({"clusters": "z"}, KeyError, "no cluster 'z'"),
        ({"n_cells": 0}, ValueError, "`n_cells` is 0"),
        ({"n_cells": "2"}, ValueError, "`n_cells` is '2'; it must be a whole number, 1 or more"),
        ({"width": 0.5}, ValueError, "`width` is 0.5"),
        ({"channels": ["CD4"]}, KeyError, r"no column \['CD4'\]"),
        ({"channels": ["CD3"] * 4}, ValueError, "one to three"),
        ({"layer": "other"}, KeyError, "no layer 'other'"),
    ],
)
def test_gallery_says_what_is_wrong(row, what, error, words):
    with pytest.raises(error, match=words):
        ns.pl.cluster_gallery(row, "cluster", **what)


def test_gallery_needs_to_know_where_cells_are(row):
    del row["table"].obsm["spatial"]
    with pytest.raises(KeyError, match=r"no obsm\['spatial'\]"):
        ns.pl.cluster_gallery(row, "cluster")
