"""A channel with the outlines of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nimbus_sd.pixels import interior
from nimbus_sd.pl._layers import factor_of
from nimbus_sd.pl._panels import WHOLE, Crop, check_crop, panel, region_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


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
    sdata
        Images and labels.
    channel
        Name of the channel.
    labels_key
        Which cells; may be left out where there is one labels element only.
    image_key
        Which image; may be left out where only one shares a coordinate system with the labels.
    crop
        Rows and columns to show, two slices, in pixels of the finer of image and labels.
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
    check_crop(crop)
    region = region_of(sdata, channel, labels_key, image_key)
    pixels = region.read_image([0], *crop)[0].astype(np.float32)
    top = factor_of(sdata.tables[table_key], channel) if table_key in sdata.tables else None
    if top is None:
        positive = pixels[pixels > 0]
        top = float(np.quantile(positive, 0.999)) if positive.size else 1.0
    ax = panel(ax)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    if outlines:
        labels = region.read_labels(*crop)
        edge = np.ma.masked_equal((labels > 0) & ~interior(labels), 0)
        ax.imshow(edge, cmap="spring", vmin=0, vmax=2, alpha=0.6, interpolation="nearest")
    ax.set_title(channel)
    return ax
