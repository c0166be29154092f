"""Clusters by markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.pl._clusters import means_of, tree
from nimbus_sd.pl._style import GREY

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

# Inches: a row or column, all of many rows, trees, and bars with numbers.
_CELL = 0.27
_TALL = 14.0
_TREE, _BARS = 0.55, 0.85


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
    adata
        Cells x channels.
    groupby
        Column of ``obs`` with clusters.
    layer
        Layer of scores. Of intensities, each marker is scaled from its lowest to its highest cluster.
    channels
        Which ones; all by default.
    dendrogram
        Order clusters and markers by hierarchical clustering (average linkage of the means) and draw the trees. False
        keeps the order of the categories and of ``channels``.
    cmap
        Colour map.
    ax
        Where to draw the matrix, with trees and bars beside it; a new figure by default.

    Returns
    -------
    Axes
        The matrix, its rows named as clusters; to the right the clusters' tree and their numbers of cells.

    Raises
    ------
    KeyError
        If the column, the layer or a channel does not exist.
    ValueError
        If ``groupby`` is no column of clusters.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.score_matrix(adata, "cell_type", "gold")
    >>> [tick.get_text() for tick in ax.get_xticklabels()][:2]
    ['DAPI', 'CD45']
    """
    import matplotlib.pyplot as plt
    from mpl_toolkits.axes_grid1 import make_axes_locatable

    values, size, meaning = means_of(adata, groupby, layer, channels)
    rows = tree(values.to_numpy()) if dendrogram else None
    columns = tree(values.to_numpy().T) if dendrogram else None
    values = values.iloc[leaves(rows, len(values)), leaves(columns, values.shape[1])]
    if ax is None:
        _, ax = plt.subplots(figsize=_size_of(values), layout="constrained")
    drawn = draw_matrix(ax, values, cmap)
    # All of this is cut from the matrix's own place, in inches, so that layouts need not know of it.
    place = make_axes_locatable(ax)
    beside, bars = (place.append_axes("right", inches, pad=0.04) for inches in (_TREE, _BARS))
    above = place.append_axes("top", _TREE, pad=0.04)
    corner = ax.figure.add_axes((0, 0, 1, 1), label="scale")
    corner.set_axes_locator(place.new_locator(nx=2, nx1=-1, ny=2))
    _draw_tree(beside, rows, "right")
    _draw_tree(above, columns, "top")
    _draw_sizes(bars, size[leaves(rows, len(size))])
    corner.axis("off")
    scale = corner.inset_axes((0.04, 0.3, 0.8, 0.16))
    ax.figure.colorbar(drawn, cax=scale, orientation="horizontal", ticks=[0, 0.5, 1])
    scale.tick_params(labelsize="x-small", length=2, pad=1)
    scale.set_title(meaning, fontsize="x-small", pad=3)
    return ax


def _size_of(values: pd.DataFrame) -> tuple[float, float]:
    """Return inches in which rows and columns are squares, with room for names."""
    longest = [max(len(str(name)) for name in names) for names in (values.index, values.columns)]
    height, width = (extent(n) for n in values.shape)
    return width + _TREE + _BARS + 0.3 + 0.08 * longest[0], height + _TREE + 0.3 + 0.08 * longest[1]


def extent(n: int) -> float:
    """Return the inches of n rows or columns; many are thinner."""
    return max(min(_CELL * n, _TALL), 0.05 * n)


def font_size(n: int) -> float:
    """Return the points in which n names fit beside rows."""
    return min(8.3, 0.85 * 72 * extent(n) / n)


def draw_matrix(ax: Axes, values: pd.DataFrame, cmap: str) -> AxesImage:
    """Draw values from 0 to 1 with the names of rows and columns, thin white lines between them."""
    from matplotlib import colormaps

    drawn = ax.imshow(
        np.ma.masked_invalid(values.to_numpy(float)),
        cmap=colormaps[cmap].with_extremes(bad="#eeeeee"),
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    ax.set_xticks(
        range(values.shape[1]), list(map(str, values.columns)), rotation=90, fontsize=font_size(values.shape[1])
    )
    ax.set_yticks(range(len(values)), list(map(str, values.index)), fontsize=font_size(len(values)))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if values.shape[0] <= 60:
        ax.hlines(np.arange(1, values.shape[0]) - 0.5, -0.5, values.shape[1] - 0.5, color="white", linewidth=0.6)
        ax.vlines(np.arange(1, values.shape[1]) - 0.5, -0.5, values.shape[0] - 0.5, color="white", linewidth=0.6)
    return drawn


def leaves(linkage: NDArray[np.float64] | None, n: int) -> NDArray[np.intp]:
    """Order of the leaves of a tree; as they are where there is none."""
    from scipy.cluster.hierarchy import leaves_list

    return np.arange(n) if linkage is None else np.asarray(leaves_list(linkage), np.intp)


def _draw_tree(ax: Axes, linkage: NDArray[np.float64] | None, side: str) -> None:
    """Draw a tree whose leaves lie at 0, 1, 2, ... along the matrix."""
    from matplotlib.collections import LineCollection
    from scipy.cluster.hierarchy import dendrogram

    ax.axis("off")
    if linkage is None:
        return
    found = dendrogram(linkage, no_plot=True)
    # scipy puts leaves at 5, 15, 25, ...
    along = (np.array(found["icoord"]) - 5) / 10
    height = np.array(found["dcoord"])
    lines = np.stack([height, along] if side == "right" else [along, height], axis=-1)
    ax.add_collection(LineCollection(list(lines), colors=GREY, linewidths=0.9))
    top = max(float(height.max()), 1e-9) * 1.02
    n = len(linkage) + 1
    if side == "right":
        ax.set(xlim=(0, top), ylim=(n - 0.5, -0.5))
    else:
        ax.set(xlim=(-0.5, n - 0.5), ylim=(0, top))


def _draw_sizes(ax: Axes, size: NDArray[np.int64]) -> None:
    """Draw a bar per row, with the number of cells at its end."""
    points = min(7, font_size(len(size)))
    ax.barh(range(len(size)), size, color="#9fb6c9", height=0.75)
    for y, n in enumerate(size):
        ax.text(n + 0.03 * size.max(), y, f"{n:,}", va="center", fontsize=points, color="#333333")
    ax.set(xlim=(0, 1.5 * size.max()), ylim=(len(size) - 0.5, -0.5))
    ax.axis("off")
    ax.text(0, len(size) - 0.3, "cells", va="top", fontsize="x-small", color="#333333")
