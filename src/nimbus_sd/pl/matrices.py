"""Matrices: clusters by markers, before and after merging, with silver labels, and clusters by clusters."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.image import AxesImage
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from mpl_toolkits.axes_grid1 import make_axes_locatable
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram as draw_tree
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.metrics import adjusted_rand_score

from nimbus_sd import keys
from nimbus_sd._table import clusters_of
from nimbus_sd._table import layer as read_layer
from nimbus_sd.labels import check_silver as check_labels
from nimbus_sd.pl._common import COLORS, GREY, brightness, channel_names, cluster_means, colors_of, holds_scores, title

# Inches: a row or column, all of many rows, trees, bars with numbers, and ribbons.
_CELL, _TALL = 0.27, 14.0
_TREE, _BARS, _FLOW = 0.55, 0.85, 1.3
# Of a cluster's cells; fewer have no ribbon and no number.
_NOTABLE = 0.01
# Labels of a type's cells, and what stands for them.
_SIGNS = {1.0: "+", 0.0: "\N{MINUS SIGN}", 0.5: "?"}


def score_matrix(
    adata: AnnData,
    groupby: str,
    layer: str = keys.NIMBUS,
    *,
    channels: str | Sequence[str] | None = None,
    dendrogram: bool = True,
    cmap: str = "viridis",
    ax: Axes | None = None,
) -> Axes:
    """Show the mean score of each marker in each cluster, like clusters and like markers side by side.

    Parameters
    ----------
    {adata}
    {groupby}
    {scaled_layer}
    {channels}
    dendrogram
        Order clusters and markers by hierarchical clustering (average linkage of the means) and draw the trees. False
        keeps the order of the categories and of ``channels``.
    {cmap}
    ax
        Where to draw the matrix, with trees and bars beside it; a new figure by default.

    Returns
    -------
    Axes
        The matrix, its rows named as clusters; to the right the clusters' tree and their numbers of cells.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.score_matrix(adata, "cell_type", "gold")
    >>> [tick.get_text() for tick in ax.get_xticklabels()][:2]
    ['DAPI', 'CD45']
    """
    values, meaning = _scaled_means(adata, groupby, layer, channels)
    size = clusters_of(adata, groupby).value_counts().to_numpy()
    rows, columns = (_tree(side) if dendrogram else None for side in (values, values.T))
    order = _leaves(rows, len(values))
    values, size = values.iloc[order, _leaves(columns, values.shape[1])], size[order]
    ax = ax or _new_axes(values, _TREE + _BARS + 0.3, _TREE + 0.3)
    drawn = _draw_matrix(ax, values, cmap)
    # All of this is cut from the matrix's own place, in inches, so that layouts need not know of it.
    place = make_axes_locatable(ax)
    beside, bars = (place.append_axes("right", inches, pad=0.04) for inches in (_TREE, _BARS))
    above = place.append_axes("top", _TREE, pad=0.04)
    corner = ax.figure.add_axes((0, 0, 1, 1), label="scale")
    corner.set_axes_locator(place.new_locator(nx=2, nx1=-1, ny=2))
    for here, tree, side in ((beside, rows, "right"), (above, columns, "top")):
        if tree is not None:
            draw_tree(tree, ax=here, orientation=side, color_threshold=0, above_threshold_color=GREY, no_labels=True)
            plt.setp(here.collections, linewidth=0.9)
    beside.invert_yaxis()
    numbers = bars.barh(range(len(size)), size, color="#9fb6c9", height=0.75)
    text = {"fontsize": min(7, _font_size(len(size))), "color": "#333333"}
    bars.bar_label(numbers, [f"{n:,}" for n in size], padding=2, **text)
    bars.text(0, len(size) - 0.3, "cells", va="top", fontsize="x-small", color="#333333")
    bars.set(xlim=(0, 1.5 * size.max()), ylim=(len(size) - 0.5, -0.5))
    for here in (beside, above, bars, corner):
        here.axis("off")
    scale = corner.inset_axes((0.04, 0.3, 0.8, 0.16))
    ax.figure.colorbar(drawn, cax=scale, orientation="horizontal", ticks=[0, 0.5, 1])
    scale.tick_params(labelsize="x-small", length=2, pad=1)
    scale.set_title(meaning, fontsize="x-small", pad=3)
    return ax


def merging(
    adata: AnnData,
    before: str,
    after: str,
    layer: str = keys.NIMBUS,
    *,
    channels: str | Sequence[str] | None = None,
    cmap: str = "viridis",
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show which clusters became which metacluster, and their markers, before on the left and after on the right.

    Parameters
    ----------
    {adata}
    before, after
        Columns of ``obs``: clusters, and what they were merged into (or split, or named).
    {scaled_layer}
    {channels}
    {cmap}
    ax
        Three axes side by side; a new figure by default.

    Returns
    -------
    Array of three Axes: the matrix before, ribbons, the matrix after. Ribbons lead from each row to where its cells
    are, their width there says how many, in the colour of the metacluster; below 1 % of a cluster there is none.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.obs["lineage"] = adata.obs["cell_type"].replace({"CD4 T cell": "T cell", "CD8 T cell": "T cell"})
    >>> axes = ns.pl.merging(adata, "cell_type", "lineage", "gold")
    """
    counts = pd.crosstab(*_in_both(adata, before, after), dropna=False)
    (left, _), (right, meaning) = (_scaled_means(adata, key, layer, channels) for key in (before, after))
    alike, columns, down = (_leaves(_tree(side), len(side)) for side in (left, left.T, right))
    # Rows on the left follow the metacluster that most of their cells are in, like by like within it.
    order = np.lexsort((np.argsort(alike), np.argsort(down)[counts.to_numpy().argmax(axis=1)]))
    left, right, counts = left.iloc[order, columns], right.iloc[down, columns], counts.iloc[order, down]
    axes = np.ravel(np.asarray(ax))
    if ax is None:
        wide = _extent(left.shape[1])
        below, *beside = (_inches(names) for names in (left.columns, left.index, right.index))
        size = (2 * wide + _FLOW + sum(beside) + 1.1, max(_extent(len(left)), 2.0) + below + 0.5)
        grid = {"width_ratios": [wide, _FLOW, wide], "wspace": 0.01}
        axes = plt.subplots(1, 3, figsize=size, gridspec_kw=grid, layout="constrained")[1]
        label = {"label": meaning, "ticks": [0, 0.5, 1]}
        axes[0].figure.colorbar(ScalarMappable(cmap=cmap), ax=axes[2], shrink=0.5, aspect=14, **label)
    if len(axes) != 3:
        raise ValueError(f"`ax` has {len(axes)} axes; three are needed: before, ribbons, after.")
    for here, key, values in ((axes[0], before, left), (axes[2], after, right)):
        _draw_matrix(here, values, cmap)
        here.set_title(f"{title(key)}: {len(values)}", fontsize="medium")
    axes[2].yaxis.tick_right()
    axes[2].tick_params(length=0)
    colors = colors_of(adata, after)
    _draw_ribbons(axes[1], counts.to_numpy(), [colors[name] for name in right.index])
    return axes


