"""Clusters before and after they were merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import clusters_of
from nimbus_sd.pl._clusters import colors_of, means_of, tree
from nimbus_sd.pl._style import title
from nimbus_sd.pl.score_matrix import draw_matrix, extent, leaves

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# Of a cluster's cells; fewer have no ribbon.
_NOTABLE = 0.01
_FLOW = 1.3


def merging(
    adata: AnnData,
    before: str,
    after: str,
    layer: str = keys.NIMBUS,
    *,
    channels: str | Sequence[str] | None = None,
    cmap: str = "viridis",
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show which clusters became which metacluster, and their markers, before on the left and after on the right.

    Parameters
    ----------
    adata
        Cells x channels.
    before, after
        Columns of ``obs``: clusters, and what they were merged into (or split, or named).
    layer
        Layer of scores. Of intensities, each marker is scaled from its lowest to its highest cluster, on each side.
    channels
        Which ones; all by default.
    cmap
        Colour map.
    ax
        Three axes side by side; a new figure by default.

    Returns
    -------
    Array of three Axes: the matrix before, ribbons, the matrix after. Ribbons lead from each row to where its cells
    are, as wide there as they are many, in the colour of the metacluster; below 1 % of a cluster there is none.

    Raises
    ------
    KeyError
        If a column, the layer or a channel does not exist.
    ValueError
        If a column is none of clusters, no cell is in both, or there are not three axes.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.obs["lineage"] = adata.obs["cell_type"].replace({"CD4 T cell": "T cell", "CD8 T cell": "T cell"})
    >>> axes = ns.pl.merging(adata, "cell_type", "lineage", "gold")
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    first, second = clusters_of(adata, before), clusters_of(adata, after)
    if not ((first.codes >= 0) & (second.codes >= 0)).any():
        raise ValueError(f"No cell has a cluster in both obs[{before!r}] and obs[{after!r}].")
    left, right = (means_of(adata, key, layer, channels) for key in (before, after))
    counts = pd.crosstab(first.codes, second.codes).reindex(
        index=range(len(first.categories)), columns=range(len(second.categories)), fill_value=0
    )
    columns = leaves(tree(left.values.to_numpy().T), left.values.shape[1])
    down = leaves(tree(right.values.to_numpy()), len(right.values))
    # Rows on the left follow the metacluster that most of their cells are in, like by like within it.
    home = np.argsort(down)[counts.to_numpy().argmax(axis=1)]
    alike = np.argsort(leaves(tree(left.values.to_numpy()), len(left.values)))
    order = np.lexsort((alike, home))

    axes = _axes(left.values, right.values) if ax is None else np.asarray(ax).ravel()
    if len(axes) != 3:
        raise ValueError(f"`ax` has {len(axes)} axes; three are needed: before, ribbons, after.")
    draw_matrix(axes[0], left.values.iloc[order, columns], cmap)
    draw_matrix(axes[2], right.values.iloc[down, columns], cmap)
    axes[2].yaxis.tick_right()
    axes[2].tick_params(length=0)
    colors = colors_of(adata, after)
    _ribbons(axes[1], counts.to_numpy()[np.ix_(order, down)], [colors[second.categories[i]] for i in down])
    for here, key, n in ((axes[0], before, len(order)), (axes[2], after, len(down))):
        here.set_title(f"{title(key)}: {n}", fontsize="medium")
    if ax is None:
        scale = ScalarMappable(Normalize(0, 1), cmap)
        axes[0].figure.colorbar(scale, ax=axes[2], label=right.meaning, shrink=0.5, aspect=14, ticks=[0, 0.5, 1])
    return axes


def _axes(left: pd.DataFrame, right: pd.DataFrame) -> np.ndarray:
    import matplotlib.pyplot as plt

    wide = extent(left.shape[1])
    names = 0.08 * sum(max(len(str(name)) for name in side.index) for side in (left, right))
    below = 0.08 * max(len(str(name)) for name in left.columns)
    size = (2 * wide + _FLOW + names + 1.1, max(extent(len(left)), 2.0) + below + 0.5)
    grid = {"width_ratios": [wide, _FLOW, wide], "wspace": 0.01}
    return np.asarray(plt.subplots(1, 3, figsize=size, gridspec_kw=grid, layout="constrained")[1])


def _ribbons(ax: Axes, counts: NDArray[np.int64], colors: Sequence[str]) -> None:
    """Draw ribbons between rows of equal height on either side; counts are rows on the left x rows on the right."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    kept = np.where(share >= _NOTABLE, counts, 0)
    rows, columns = counts.shape
    leaving = np.cumsum(share, axis=1)
    arriving = np.cumsum(kept, axis=0) / np.maximum(kept.sum(axis=0), 1)
    curve = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    for i, j in zip(*np.nonzero(kept), strict=True):
        # Rows keep a gap of a tenth.
        a, b = ((i + 0.05 + 0.9 * at) / rows for at in (leaving[i, j] - share[i, j], leaving[i, j]))
        low = arriving[i, j] - kept[i, j] / kept[:, j].sum()
        c, d = ((j + 0.05 + 0.9 * at) / columns for at in (low, arriving[i, j]))
        points = [(0, a), (0.5, a), (0.5, c), (1, c), (1, d), (0.5, d), (0.5, b), (0, b), (0, a)]
        ax.add_patch(PathPatch(Path(points, curve), facecolor=colors[j], edgecolor="none", alpha=0.65))
    ax.set(xlim=(0, 1), ylim=(1, 0))
    ax.axis("off")
