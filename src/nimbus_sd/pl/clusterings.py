"""Clusters: what regions consist of, the nodes of a self-organising map, and how many metaclusters they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle, Rectangle, Wedge
from matplotlib.ticker import MaxNLocator

from nimbus_sd._table import clusters_of, region_column
from nimbus_sd.pl import _common
from nimbus_sd.pl._common import COLORS, GREY, colors_of, distinct, legend_beside, legend_size, patches

# Inches: a composition's bars, a node, and the longer side of a small map.
_BARS, _NODE, _SMALLEST_MAP = 3.2, 0.42, 3.5
# Radii of stars, in units of the grid; smaller ones cannot be read.
_SMALLEST, _LARGEST = 0.27, 0.47
# Mean silhouettes that differ by less do not decide between numbers of metaclusters.
_NEAR = 0.02


def composition(adata: AnnData, groupby: str, *, by: str | None = None, ax: Axes | None = None) -> Axes:
    """Show the share of each cluster, or cell type, in each region.

    Parameters
    ----------
    {adata}
    {groupby}
    by
        Column of ``obs`` whose values make a bar each: regions by default, or patients, treatments, ...
    {ax}

    Returns
    -------
    Axes
        One bar per region, its number of cells at its end; cells without a cluster are grey. Colours as in
        :func:`cells`.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ax = ns.pl.composition(ns.datasets.example().tables["table"], "cell_type")
    >>> [tick.get_text() for tick in ax.get_yticklabels()]
    ['fov1_labels', 'fov2_labels']
    """
    clusters, bars = clusters_of(adata, groupby), clusters_of(adata, str(region_column(adata, by).name))
    colors = colors_of(adata, groupby)
    if (clusters.codes < 0).any():
        colors["no cluster"] = _common.NO_CLUSTER
    counts = pd.crosstab(np.asarray(bars), clusters.codes).reindex(index=bars.categories).fillna(0)
    counts = counts.reindex(columns=[*range(len(clusters.categories)), -1][: len(colors)], fill_value=0)
    total = counts.sum(axis=1)
    numbers = [f"{int(n):,}" for n in total]
    # Inches beside the bars, which keep their size however long the names are.
    left, right = (0.08 * max(map(len, texts)) for texts in (counts.index, numbers))
    wide, high = legend_size(colors)
    ax = _common.axes(ax, left + _BARS + right + 0.2 + wide, max(0.9 + 0.32 * len(counts), 0.1 + high))
    look: dict[str, Any] = {"width": 0.8, "edgecolor": "white", "linewidth": 0.4, "fontsize": "small"}
    counts.div(total, axis=0).plot.barh(stacked=True, color=list(colors.values()), legend=False, ax=ax, **look)
    ax.bar_label(ax.containers[-1], numbers, padding=3, fontsize="x-small", color="#333333")  # type: ignore[arg-type]
    ax.set(xlim=(0, 1), ylim=(len(counts) - 0.5, -0.5), xlabel="share of cells", ylabel="")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    # Beyond the numbers of cells.
    legend_beside(ax, patches(colors), gap=right + 0.1, title=_common.title(groupby), title_fontsize="small")
    return ax


def som_stars(
    adata: AnnData, key: str = "flowsom_nimbus", *, channels: str | Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Show each node of a FlowSOM as a star: a wedge per marker, whose length shows the node's score.

    Parameters
    ----------
    adata
        A table that :func:`nimbus_sd.tl.flowsom` has clustered.
    key
        Its ``uns`` entry: ``codes`` (nodes x channels), ``counts`` (cells of each node), ``channels``, ``metaclusters``
        (of each node), and ``xdim`` and ``ydim`` in ``params``; node i lies in column ``i // ydim``, row ``i % ydim``.
    {channels}
    {ax}

    Returns
    -------
    Axes
        One star per node. Wedges have the markers' colours; where codes are not within [0, 1], each marker is scaled
        from its lowest to its highest node. The area of a wedge, as a share of its place, is the value. The larger a
        star, the more cells it has; nodes without cells are crosses. The squares behind have the colour of the
        metacluster, that of :func:`cells` where ``obs[key]`` has it too.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.tl.flowsom(adata, layer="gold", xdim=5, ydim=5, engine="minisom")
    >>> ax = ns.pl.som_stars(adata, channels=["CD3", "CD8", "CD20"])
    """
    som = _som(adata, key, "codes", "counts", "channels", "metaclusters", "params")
    shown = _common.select(channels, som["channels"], f"uns[{key!r}] has no channel")
    codes = np.nan_to_num(np.asarray(som["codes"], float)[:, pd.Index(som["channels"]).astype(str).get_indexer(shown)])
    if codes.size and (codes.min() < 0 or codes.max() > 1):
        low, high = codes.min(axis=0), codes.max(axis=0)
        codes = (codes - low) / np.where(high > low, high - low, 1)
    counts = np.asarray(som["counts"], float)
    groups = pd.Series(np.asarray(som["metaclusters"])).astype(str)
    xdim, ydim = (int(som["params"][name]) for name in ("xdim", "ydim"))
    if len(codes) != xdim * ydim:
        raise ValueError(f"uns[{key!r}] has {len(codes)} nodes, which is not xdim x ydim = {xdim} x {ydim}.")
    place = np.stack(np.divmod(np.arange(len(codes)), ydim), axis=1).astype(float)

    # In the order of the numbers in their names.
    ordered = sorted(groups.unique(), key=lambda name: (not name.isdigit(), name.zfill(9)))
    stored = colors_of(adata, key) if key in adata.obs else {}
    colors = [stored[name] for name in ordered] if set(ordered) <= set(stored) else distinct(len(ordered))
    of_group = dict(zip(ordered, colors, strict=True))
    of_marker = dict(zip(shown, distinct(len(shown)), strict=True))
    if ax is None:
        side = max(_NODE, _SMALLEST_MAP / max(xdim, ydim))
        wide, high = legend_size([*of_marker, *of_group, "marker", "metacluster"])
        _, ax = plt.subplots(figsize=(side * xdim + 0.3 + wide, max(side * ydim + 0.3, high)), layout="compressed")
    squares = [Rectangle((x - 0.5, y - 0.5), 1, 1) for x, y in place]
    behind = [of_group[name] for name in groups]
    ax.add_collection(PatchCollection(squares, facecolors=behind, edgecolors="white", linewidths=0.6, alpha=0.45))
    radius = np.where(counts > 0, _SMALLEST + (_LARGEST - _SMALLEST) * np.sqrt(counts / max(counts.max(), 1)), 0)
    discs = [Circle(tuple(at), size) for at, size in zip(place, radius, strict=True) if size > 0]
    ax.add_collection(PatchCollection(discs, facecolors="white", edgecolors=GREY, linewidths=0.4))
    turn = 360 / len(shown)
    for i, name in enumerate(shown):
        lengths = zip(place, radius * np.sqrt(codes[:, i]), strict=True)
        # The first marker points up, the others follow clockwise.
        wedges = [Wedge(tuple(at), size, 90 - (i + 1) * turn, 90 - i * turn) for at, size in lengths if size > 0]
        ax.add_collection(PatchCollection(wedges, facecolors=of_marker[name], edgecolors="none"))
    ax.plot(*place[counts == 0].T, "x", color=GREY, markersize=4, linestyle="")
    grid = groups.to_numpy().reshape(xdim, ydim)
    x, y = np.nonzero(grid[:-1] != grid[1:])
    ax.vlines(x + 0.5, y - 0.5, y + 0.5, colors="#333333", linewidths=1.2)
    x, y = np.nonzero(grid[:, :-1] != grid[:, 1:])
    ax.hlines(y + 0.5, x - 0.5, x + 0.5, colors="#333333", linewidths=1.2)
    ax.set(xlim=(-0.55, xdim - 0.45), ylim=(-0.55, ydim - 0.45), aspect="equal")
    ax.axis("off")
    header = [patches({name: "none"}) for name in ("marker", "metacluster")]
    entries = [*header[0], *patches(of_marker), *header[1], *patches(of_group, alpha=0.45)]
    texts = legend_beside(ax, entries).get_texts()
    plt.setp([texts[0], texts[len(shown) + 1]], fontweight="bold")
    return ax


