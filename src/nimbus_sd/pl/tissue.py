"""Tissue: a channel with outlines, cells coloured by a layer or by cluster, and all of it side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray
from spatialdata import SpatialData

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of
from nimbus_sd.pixels import interior
from nimbus_sd.pl import _common
from nimbus_sd.pl._common import NO_CLUSTER, colors_of, column, factor_of, high_end, title
from nimbus_sd.spatial import Region, not_found, region_of_table, rows_of

Crop: TypeAlias = tuple[slice, slice]
WHOLE: Crop = (slice(None), slice(None))

_UNIT = "negative (0) to positive (1)"
_NOT_SCORED = "#f7d9f7"
# Pixels a side, of which figures have fewer, and inches of a picture beside a legend.
_MOST, _SIDE = 2500, 4.8


def image(
    sdata: SpatialData,
    channel: str,
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    crop: Crop = WHOLE,
    outlines: bool = True,
    table_key: str = "table",
    ax: Axes | None = None,
) -> Axes:
    """Show a channel in grey, from 0 to its normalisation factor, with cell outlines.

    Parameters
    ----------
    {sdata}
    channel
        Name of the channel.
    {labels_key}
    {image_key}
    {crop}
    outlines
        Whether to draw the outlines of cells.
    table_key
        Table whose normalisation factor is used; where it has none, the 99.9 % quantile of what is shown.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ax = ns.pl.image(ns.datasets.example(), "CD3", "fov1_labels", crop=(slice(0, 200), slice(0, 200)))
    """
    _check_crop(crop)
    region = region_of(sdata, sdata.tables.get(table_key), channel, labels_key, image_key)
    crop = region.covered if crop == WHOLE else crop
    pixels = region.read_image([0], *crop)[0].astype(np.float32)
    top = factor_of(sdata.tables[table_key], channel) if table_key in sdata.tables else None
    ax = panel(ax)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=top or high_end(pixels[pixels > 0]), interpolation="nearest")
    if outlines:
        labels = region.read_labels(*crop)
        edge = np.ma.masked_equal((labels > 0) & ~interior(labels), 0)
        ax.imshow(edge, cmap="spring", vmin=0, vmax=2, alpha=0.6, interpolation="nearest")
    ax.set_title(channel)
    return ax


def cells(
    sdata: SpatialData,
    color: str,
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    layer: str = keys.NIMBUS,
    groups: str | Sequence[str] | None = None,
    crop: Crop = WHOLE,
    cmap: str = "viridis",
    table_key: str = "table",
    ax: Axes | None = None,
) -> Axes:
    """Colour cells by their value of a channel, or by their cluster; borders between cells are dark.

    Scores and labels are drawn from 0 to 1. Intensities, and other layers with values outside [0, 1], are drawn from 0
    to the channel's normalisation factor where the table has one, else to the 99.9 % quantile of the channel. Cells
    without a value are pale pink, cells without a cluster grey.

    Parameters
    ----------
    {sdata}
    color
        Channel, or column of the table's ``obs`` with clusters. A name that is both is the channel, unless ``groups``
        is given.
    {labels_key}
    {image_key}
    layer
        Layer of the table that holds the channel's values.
    groups
        Clusters to colour, the others are grey; all by default.
    crop
        Rows and columns to show, two slices, in pixels of the finer of image and labels. Of more than 2,500 a side
        only every second, third, ... is drawn, so that the memory for whole slides is bounded.
    cmap
        Colour map of a channel's values. Clusters have the colours in ``uns[f"{color}_colors"]``, where scanpy keeps
        them, else those of a palette of scanpy.
    {table_key}
    ax
        Where to draw; a new figure, with a colour bar or a legend of the clusters that are shown, by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ax = ns.pl.cells(ns.datasets.example(), "cell_type", "fov1_labels", groups=["B cell", "macrophage"])
    >>> ax = ns.pl.cells(ns.datasets.example(), "CD20", "fov1_labels", layer="gold")
    """
    adata = table_of(sdata, table_key)
    by_channel = color in adata.var_names and groups is None
    if not by_channel and color not in adata.obs:
        raise not_found("channel or column of obs", [color], [*adata.var_names, *adata.obs])
    region = region_of(sdata, adata, None, labels_key, image_key)
    # Values of rows, and of no row; what has no colour of its own is below 0.
    if by_channel:
        top, name_of_top = _scale(adata, layer, color)
        values = np.append(column(adata, layer, color), np.nan)
        values = np.where(np.isnan(values), -1, np.maximum(values, 0))
        low, high, colors = 0.0, top, plt.colormaps[cmap].with_extremes(under=_NOT_SCORED)
    else:
        clusters, color_of = clusters_of(adata, color), colors_of(adata, color)
        wanted = _common.select(groups, clusters.categories, f"obs[{color!r}] has no cluster")
        # As small as codes are, since pictures may be large.
        values = np.append(clusters.codes, np.int8(-1))
        palette = [color_of[name] if name in wanted else NO_CLUSTER for name in clusters.categories]
        low, high, colors = -0.5, len(palette) - 0.5, ListedColormap(palette).with_extremes(under=NO_CLUSTER)
    labels, rows, borders, step = _read_cells(adata, region, crop)
    shown = np.ma.masked_array(values[rows], labels == 0)
    legend: dict[str, str] = {}
    if not by_channel:
        present = {clusters.categories[code] if code >= 0 else None for code in np.unique(shown.compressed())}
        legend = {name: color_of[name] for name in wanted if name in present}
        if len(legend) < len(present):
            legend["other cells" if groups is not None else "no cluster"] = NO_CLUSTER
    new = ax is None
    if ax is None:
        beside, tall = (1.2, 0.0) if by_channel else _common.legend_size(legend)
        ax = plt.subplots(figsize=(_SIDE + beside, max(_SIDE, 0.3 + tall)), layout="compressed")[1]
    panel(ax).set(facecolor="black", title=f"{color}: {title(layer)}" if by_channel else title(color))
    height, width = (step * size - 0.5 for size in labels.shape)
    style: dict[str, Any] = {"extent": (-0.5, width, height, -0.5), "interpolation": "nearest"}
    drawn = ax.imshow(shown, cmap=colors.with_extremes(bad=(0, 0, 0, 0)), vmin=low, vmax=high, **style)
    if borders.any():
        ax.imshow(np.ma.masked_equal(borders, 0), cmap=ListedColormap(["black"]), alpha=0.7, **style)
    if new and by_channel:
        label, extend = (f"{title(layer)}, 0 to the {name_of_top}", "max") if name_of_top else (_UNIT, "neither")
        ax.figure.colorbar(drawn, ax=ax, label=label, extend=extend, shrink=0.7)
    elif new:
        _common.legend_beside(ax, _common.patches(legend))
    return ax


def comparison(
    sdata: SpatialData,
    channels: str | Sequence[str],
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    layers: str | Sequence[str] | None = None,
    crop: Crop = WHOLE,
    table_key: str = "table",
    ax: Sequence[Sequence[Axes]] | None = None,
) -> np.ndarray:
    """Show one row per channel: the image, the image with the mask, and the cells coloured by each layer.

    Parameters
    ----------
    {sdata}
    channels
        A row each.
    {labels_key}
    {image_key}
    layers
        Layers of the table. None takes those that exist of ``"nimbus"`` and ``"gold"``.
    {crop}
    {table_key}
    ax
        Axes of shape (channels, 2 + layers); a new figure, with a colour bar, by default.

    Returns
    -------
    Array of Axes.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ns.pl.comparison(ns.datasets.example(), ["CD3", "CD20"], "fov1_labels").shape
    (2, 3)
    """
    channels = as_list(channels)
    if not channels:
        raise ValueError("`channels` is empty; name at least one.")
    adata = table_of(sdata, table_key)
    usual = [name for name in (keys.NIMBUS, keys.GOLD) if name in adata.layers]
    layers = usual if layers is None else as_list(layers)
    meaning = _meaning(adata, layers, channels)
    shape = (len(channels), 2 + len(layers))
    size = (3 * shape[1] + 0.7, 3 * shape[0])
    given = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")[1] if ax is None else np.asarray(ax)
    if given.size != shape[0] * shape[1]:
        raise ValueError(f"`ax` has the shape {given.shape}; {shape} is needed (channels, 2 + layers).")
    axes = given.reshape(shape)
    what: dict[str, Any] = {"image_key": image_key, "crop": crop, "table_key": table_key}
    for row, channel in zip(axes, channels, strict=True):
        row[0].set_ylabel(channel)
        image(sdata, channel, labels_key, outlines=False, ax=row[0], **what)
        image(sdata, channel, labels_key, ax=row[1], **what)
        for layer, here in zip(layers, row[2:], strict=True):
            cells(sdata, channel, labels_key, layer=layer, ax=here, **what)
        for here, name in zip(row, ["image", "mask", *map(title, layers)], strict=True):
            here.set_title(name if channel == channels[0] else "")
    if layers and ax is None:
        axes[0, 0].figure.colorbar(ScalarMappable(cmap="viridis"), ax=axes, label=meaning, shrink=0.5)
    return axes


def table_of(sdata: SpatialData, table_key: str) -> AnnData:
    """Return a table, or raise an error that says which there are."""
    if not hasattr(sdata, "tables"):
        raise TypeError(f"This picture needs the tissue, a SpatialData, and was given {type(sdata).__name__}.")
    if table_key not in sdata.tables:
        raise KeyError(f"There is no table {table_key!r}; there are {list(sdata.tables)}. Run `predict` first.")
    return sdata.tables[table_key]


def region_of(
    sdata: SpatialData,
    table: AnnData | None,
    channels: str | Sequence[str] | None,
    labels_key: str | None,
    image_key: str | None = None,
) -> Region:
    """Find the region that a picture shows, with these channels or all, and cells grown as those of the table."""
    if labels_key is None:
        names = list(sdata.labels) or list(sdata.shapes)
        if len(names) != 1:
            raise ValueError(f"Which cells? Pass `labels_key`, one of {names}.")
        labels_key = names[0]
    return region_of_table(sdata, table, image_key, labels_key, channels)


def panel(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure, without ticks."""
    ax = ax or plt.subplots(layout="constrained")[1]
    ax.set(xticks=[], yticks=[])
    return ax