def check_silver(
    adata: AnnData,
    *,
    cell_type_key: str = "cell_type",
    layer: str = keys.INTEGRATED,
    silver: str = keys.SILVER,
    ax: Axes | None = None,
) -> Axes:
    """Show what silver labels say of each type and marker, on the mean intensities: plus signs should be bright.

    Parameters
    ----------
    {adata}
    cell_type_key
        Column of ``obs`` with the types that the labels are from.
    layer
        Layer of intensities.
    silver
        Layer of labels.
    {ax}

    Returns
    -------
    Axes
        Types x markers, coloured by mean intensity, each marker from its lowest to its highest type; + positive,
        \N{MINUS SIGN} negative, ? undetermined. Markers in the order of :func:`nimbus_sd.labels.check_silver`, the
        worst to the left; where a negative type is as bright as a positive one, both are framed.

    Examples
    --------
    >>> import pandas as pd
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.X
    >>> names = ["CD4 T cell", "CD8 T cell", "B cell", "macrophage", "epithelium", "other"]
    >>> ns.labels.silver(adata, pd.DataFrame({"CD3": [1, 1, 0, 0, 0, 0], "CD20": [0, 0, 1, 0, 0, 0]}, index=names))
    >>> ax = ns.pl.check_silver(adata)
    """
    table = check_labels(adata, cell_type_key=cell_type_key, layer=layer, silver=silver)
    values, meaning = _scaled_means(adata, cell_type_key, layer, list(table.index))
    ax = ax or _new_axes(values, 1.2, 0.3)
    drawn = _draw_matrix(ax, values, "viridis")
    # A type and marker has a sign where all of its cells have the same label.
    types = clusters_of(adata, cell_type_key)
    labels = pd.DataFrame(read_layer(adata, silver), columns=adata.var_names)[list(values.columns)]
    groups = labels.groupby(np.asarray(types.codes))
    low, high = (bound.reindex(range(len(values))) for bound in (groups.min(), groups.max()))
    signs = low.where(low == high).map(lambda label: _SIGNS.get(label, ""))
    _write_into(drawn, values, signs.to_numpy(), min(map(_font_size, values.shape)))
    for x, (_, row) in enumerate(table.iterrows()):
        for name in filter(None, (row["positive_type"], row["negative_type"]) if row["reason"] else ()):
            y = values.index.get_loc(name)
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=COLORS[1], linewidth=2, zorder=3))
    bar = ax.figure.colorbar(drawn, ax=ax, ticks=[0, 1], shrink=0.8)
    bar.set_label(meaning.replace("cluster", "type"), fontsize="x-small")
    bar.ax.tick_params(labelsize="x-small")
    return ax


