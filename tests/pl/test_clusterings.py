"""Pictures of clusters: what is drawn is what the table says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

import nimbus_sd as ns
from nimbus_sd.pl._common import colors_of, distinct


@pytest.fixture
def four() -> AnnData:
    """Clusters "a" (2 cells), "b" (2), "c" (3) and "d" (1), and two cells without one; "a" and "c" are alike."""
    cd3 = [1, 0.8, 0, 0.2, 0.8, 0.8, 0.8, 0.1, 1, 0]
    cd20 = [0.9, 0.9, 0.1, np.nan, 0.8, 0.8, 0.8, 1, 0, 1]
    scores = np.array([cd3, cd20], np.float32).T
    obs = pd.DataFrame({"region": [*"xxxxxxyyxy"], "wide": [*"1122111222"]}, [f"c{i}" for i in range(10)])
    obs["cluster"] = pd.Categorical([*"aabbcccd", None, None], [*"abcd", "unused"])
    layers = {"nimbus": scores, "integrated_expression": 10 * scores}
    return AnnData(obs=obs, var=pd.DataFrame(index=["CD3", "CD20"]), layers=layers)


def ticks(ax, which="y") -> list[str]:
    return [tick.get_text() for tick in getattr(ax, f"get_{which}ticklabels")()]


def texts(artists) -> list[str]:
    return [text.get_text() for text in artists]


def test_matrix_holds_the_means_of_cells_that_are_scored(four):
    ax = ns.pl.score_matrix(four, "cluster", dendrogram=False)
    assert ticks(ax) == list("abcd") and ticks(ax, "x") == ["CD3", "CD20"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.9, 0.9], [0.1, 0.1], [0.8, 0.8], [0.1, 1]], rtol=1e-6)
    assert texts(text for here in ax.figure.axes for text in here.texts) == ["2", "2", "3", "1", "cells"]
    ax = ns.pl.score_matrix(four, "cluster", "integrated_expression", channels="CD20", dendrogram=False)
    np.testing.assert_allclose(ax.images[0].get_array()[:, 0], [8 / 9, 0, 7 / 9, 1], rtol=1e-6)
    four.layers["nimbus"][:, 1] = np.nan
    ax = ns.pl.score_matrix(four, "cluster")
    assert np.ma.getmaskarray(ax.images[0].get_array())[:, ticks(ax, "x").index("CD20")].all()
    with pytest.raises(ValueError, match="`channels` is empty"):
        ns.pl.score_matrix(four, "cluster", channels=[])


def test_like_clusters_lie_side_by_side(four, no_warning):
    ax = ns.pl.score_matrix(four, "cluster")
    order = ticks(ax)
    assert abs(order.index("a") - order.index("c")) == 1
    # The sizes follow the rows.
    numbers = texts(text for here in ax.figure.axes for text in here.texts)[:4]
    assert numbers == [{"a": "2", "b": "2", "c": "3", "d": "1"}[name] for name in order]
    # A tree of four has three joints, that of two markers is none. The first joint is between the rows of "a" and "c".
    (tree,) = [c for here in ax.figure.axes for c in here.collections if here is not ax and len(c.get_paths()) == 3]
    lowest = min(tree.get_paths(), key=lambda path: path.vertices[:, 0].max())
    bottom, top = tree.axes.get_ylim()
    rows = (lowest.vertices[:, 1] - top) / (bottom - top) * 4 - 0.5
    assert {order[round(rows.min())], order[round(rows.max())]} == {"a", "c"}
    # Clusters may be alike, in axes that are given.
    four.layers["nimbus"][:] = 0.5
    given = plt.subplots()[1]
    assert ns.pl.score_matrix(four, "cluster", ax=given) is given
    given.figure.canvas.draw()


def test_merging_shows_where_cells_went(four):
    left, flow, right = ns.pl.merging(four, "cluster", "wide")
    assert set(ticks(left)[:2]) in ({"a", "c"}, {"b", "d"}) and set(ticks(right)) == {"1", "2"}
    # Ribbons begin at their row and end in that of their metacluster.
    for patch, name in zip(flow.patches, ticks(left), strict=True):
        start, end = patch.get_path().vertices[[0, 3], 1]
        row = ticks(right).index("1" if name in "ac" else "2")
        assert int(start * 4) == ticks(left).index(name) and int(end * 2) == row
    # A cluster that was split has several.
    four.obs["split"] = [*"1222111222"]
    assert len(ns.pl.merging(four, "cluster", "split", ax=plt.subplots(1, 3)[1])[1].patches) == 5
    with pytest.raises(ValueError, match="three are needed"):
        ns.pl.merging(four, "cluster", "wide", ax=[left])


def test_two_clusterings_side_by_side(four):
    four.obs["other"] = [*"nnmmnnnm", "m", "m"]
    ax = ns.pl.compare_clusterings(four, "cluster", "other")
    # Of 28 pairs, 5 are together in the first and 13 in the second, 5 in both: (5 - 5 * 13 / 28) / (9 - 5 * 13 / 28).
    assert ax.get_title() == "adjusted Rand index 0.40"
    assert ticks(ax) == ["b", "d", "a", "c"] and ticks(ax, "x") == ["m", "n"]
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1, 0], [1, 0], [0, 1], [0, 1]])
    assert [text for text in texts(ax.texts) if text] == ["100"] * 4
    four.obs["rest"] = [None] * 8 + ["r"] * 2
    for draw in (ns.pl.compare_clusterings, ns.pl.merging):
        with pytest.raises(ValueError, match="No cell has a cluster in both"):
            draw(four, "cluster", "rest")


def test_silver_labels_have_signs_order_and_frames(annotate):
    kind = np.repeat(["T", "B", "other"], 20)
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (60, 3)) + 10 * np.stack([kind == "T", kind == "B", kind == "B"], axis=1)
    adata = annotate(range(1, 61), ["a"] * 60, ("CD3", "CD20", "CD8"), integrated_expression=values)
    adata.obs["cell_type"] = kind
    matrix = pd.DataFrame({"CD3": [1, 0, 0], "CD20": [0, 1, 0.5], "CD8": [1, 0, 0]}, ["T", "B", "other"])
    ns.labels.silver(adata, matrix)
    ax = ns.pl.check_silver(adata)
    rows, columns = ticks(ax), ticks(ax, "x")
    assert columns == ns.labels.check_silver(adata).index.to_list() and columns[0] == "CD8"
    places = [text.get_position() for text in ax.texts]
    signs = {(rows[y], columns[x]): text for (x, y), text in zip(places, texts(ax.texts), strict=True)}
    assert signs["T", "CD3"] == "+" and signs["B", "CD3"] == "\N{MINUS SIGN}" and signs["other", "CD20"] == "?"
    framed = {(rows[round(patch.get_y() + 0.5)], columns[round(patch.get_x() + 0.5)]) for patch in ax.patches}
    assert framed == {("B", "CD8"), ("T", "CD8")}
    adata.layers["silver"][:] = np.nan
    with pytest.raises(ValueError, match="labels no cell"):
        ns.pl.check_silver(adata)


def test_composition_is_the_share_of_each_region(four):
    ax = ns.pl.composition(four, "cluster")
    assert ticks(ax) == ["x", "y"]
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(-1, 2)
    np.testing.assert_allclose(widths, np.array([[2, 0], [2, 0], [2, 1], [0, 1], [1, 1]]) / [7, 3])
    assert texts(ax.get_legend().get_texts()) == [*"abcd", "no cluster"]
    assert texts(ax.texts) == ["7", "3"]
    given = plt.subplots()[1]
    assert ns.pl.composition(four, "wide", by="cluster", ax=given) is given and ticks(given) == list("abcd")
    four.obs["age"] = [60.5] * 10
    with pytest.raises(ValueError, match=r"obs\['age'\] holds numbers such as 60\.5"):
        ns.pl.composition(four, "wide", by="age")


def test_colours_are_those_of_scanpy(four):
    """Those that it keeps, else of its palettes; cells without a type are grey."""
    four.uns["cluster_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    assert colors_of(four, "cluster") == {"a": "#111111", "b": "#222222", "c": "#333333", "d": "#444444"}
    # Not those of another number of clusters.
    four.uns["cluster_colors"] = ["#111111"]
    bars = ns.pl.composition(four, "cluster").patches
    assert [to_hex(bar.get_facecolor()) for bar in bars[:8:2]] == distinct(4)
    four.obs["type"] = four.obs["cluster"].cat.rename_categories({"b": "ambiguous", "d": "unassigned"})
    colors = colors_of(four, "type")
    assert list(colors) == ["a", "ambiguous", "c", "unassigned"] and [colors["a"], colors["c"]] == distinct(2)
    assert all(len(set(distinct(n))) == n for n in (20, 50))


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
    squares, discs, *stars = [[path.vertices for path in c.get_paths()] for c in ax.collections[:4]]
    assert len(squares) == 6 and len(discs) == 5
    # Nodes 0, 1 and 4 have CD3; node 3 has no cell. Node i lies at (i // 2, i % 2).
    assert [wedge[-2].round().tolist() for wedge in stars[0]] == [[0, 0], [0, 1], [2, 0]]
    assert [wedge[-2].round().tolist() for wedge in stars[1]] == [[0, 1], [1, 0], [2, 1]]
    # On the same node, a quarter of the value is half of the length.
    assert np.ptp(stars[1][0][:, 0]) == pytest.approx(np.ptp(stars[0][1][:, 0]) / 2, rel=0.01)
    # Nine cells make a larger star than one.
    assert np.ptp(discs[2][:, 0]) > 1.3 * np.ptp(discs[1][:, 0])
    assert texts(ax.get_legend().get_texts()) == ["marker", "CD3", "CD20", "metacluster", "1", "2", "10"]
    (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[1, 1]]
    # Dark lines lie between metaclusters: nodes 0 | 2, 1 | 3 and 2 | 4, 3 | 5 | 4.
    sides = [c.get_segments() for c in ax.collections[4:]]
    assert [np.mean(segment, axis=0).tolist() for segment in sides[0]] == [[0.5, 0], [0.5, 1], [1.5, 0]]
    assert [np.mean(segment, axis=0).tolist() for segment in sides[1]] == [[2, 0.5]]
    adata = som()
    adata.obs["flowsom_nimbus"] = pd.Categorical(["1", "2", "10"], ["1", "2", "10"])
    adata.uns["flowsom_nimbus_colors"] = ["#111111", "#222222", "#333333"]
    behind = ns.pl.som_stars(adata).collections[0].get_facecolor()
    assert [to_hex(color)[1] for color in behind] == [*"112232"]
    # Codes of intensities are scaled, each marker from its lowest to its highest node.
    scaled = ns.pl.som_stars(som(codes=np.array([[100, 0], [100, 5], [0, 20], [0, 20], [50, 0], [0, 10]]))).collections
    for drawn, expected in zip(scaled[2:4], stars, strict=True):
        np.testing.assert_allclose([path.vertices for path in drawn.get_paths()], expected)


@pytest.mark.parametrize("engine", ["minisom", pytest.param("batch", marks=pytest.mark.slow)])
def test_nodes_are_drawn_where_the_map_was_fitted(engine):
    """Stars side by side are alike, as they are on the grid; in another order of the nodes they would not be."""
    adata = AnnData(obs=pd.DataFrame(index=np.arange(2000).astype(str)), var=pd.DataFrame(index=["CD3", "CD20"]))
    adata.layers["nimbus"] = np.random.default_rng(0).random((2000, 2), np.float32)
    ns.tl.flowsom(adata, xdim=9, ydim=3, engine=engine, n_metaclusters=4)
    squares = ns.pl.som_stars(adata).collections[0]
    codes = adata.uns["flowsom_nimbus"]["codes"]

    def between(x, y):
        """Mean distance of the codes of nodes that share a side."""
        beside = np.abs(x[:, None] - x) + np.abs(y[:, None] - y) == 1
        return np.linalg.norm(codes[:, None] - codes, axis=-1)[beside].mean()

    x, y = np.array([path.vertices[:4].mean(axis=0) for path in squares.get_paths()]).round().astype(int).T
    assert between(x, y) < 0.7 * between(np.arange(27) % 9, np.arange(27) // 9)


def test_the_number_of_metaclusters_and_what_does_about_as_well():
    numbers, silhouette = np.arange(2, 8), np.array([0.3, 0.45, 0.5, 0.49, 0.2, 0.481])
    suggestion = {"n_metaclusters": numbers, "silhouette": silhouette, "suggested": 4}
    ax = ns.pl.metacluster_suggestion(som(suggestion=suggestion))
    curve, point = ax.lines
    np.testing.assert_array_equal(curve.get_xydata(), np.stack([numbers, silhouette], axis=1))
    assert point.get_xydata().tolist() == [[4, 0.5]]
    assert sorted(patch.get_x() + 0.5 for patch in ax.patches) == [4, 5, 7]


def test_what_is_no_som_is_said():
    for draw, table, what, error, words in (
        (ns.pl.som_stars, som(), {"key": "other"}, KeyError, r"no uns\['other'\]; run `nimbus_sd.tl.flowsom`"),
        (ns.pl.som_stars, som(params={"xdim": 2, "ydim": 2}), {}, ValueError, "6 nodes, which is not xdim x ydim"),
        (ns.pl.som_stars, som(), {"channels": ["CD4"]}, KeyError, "no channel 'CD4'; there are"),
        (ns.pl.metacluster_suggestion, som(), {}, KeyError, "`n_metaclusters` was given"),
    ):
        with pytest.raises(error, match=words):
            draw(table, **what)
    adata = som()
    del adata.uns["flowsom_nimbus"]["counts"]
    with pytest.raises(KeyError, match=r"lacks \['counts'\]"):
        ns.pl.som_stars(adata)


@pytest.mark.parametrize("n_types", [2, 30])
def test_names_take_nothing_from_the_picture(sdata, n_types):
    """However many clusters there are and however long their names, pictures keep their size and nothing overlaps."""
    names = [f"a rather long name of a cell type {i}" for i in range(n_types)]
    many = som(metaclusters=names[:1] * 6, channels=names, codes=np.full((6, n_types), 0.5))
    many.obs["region"] = "a region of a long name"
    for table in (many, sdata["table"]):
        table.obs["type"] = pd.Categorical.from_codes(np.arange(table.n_obs) % n_types, names)
    for ax in (ns.pl.composition(many, "type"), ns.pl.som_stars(many), ns.pl.cells(sdata, "type", "a_cells")):
        ax.figure.canvas.draw()
        inches = ax.figure.dpi_scale_trans.inverted()
        place, legend = (thing.get_window_extent().transformed(inches) for thing in (ax, ax.get_legend()))
        assert place.width >= 3 and place.height >= 0.5
        width, height = ax.figure.get_size_inches()
        assert legend.x1 <= width + 0.01 and legend.y0 >= -0.01 and legend.y1 <= height + 0.01
        beside = [text.get_window_extent().transformed(inches).x1 for text in ax.texts]
        assert legend.x0 > max(beside, default=place.x1)
