"""Where score and mean disagree: crops of dim positive cells, and of negative ones that are bright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from nimbus_sd import keys
from nimbus_sd.pl._extremes import CALLED, extremes
from nimbus_sd.pl._panels import region_of, table_of
from nimbus_sd.pl._tissue import crop_around, draw_outline
from nimbus_sd.pl.image import image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

# A score that is called at 0.5 must not be shown as the other side of it.
_HALF = "0.50"


def disagreement(
    sdata: SpatialData,
    kind: Literal["dim", "bright"] = "dim",
    *,
    channels: Sequence[str] | None = None,
    layer: str = keys.NIMBUS,
    n_cells: int = 12,
    width: int = 60,
    table_key: str = "table",
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show the cells about which scores and integrated expression disagree most.

    As in the paper's Fig. 5.

    A mean is put on a scale on which the channel's median cell called negative is 0 and the median cell called positive
    is 1. Slivers, cells with less than a third of the table's median ``obs["area"]``, are left out where the table has
    it: they are mistakes of the mask rather than of score or mean.

    Parameters
    ----------
    sdata
        Images, labels and a table with scores; its ``obsm["spatial"]`` holds x and y in pixels of the image.
    kind
        ``"dim"``: called positive (score of at least 0.5) though the relative mean is below 0.5; ``"bright"``: called
        negative though it is above, as where neighbours spill over.
    channels
        Which ones; all by default. Cells of all of them are ranked together, by their relative mean.
    layer
        Layer of scores.
    n_cells
        Number of crops. Fewer are shown where fewer cells disagree, or fewer axes are given.
    width
        Side of a crop, in pixels of the finer of image and labels.
    table_key
        Name of the table.
    ax
        Axes to draw on, one a crop; a new figure by default.

    Returns
    -------
    Array of Axes, one for each cell, the most extreme first. Titles name the channel, the score and the relative mean;
    the cell's outline is orange.

    Raises
    ------
    KeyError
        If a table, layer, channel or ``obsm["spatial"]`` does not exist.
    ValueError
        If ``kind`` is another, ``n_cells`` is below 1, no channel has cells called positive and negative, no cell
        disagrees, or a cell is not where ``obsm["spatial"]`` says.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3"], progress=False)
    >>> axes = ns.pl.disagreement(sdata, "bright", channels=["CD3"], n_cells=4)
    """
    if kind not in CALLED:
        raise ValueError(f"`kind` is {kind!r}; it must be 'dim' or 'bright'.")
    given = None if ax is None else np.asarray(ax).ravel()
    n_cells = n_cells if given is None else min(n_cells, given.size)
    if n_cells < 1:
        raise ValueError("`n_cells` and the number of axes must be at least 1.")
    adata = table_of(sdata, table_key)
    channels = [channels] if isinstance(channels, str) else list(adata.var_names if channels is None else channels)
    picked = extremes(adata, kind, channels, layer, n_cells)
    axes = _grid(len(picked)) if given is None else given
    for cell, here in zip(picked.itertuples(), axes, strict=False):
        _draw(sdata, cell.channel, cell.region, cell.instance, (cell.y, cell.x), width, table_key, here)
        score = f"{cell.score:.2f}"
        score = f"{cell.score:.3f}" if score == _HALF else score
        here.set_title(f"{cell.channel}: score {score}\nrelative mean {cell.relative:.2f}", fontsize=8)
    for here in axes[len(picked) :]:
        here.set_visible(False)
    return axes[: len(picked)]


def _draw(
    sdata: SpatialData,
    channel: str,
    labels_key: str,
    instance: int,
    centre: tuple[float, float],
    width: int,
    table_key: str,
    ax: Axes,
) -> None:
    """Draw a crop around a place in the image's pixels, with the outline of a cell."""
    crop, inside = crop_around(region_of(sdata, channel, labels_key), instance, centre, width)
    image(sdata, channel, labels_key, crop=crop, outlines=False, table_key=table_key, ax=ax)
    draw_outline(ax, inside)


def _grid(n: int) -> np.ndarray:
    import matplotlib.pyplot as plt

    columns = min(n, 6)
    rows = -(-n // columns)
    _, axes = plt.subplots(rows, columns, figsize=(2 * columns, 2.3 * rows), squeeze=False, layout="constrained")
    return axes.ravel()