def compare_clusterings(adata: AnnData, a: str, b: str, *, cmap: str = "Blues", ax: Axes | None = None) -> Axes:
    """Show how clusters of one column are spread over those of another, such as of scores and of intensities.

    Parameters
    ----------
    {adata}
    a, b
        Columns of ``obs`` with clusters: rows and columns of the picture.
    {cmap}
    {ax}

    Returns
    -------
    Axes
        Each row adds up to 1 over the cells that both columns cluster; shares from 1 % are written in, in %. Rows and
        columns are ordered so that what belongs together lies on the diagonal. The title says the adjusted Rand index
        (1: the same clusters, 0: as alike as chance makes them).

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.obs["immune"] = adata.obs["cell_type"].isin(["epithelium", "other"]).map({True: "no", False: "yes"})
    >>> ns.pl.compare_clusterings(adata, "cell_type", "immune").get_title()
    'adjusted Rand index 0.30'
    """
    rows, columns = _in_both(adata, a, b)
    counts = pd.crosstab(rows, columns)
    share = counts.div(counts.sum(axis=1), axis=0)
    # A column belongs to the row that has most of it; within a row the largest comes first.
    share = share.iloc[:, np.lexsort((-counts.to_numpy().max(axis=0), counts.to_numpy().argmax(axis=0)))]
    share = share.iloc[np.argsort(share.to_numpy().argmax(axis=1), kind="stable")]
    ax = ax or _new_axes(share, 1.2, 1.2)
    drawn = _draw_matrix(ax, share, cmap)
    if share.size <= 900:
        percent = share.map(lambda part: f"{100 * part:.0f}" if part >= _NOTABLE else "").to_numpy()
        _write_into(drawn, share, percent, "x-small")
    ax.set(xlabel=title(b), ylabel=title(a))
    ax.set_title(f"adjusted Rand index {adjusted_rand_score(rows.codes, columns.codes):.2f}", fontsize="medium")
    return ax


def _scaled_means(
    adata: AnnData, groupby: str, layer: str, channels: str | Sequence[str] | None
) -> tuple[pd.DataFrame, str]:
    """Average a layer over the cells of each cluster, intensities scaled to [0, 1], and say what the values are."""
    channels = channel_names(adata, channels)
    if not channels:
        raise ValueError("`channels` is empty; name at least one.")
    values = read_layer(adata, layer)[:, adata.var_names.get_indexer(channels)]
    mean = cluster_means(adata, groupby, pd.DataFrame(values, columns=channels))
    if holds_scores(layer, values):
        return mean, f"mean of {title(layer)}"
    spread = (mean.max() - mean.min()).replace(0, np.nan)
    return (mean - mean.min()) / spread, f"{title(layer)},\nlowest to highest cluster"


