"""Cells on the tissue, coloured by cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nimbus_sd._table import as_list, clusters_of
from nimbus_sd.pl._clusters import NO_CLUSTER, colors_of, legend_of, legend_size
from nimbus_sd.pl._panels import WHOLE, Crop, panel, region_of, table_of
from nimbus_sd.pl._style import title
from nimbus_sd.pl._tissue import read_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

# Inches.
_SIDE = 4.8


def clusters(
    sdata: SpatialData,
    groupby: str,
    labels_key: str | None = None,
    *,
    image_key: str | None = None,
    groups: str | Sequence[str] | None = None,
    crop: Crop = WHOLE,
    table_key: str = "table",
    ax: Axes | None = None,
) -> Axes:
    """Colour cells by their cluster; cells without one are grey, borders between cells dark.

    Parameters
    ----------
    sdata
        Labels and a table of them.
    groupby
        Column of the table's ``obs`` with clusters.
    labels_key
        Which cells; may be left out where there is one labels element only.
    image_key
        As for :func:`image`.
    groups
        Clusters to colour; the others are grey. All by default.
    crop
        Rows and columns to show, two slices, in pixels of the finer of image and labels. Of more than 2,500 a side
        only every second, third, ... is drawn, so that the memory for whole slides is bounded.
    table_key
        Name of the table.
    ax
        Where to draw, without a legend; a new figure, with a legend, by default.

    Returns
    -------
    Axes
        Colours are those in ``uns[f"{groupby}_colors"]``, where scanpy keeps them, else our own. The legend names the
        clusters that are shown.

    Raises
    ------
    KeyError
        If the table, the column or one of ``groups`` does not exist.
    ValueError
        If ``groupby`` is no column of clusters, or ``crop`` is not two slices.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ax = ns.pl.clusters(ns.datasets.example(), "cell_type", "fov1_labels")
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgba

    adata = table_of(sdata, table_key)
    found, colors = clusters_of(adata, groupby), colors_of(adata, groupby)
    wanted = list(found.categories) if groups is None else [str(name) for name in as_list(groups)]
    if unknown := [name for name in wanted if name not in colors]:
        raise KeyError(f"obs[{groupby!r}] has no cluster {', '.join(map(repr, unknown))}; it has {list(colors)}.")
    region = region_of(sdata, None, labels_key, image_key)
    tissue = read_cells(adata, region, crop)
    # A cell without a cluster, and a label without a row, are at -1, where the grey is.
    palette = [colors[name] if name in wanted else NO_CLUSTER for name in found.categories]
    code = np.append(found.codes, -1)[tissue.rows]
    cell = tissue.labels > 0
    # Bytes, as pictures may be large.
    shown = np.rint(255 * np.array([to_rgba(color) for color in [*palette, NO_CLUSTER]])).astype(np.uint8)[code]
    shown[~cell] = 0
    there = {found.categories[i] if i >= 0 else None for i in np.unique(code[cell])}
    named = {name: colors[name] for name in wanted if name in there}
    if len(named) < len(there):
        named["other cells" if groups is not None else "no cluster"] = NO_CLUSTER

    new = ax is None
    if ax is None:
        wide, high = legend_size(named)
        _, ax = plt.subplots(figsize=(_SIDE + wide, max(_SIDE, 0.3 + high)), layout="compressed")
    ax = panel(ax)
    ax.set_facecolor("black")
    tissue.draw(ax, shown)
    tissue.draw_borders(ax)
    if new:
        legend_of(ax, named)
    ax.set_title(title(groupby))
    return ax
