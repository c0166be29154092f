"""Two clusterings of the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd._table import clusters_of
from nimbus_sd.pl._style import title

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# Inches a row or column.
_CELL = 0.3


def compare_clusterings(adata: AnnData, a: str, b: str, *, cmap: str = "Blues", ax: Axes | None = None) -> Axes:
    """Show how clusters of one column are spread over those of another, such as of scores and of intensities.

    Parameters
    ----------
    adata
        A table of cells.
    a, b
        Columns of ``obs`` with clusters: rows and columns of the picture.
    cmap
        Colour map.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Each row adds up to 1 over the cells that both columns cluster; shares from 1 % are written in, in %. Rows and
        columns are ordered so that what belongs together lies on the diagonal. The title says the adjusted Rand index
        (1: the same clusters, 0: as alike as chance makes them).

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If a column is none of clusters, or no cell is in both.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.obs["immune"] = adata.obs["cell_type"].isin(["epithelium", "other"]).map({True: "no", False: "yes"})
    >>> ns.pl.compare_clusterings(adata, "cell_type", "immune").get_title()
    'adjusted Rand index 0.30'
    """
    import matplotlib.pyplot as plt
    from sklearn.metrics import adjusted_rand_score

    rows, columns = clusters_of(adata, a), clusters_of(adata, b)
    both = (rows.codes >= 0) & (columns.codes >= 0)
    if not both.any():
        raise ValueError(f"No cell has a cluster in both obs[{a!r}] and obs[{b!r}].")
    rows, columns = rows[both], columns[both]
    counts = pd.crosstab(np.asarray(rows), np.asarray(columns))
    counts = counts.reindex(
        index=[name for name in rows.categories if name in counts.index],
        columns=[name for name in columns.categories if name in counts.columns],
    )
    share = counts.div(counts.sum(axis=1), axis=0)
    # A column belongs to the row that has most of it; within a row the largest comes first.
    home = counts.to_numpy().argmax(axis=0)
    share = share.iloc[:, np.lexsort((-counts.to_numpy().max(axis=0), home))]
    share = share.iloc[np.argsort(share.to_numpy().argmax(axis=1), kind="stable")]
    if ax is None:
        longest = [max(len(str(name)) for name in names) for names in (share.index, share.columns)]
        size = [_CELL * n + 1.2 + 0.08 * text for n, text in zip(share.shape[::-1], longest, strict=True)]
        _, ax = plt.subplots(figsize=(max(size[0], 3.5), size[1]), layout="constrained")
    ax.imshow(share, cmap=cmap, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for (y, x), value in np.ndenumerate(share.to_numpy()):
        if value >= 0.01 and share.size <= 900:
            color = "white" if value > 0.6 else "#333333"
            ax.text(x, y, f"{value:.0%}".removesuffix("%"), ha="center", va="center", fontsize="x-small", color=color)
    ax.set_xticks(range(share.shape[1]), share.columns, rotation=90, fontsize="small")
    ax.set_yticks(range(share.shape[0]), share.index, fontsize="small")
    ax.tick_params(length=0)
    ax.set(xlabel=title(b), ylabel=title(a))
    index = adjusted_rand_score(np.asarray(rows.codes), np.asarray(columns.codes))
    ax.set_title(f"adjusted Rand index {index:.2f}", fontsize="medium")
    return ax