def _scale(adata: AnnData, layer: str, channel: str) -> tuple[float, str]:
    """Return the value that has the last colour and what it is; no name for scores and labels, where it is 1."""
    values = column(adata, layer, channel)
    if _common.holds_scores(layer, values):
        return 1.0, ""
    if factor := factor_of(adata, channel):
        return factor, "normalisation factor"
    return high_end(values[np.isfinite(values)]), "99.9 % quantile"


def _meaning(adata: AnnData, layers: Sequence[str], channels: Sequence[str]) -> str:
    """Say what the colours mean, and for which layers where that differs."""
    named: dict[str, list[str]] = {}
    for layer in layers:
        tops = dict.fromkeys(_scale(adata, layer, channel)[1] for channel in channels)
        named.setdefault(" or ".join(f"0 to the {top} (1)" if top else _UNIT for top in tops), []).append(title(layer))
    if list(named) == [_UNIT]:
        return _UNIT
    return "\n".join(f"{', '.join(names)}: {meaning}" for meaning, names in named.items())


def _check_crop(crop: object) -> None:
    if not isinstance(crop, tuple | list) or len(crop) != 2 or not all(isinstance(side, slice) for side in crop):
        raise ValueError(f"`crop` is {crop!r}; it must be two slices, such as (slice(0, 100), slice(50, 200)).")


