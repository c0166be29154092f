"""A channel with the outlines of its cells, and cells coloured by a layer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd.pixels import interior
from nimbus_sd.spatial import Region, find_regions
from nimbus_sd.spatial.rows import dense, rows_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

Crop = tuple[slice, slice]
_WHOLE: Crop = (slice(None), slice(None))
_NOT_SCORED = "#f7d9f7"


def image(
    sdata: SpatialData,
    channel: str,
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    crop: Crop = _WHOLE,
    outlines: bool = True,
    table_key: str = "table",
    ax: Axes | None = None,
) -> Axes:
    """Show a channel in grey, from 0 to its normalisation factor, with cell outlines.

    Parameters
    ----------
    sdata
        Images and labels.
    channel
        Name of the channel.
    labels_key
        Which cells; may be left out where there is one labels element only.
    image_key
        Which image; may be left out where only one shares a coordinate system with the labels.
    crop
        Rows and columns to show, in pixels.
    outlines
        Draw the outlines of cells.
    table_key
        Table whose normalisation factor is used where it has one; else the 99.9 % quantile of what is shown.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    region = region_of(sdata, channel, labels_key, image_key)
    pixels = region.read_image([0], *crop)[0].astype(np.float32)
    top = _factor(sdata, channel, table_key)
    if top is None:
        positive = pixels[pixels > 0]
        top = float(np.quantile(positive, 0.999)) if positive.size else 1.0
    ax = _axes(ax)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    if outlines:
        labels = region.read_labels(*crop)
        edge = np.ma.masked_equal((labels > 0) & ~interior(labels), 0)
        ax.imshow(edge, cmap="spring", vmin=0, vmax=2, alpha=0.6, interpolation="nearest")
    ax.set_title(channel)
    return ax


def cells(
    sdata: SpatialData,
    channel: str,
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    layer: str = keys.NIMBUS,
    crop: Crop = _WHOLE,
    cmap: str = "viridis",
    table_key: str = "table",
    ax: Axes | None = None,
) -> Axes:
    """Colour cells by their value in a layer, from 0 to 1; cells without a value are pale pink.

    Parameters
    ----------
    sdata
        Labels and a table of them.
    channel
        Name of the channel.
    labels_key
        Which cells; may be left out where there is one labels element only.
    image_key
        As for :func:`image`.
    layer
        Layer of the table.
    crop
        Rows and columns to show, in pixels.
    cmap
        Colour map.
    table_key
        Name of the table.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table, the layer or the channel does not exist.
    """
    from matplotlib import colormaps

    adata = table_of(sdata, table_key)
    if layer not in adata.layers:
        there = [key for key in adata.layers if key is not None]
        raise KeyError(f"There is no layer {layer!r} in table {table_key!r}; there are {there}.")
    region = region_of(sdata, channel, labels_key, image_key)
    if channel not in adata.var_names:
        raise KeyError(f"Table {table_key!r} has no column {channel!r}; there are {list(adata.var_names)}.")
    rows, ids = rows_of(adata, region.labels_key)
    values = dense(adata.layers[layer], adata.shape)[rows, adata.var_names.get_loc(channel)]

    labels = region.read_labels(*crop)
    present, where = np.unique(labels, return_inverse=True)
    # A label without a row is at -1, where the NaN is.
    value = np.append(values, np.nan)[pd.Index(ids).get_indexer(pd.Index(present))]
    shown = np.ma.masked_array(value[where].reshape(labels.shape), labels == 0)
    ax = _axes(ax)
    ax.set_facecolor("black")
    ax.imshow(shown, cmap=colormaps[cmap].with_extremes(bad=(0, 0, 0, 0)), vmin=0, vmax=1, interpolation="nearest")
    unscored = np.ma.masked_equal(np.isnan(shown.filled(0)), 0)
    if unscored.count():
        from matplotlib.colors import ListedColormap

        ax.imshow(unscored, cmap=ListedColormap([_NOT_SCORED]), interpolation="nearest")
    ax.set_title(f"{channel}: {layer}")
    return ax


def table_of(sdata: SpatialData, table_key: str) -> AnnData:
    """Give a table, or say what there is."""
    if table_key not in sdata.tables:
        raise KeyError(f"There is no table {table_key!r}; there are {list(sdata.tables)}. Run `predict` first.")
    return sdata.tables[table_key]


def region_of(sdata: SpatialData, channel: str, labels_key: str | None = None, image_key: str | None = None) -> Region:
    """Find the region that a picture shows, or say which there are."""
    if labels_key is None:
        if len(sdata.labels) != 1:
            raise ValueError(f"Which cells? Pass `labels_key`, one of {list(sdata.labels)}.")
        labels_key = next(iter(sdata.labels))
    with warnings.catch_warnings():
        # Nothing here depends on the pixel size, so nobody needs to hear that it is unknown.
        warnings.simplefilter("ignore", UserWarning)
        return find_regions(sdata, image_key, labels_key, channels=[channel])[0]


def _factor(sdata: SpatialData, channel: str, table_key: str) -> float | None:
    varm = sdata.tables[table_key].varm if table_key in sdata.tables else {}
    table = varm.get(f"{keys.NIMBUS}_normalization")
    if table is None or channel not in table.index or not table.loc[channel, "factor"] > 0:
        return None
    return float(table.loc[channel, "factor"])


def _axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots()
    ax.set_xticks([])
    ax.set_yticks([])
    return ax
