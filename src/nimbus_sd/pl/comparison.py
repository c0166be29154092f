"""Image, mask, scores and truth side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nimbus_sd import keys
from nimbus_sd.pl.cells import _WHOLE, Crop, cells, image, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


def comparison(
    sdata: SpatialData,
    channels: Sequence[str],
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    layers: Sequence[str] = (keys.NIMBUS, keys.GOLD),
    crop: Crop = _WHOLE,
    table_key: str = "table",
    ax: Sequence[Sequence[Axes]] | None = None,
) -> np.ndarray:
    """Show one row per channel: the image, the image with the mask, and the cells coloured by each layer.

    Parameters
    ----------
    sdata, labels_key, image_key, crop, table_key
        As for :func:`cells`.
    channels
        Names of the channels.
    layers
        Layers of the table that exist are shown.
    ax
        Axes of shape (channels, 2 + layers); a new figure by default.

    Returns
    -------
    Array of Axes.

    Raises
    ------
    KeyError
        If the table or a channel does not exist.
    ValueError
        If ``ax`` has another shape.
    """
    import matplotlib.pyplot as plt
    from matplotlib.cm import ScalarMappable

    channels = [channels] if isinstance(channels, str) else list(channels)
    table = table_of(sdata, table_key)
    layers = [layer for layer in layers if layer in table.layers]
    shape = (len(channels), 2 + len(layers))
    if ax is None:
        figure, axes = plt.subplots(
            *shape, figsize=(3 * shape[1] + 0.7, 3 * shape[0]), squeeze=False, layout="constrained"
        )
    else:
        axes = np.asarray(ax)
        if axes.size != shape[0] * shape[1]:
            raise ValueError(f"`ax` has the shape {axes.shape}; {shape} is needed (channels, 2 + layers).")
        axes = axes.reshape(shape)
        figure = axes[0, 0].figure
    what: dict[str, Any] = {"image_key": image_key, "crop": crop, "table_key": table_key}
    for row, channel in zip(axes, channels, strict=True):
        image(sdata, channel, labels_key, outlines=False, ax=row[0], **what)
        image(sdata, channel, labels_key, ax=row[1], **what)
        for layer, here in zip(layers, row[2:], strict=True):
            cells(sdata, channel, labels_key, layer=layer, ax=here, **what)
        for here in row:
            here.set_title("")
        row[0].set_ylabel(channel)
    titles = {keys.NIMBUS: "scores", keys.GOLD: "truth", keys.SILVER: "silver labels"}
    for here, title in zip(axes[0], ["image", "mask", *(titles.get(layer, layer) for layer in layers)], strict=True):
        here.set_title(title)
    if layers and ax is None:
        figure.colorbar(ScalarMappable(cmap="viridis"), ax=axes, label="negative (0) to positive (1)", shrink=0.5)
    return axes
