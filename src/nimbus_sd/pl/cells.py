"""Cells coloured by a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nimbus_sd import keys
from nimbus_sd.pl._layers import column, factor_of, holds_scores
from nimbus_sd.pl._panels import WHOLE, Crop, panel, region_of, table_of
from nimbus_sd.pl._style import title
from nimbus_sd.pl._tissue import read_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

#: What the colours of scores and labels mean.
UNIT = "negative (0) to positive (1)"
_NOT_SCORED = "#f7d9f7"


def cells(
    sdata: SpatialData,
    channel: str,
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    layer: str = keys.NIMBUS,
    crop: Crop = WHOLE,
    cmap: str = "viridis",
    table_key: str = "table",
    ax: Axes | None = None,
) -> Axes:
    """Colour cells by their value in a layer; cells without a value are pale pink, borders between cells dark.

    Scores and labels are drawn from 0 to 1. Intensities, and other layers with values outside [0, 1], are drawn from 0
    to the channel's normalisation factor where the table has one, else to the 99.9 % quantile of the channel.

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
        Rows and columns to show, two slices, in pixels of the finer of image and labels. Of more than 2,500 a side
        only every second, third, ... is drawn, so that the memory for whole slides is bounded.
    cmap
        Colour map.
    table_key
        Name of the table.
    ax
        Where to draw; a new figure, with a colour bar, by default.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table, the layer or the channel does not exist.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    adata = table_of(sdata, table_key)
    region = region_of(sdata, channel, labels_key, image_key)
    all_values = column(adata, layer, channel)
    found = read_cells(adata, region, crop)
    # A label without a row is at -1, where the NaN is.
    shown = np.ma.masked_array(np.append(all_values, np.nan)[found.rows], found.labels == 0)

    top, name_of_top = scale_of(adata, layer, channel)
    new, ax = ax is None, panel(ax)
    ax.set_facecolor("black")
    clear = colormaps[cmap].with_extremes(bad=(0, 0, 0, 0))
    drawn = found.draw(ax, shown, cmap=clear, vmin=0, vmax=top)
    unscored = np.ma.masked_equal(np.isnan(shown.filled(0)), 0)
    if unscored.count():
        found.draw(ax, unscored, cmap=ListedColormap([_NOT_SCORED]))
    found.draw_borders(ax)
    if new:
        meaning = f"{title(layer)}, 0 to the {name_of_top}" if name_of_top else UNIT
        ax.figure.colorbar(drawn, ax=ax, label=meaning, extend="max" if name_of_top else "neither", shrink=0.7)
    ax.set_title(f"{channel}: {title(layer)}")
    return ax


def scale_of(adata: AnnData, layer: str, channel: str) -> tuple[float, str]:
    """Return the value that has the last colour and what it is; no name for scores and labels, where it is 1."""
    values = column(adata, layer, channel)
    if holds_scores(layer, values):
        return 1.0, ""
    factor = factor_of(adata, channel)
    if factor is not None:
        return factor, "normalisation factor"
    known = values[np.isfinite(values)]
    top = float(np.quantile(known, 0.999)) if known.size else 1.0
    return (top if top > 0 else 1.0), "99.9 % quantile"