def _read_cells(adata: AnnData, region: Region, crop: Crop) -> tuple[NDArray, NDArray, NDArray[np.bool_], int]:
    """Read cells block by block, of a large crop only every ``step``-th pixel in each direction.

    Returns labels (0 = no cell), their rows in the table (-1 = none), borders between cells, all (h, w), and ``step``.
    """
    _check_crop(crop)
    crop = region.covered if crop == WHOLE else crop
    bounds = [side.indices(size) for side, size in zip(crop, region.shape, strict=True)]
    if any(step != 1 for *_, step in bounds):
        raise ValueError(f"`crop` is {crop!r}; its slices must be without steps.")
    (top, bottom), (left, right) = ((start, max(start, stop)) for start, stop, _ in bounds)
    step = max(1, -(-max(bottom - top, right - left) // _MOST))
    labels = np.zeros((-(-(bottom - top) // step), -(-(right - left) // step)), np.int64)
    borders = np.zeros(labels.shape, bool)
    block = step * (_MOST // step)
    for y in range(top, bottom, block):
        for x in range(left, right, block):
            # One more row and column, as borders are towards them.
            full = region.read_labels(slice(y, min(y + block + 1, bottom)), slice(x, min(x + block + 1, right)))
            at = tuple(slice((i - first) // step, (i - first + block) // step) for i, first in ((y, top), (x, left)))
            labels[at] = full[:block:step, :block:step]
            borders[at] = _borders(full)[:block:step, :block:step]
    rows, ids = rows_of(adata, region)
    present, where = np.unique(labels, return_inverse=True)
    row_of_id = np.append(rows, -1)[pd.Index(ids).get_indexer(pd.Index(present))]
    return labels, row_of_id[where].reshape(labels.shape), borders, step


def _borders(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the pixels that have another cell to the right or below: borders one pixel wide."""
    marked = np.zeros(labels.shape, bool)
    marked[:, :-1] = (labels[:, :-1] != labels[:, 1:]) & (labels[:, 1:] > 0)
    marked[:-1] |= (labels[:-1] != labels[1:]) & (labels[1:] > 0)
    return marked & (labels > 0)
