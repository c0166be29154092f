"""What each region consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd._table import clusters_of, region_column
from nimbus_sd.pl._clusters import NO_CLUSTER, colors_of, legend_of, legend_size
from nimbus_sd.pl._style import axes, title

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# Inches.
_BARS = 3.2


def composition(adata: AnnData, groupby: str, *, by: str | None = None, ax: Axes | None = None) -> Axes:
    """Show the share of each cluster, or cell type, in each region.

    Parameters
    ----------
    adata
        A table of cells.
    groupby
        Column of ``obs`` with clusters or types.
    by
        Column of ``obs`` whose values make a bar each: regions by default, or patients, treatments, ...
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        One bar per region, its number of cells at its end; cells without a cluster are grey. Colours as in
        :func:`clusters`.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If ``groupby`` is no column of clusters, or ``by`` holds numbers with decimals.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ax = ns.pl.composition(ns.datasets.example().tables["table"], "cell_type")
    >>> [tick.get_text() for tick in ax.get_yticklabels()]
    ['fov1_labels', 'fov2_labels']
    """
    found, colors = clusters_of(adata, groupby), colors_of(adata, groupby)
    bars = clusters_of(adata, str(region_column(adata, by).name))
    counts = pd.crosstab(np.asarray(bars), found.codes).reindex(columns=[*range(len(found.categories)), -1])
    counts = counts.reindex(bars.categories).fillna(0)
    total = counts.sum(axis=1).to_numpy()
    shown = {name: colors[name] for name in found.categories}
    if counts[-1].any():
        shown["no cluster"] = NO_CLUSTER
    numbers = [f"{int(n):,}" for n in total]
    # Inches beside the bars, which keep their size however long the names are.
    left, right = (0.08 * max(map(len, texts)) for texts in (list(map(str, counts.index)), numbers))
    wide, high = legend_size(shown)
    ax = axes(ax, left + _BARS + right + 0.2 + wide, max(0.9 + 0.32 * len(counts), 0.1 + high))
    start = np.zeros(len(counts))
    for code, color in zip(counts.columns, shown.values(), strict=False):
        share = counts[code].to_numpy() / total
        ax.barh(range(len(counts)), share, left=start, color=color, height=0.8, edgecolor="white", linewidth=0.4)
        start += share
    for y, number in enumerate(numbers):
        ax.annotate(
            number,
            (1, y),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
            color="#333333",
        )
    ax.set_yticks(range(len(counts)), [str(name) for name in counts.index], fontsize="small")
    ax.set(xlim=(0, 1), ylim=(len(counts) - 0.5, -0.5), xlabel="share of cells")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    # Beyond the numbers of cells.
    legend_of(ax, shown, title(groupby), gap=right + 0.1)
    return ax