def _in_both(adata: AnnData, a: str, b: str) -> tuple[pd.Categorical, pd.Categorical]:
    """Return two columns of clusters, of the cells that have one in both."""
    first, second = clusters_of(adata, a), clusters_of(adata, b)
    both = (first.codes >= 0) & (second.codes >= 0)
    if not both.any():
        raise ValueError(f"No cell has a cluster in both obs[{a!r}] and obs[{b!r}].")
    return first[both], second[both]


def _tree(values: pd.DataFrame) -> NDArray[np.float64] | None:
    """Cluster rows hierarchically (average linkage, Euclidean), like by like; None where none are alike."""
    if len(values) < 3:
        return None
    tree = linkage(np.nan_to_num(values.to_numpy()), "average", optimal_ordering=len(values) <= 500)
    return np.asarray(tree) if tree[-1, 2] > 0 else None


def _leaves(tree: NDArray[np.float64] | None, n: int) -> NDArray[np.intp]:
    """Order of the leaves of a tree; as they are where there is none."""
    return np.arange(n) if tree is None else np.asarray(leaves_list(tree), np.intp)


def _new_axes(values: pd.DataFrame, right: float, above: float) -> Axes:
    """Make a figure in which rows and columns are squares, with room for names, and inches beside the matrix."""
    height, width = map(_extent, values.shape)
    size = (max(width + _inches(values.index) + right, 2.5), height + _inches(values.columns) + above)
    return plt.subplots(figsize=size, layout="constrained")[1]


def _inches(names: pd.Index) -> float:
    """Return the room that names take."""
    return 0.08 * max(map(len, map(str, names)))


def _extent(n: int) -> float:
    """Return the inches of n rows or columns; many are thinner."""
    return max(min(_CELL * n, _TALL), 0.05 * n)


def _font_size(n: int) -> float:
    """Return the points in which n names fit beside rows."""
    return min(8.3, 0.85 * 72 * _extent(n) / n)


def _draw_matrix(ax: Axes, values: pd.DataFrame, cmap: str) -> AxesImage:
    """Draw values from 0 to 1 with the names of rows and columns, thin white lines between them."""
    rows, columns = values.shape
    shown = np.ma.masked_invalid(values.to_numpy(float))
    colors = plt.colormaps[cmap].with_extremes(bad="#eeeeee")
    drawn = ax.imshow(shown, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(columns), list(map(str, values.columns)), rotation=90, fontsize=_font_size(columns))
    ax.set_yticks(range(rows), list(map(str, values.index)), fontsize=_font_size(rows))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if rows <= 60:
        ax.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color="white", linewidth=0.6)
        ax.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color="white", linewidth=0.6)
    return drawn


def _write_into(drawn: AxesImage, values: pd.DataFrame, texts: NDArray, fontsize: float | str) -> None:
    """Write texts into a matrix, dark on light colours and light on dark ones."""
    dark = brightness(drawn.to_rgba(values.to_numpy(float))[..., :3]) < 0.5
    for (y, x), text in np.ndenumerate(texts):
        color = "white" if dark[y, x] else "#333333"
        drawn.axes.text(x, y, text, ha="center", va="center", fontsize=fontsize, color=color)


def _draw_ribbons(ax: Axes, counts: NDArray[np.int64], colors: Sequence[str]) -> None:
    """Draw ribbons between rows of equal height on either side; counts are rows on the left x rows on the right."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    kept = np.where(share >= _NOTABLE, counts, 0)
    rows, columns = counts.shape
    leaving = np.cumsum(share, axis=1)
    arriving = np.cumsum(kept, axis=0) / np.maximum(kept.sum(axis=0), 1)
    curve = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    for i, j in zip(*np.nonzero(kept), strict=True):
        # Rows keep a gap of a tenth.
        a, b = ((i + 0.05 + 0.9 * at) / rows for at in (leaving[i, j] - share[i, j], leaving[i, j]))
        low = arriving[i, j] - kept[i, j] / kept[:, j].sum()
        c, d = ((j + 0.05 + 0.9 * at) / columns for at in (low, arriving[i, j]))
        points = [(0, a), (0.5, a), (0.5, c), (1, c), (1, d), (0.5, d), (0.5, b), (0, b), (0, a)]
        ax.add_patch(PathPatch(Path(points, curve), facecolor=colors[j], edgecolor="none", alpha=0.65))
    ax.set(xlim=(0, 1), ylim=(1, 0))
    ax.axis("off")
