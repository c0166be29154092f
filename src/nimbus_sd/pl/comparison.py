"""Image, mask, and cells coloured by scores and labels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nimbus_sd import keys
from nimbus_sd.pl._panels import WHOLE, Crop, table_of
from nimbus_sd.pl._style import title
from nimbus_sd.pl.cells import UNIT, cells, scale_of
from nimbus_sd.pl.image import image

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


def comparison(
    sdata: SpatialData,
    channels: Sequence[str],
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    layers: Sequence[str] | None = None,
    crop: Crop = WHOLE,
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
        Layers of the table. None takes those that exist of ``"nimbus"`` and ``"gold"``.
    ax
        Axes of shape (channels, 2 + layers); a new figure, with a colour bar, by default.

    Returns
    -------
    Array of Axes.

    Raises
    ------
    KeyError
        If the table, a layer or a channel does not exist.
    ValueError
        If ``ax`` has another shape, or there is no channel.
    """
    import matplotlib.pyplot as plt
    from matplotlib.cm import ScalarMappable

    channels = [channels] if isinstance(channels, str) else list(channels)
    if not channels:
        raise ValueError("`channels` is empty; name at least one.")
    table = table_of(sdata, table_key)
    layers = _layers(table, layers)
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
    for here, name in zip(axes[0], ["image", "mask", *map(title, layers)], strict=True):
        here.set_title(name)
    if layers and ax is None:
        meaning = _meaning(table, layers, channels)
        figure.colorbar(ScalarMappable(cmap="viridis"), ax=axes, label=meaning, shrink=0.5)
    return axes


def _layers(table: AnnData, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        return [layer for layer in (keys.NIMBUS, keys.GOLD) if layer in table.layers]
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    there = [key for key in table.layers if key is not None]
    if missing := [name for name in names if name not in there]:
        raise KeyError(f"The table has no layer {missing}; there are {there}.")
    return names


def _meaning(table: AnnData, layers: Sequence[str], channels: Sequence[str]) -> str:
    """Say what the colours mean, and for which layers where that differs."""
    named: dict[str, list[str]] = {}
    for layer in layers:
        tops = dict.fromkeys(scale_of(table, layer, channel)[1] for channel in channels)
        meaning = " or ".join(f"0 to the {top} (1)" if top else UNIT for top in tops)
        named.setdefault(meaning, []).append(title(layer))
    if list(named) == [UNIT]:
        return UNIT
    return "\n".join(f"{', '.join(names)}: {meaning}" for meaning, names in named.items())