def metacluster_suggestion(adata: AnnData, key: str = "flowsom_nimbus", *, ax: Axes | None = None) -> Axes:
    """Show how well nodes fall into each number of metaclusters, and the number that was suggested.

    Shaded are the numbers that do about as well (a mean silhouette within 0.02 of the best): where there are several,
    the data do not decide between them.

    Parameters
    ----------
    adata
        Table after :func:`nimbus_sd.tl.flowsom` without ``n_metaclusters``.
    key
        Name of the map.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.tl.flowsom(adata, layer="gold", xdim=5, ydim=5, engine="minisom")
    >>> ax = ns.pl.metacluster_suggestion(adata)
    """
    som = _som(adata, key, "codes")
    if "suggestion" not in som:
        raise KeyError(f"uns[{key!r}] has no suggestion, as `n_metaclusters` was given; `tl.flowsom` without it has.")
    numbers, silhouette = (np.asarray(som["suggestion"][name]) for name in ("n_metaclusters", "silhouette"))
    suggested = int(som["suggestion"]["suggested"])
    best = silhouette[numbers == suggested][0]
    ax = _common.axes(ax)
    for i, number in enumerate(numbers[silhouette >= best - _NEAR]):
        label = None if i else "about as well"
        ax.axvspan(number - 0.5, number + 0.5, color=GREY, alpha=0.15, linewidth=0, label=label)
    ax.plot(numbers, silhouette, color=COLORS[0], marker=".", linewidth=1.2, markersize=4)
    ax.plot([suggested], [best], "o", color=COLORS[1], markersize=6, label=f"suggested: {suggested}")
    ax.set(xlabel="metaclusters", ylabel="mean silhouette of the nodes", xlim=(numbers[0] - 0.5, numbers[-1] + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(y=0.1)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _som(adata: AnnData, key: str, *needed: str) -> Mapping[str, Any]:
    """Return the entry of a self-organising map, or raise a KeyError if there is none or something is not in it."""
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping):
        raise KeyError(f"There is no uns[{key!r}]; run `nimbus_sd.tl.flowsom` first, or pass its `key_added` as `key`.")
    if missing := [name for name in needed if name not in entry]:
        raise KeyError(f"uns[{key!r}] lacks {missing}; it must be the entry that `nimbus_sd.tl.flowsom` makes.")
    return entry
