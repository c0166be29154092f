"""Silver labels beside the intensities of the types that they are from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._table import clusters_of
from nimbus_sd._table import layer as read_layer
from nimbus_sd.pl._clusters import means_of
from nimbus_sd.pl._style import COLORS
from nimbus_sd.pl.score_matrix import draw_matrix, extent, font_size

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# Labels of a type's cells, and what stands for them.
_SIGNS = {1.0: "+", 0.0: "\N{MINUS SIGN}", 0.5: "?"}


def check_silver(
    adata: AnnData,
    *,
    cell_type_key: str = "cell_type",
    layer: str = keys.INTEGRATED,
    silver: str = keys.SILVER,
    ax: Axes | None = None,
) -> Axes:
    """Show what silver labels say of each type and marker, on the mean intensities: plus signs should be bright.

    Parameters
    ----------
    adata
        Cells x channels.
    cell_type_key
        Column of ``obs`` with the types that the labels are from.
    layer
        Layer of intensities.
    silver
        Layer of labels.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Types x markers, coloured by mean intensity, each marker from its lowest to its highest type; + positive,
        \N{MINUS SIGN} negative, ? undetermined. Markers in the order of :func:`nimbus_sd.labels.check_silver`, the
        worst to the left; where a negative type is as bright as a positive one, both are framed.

    Raises
    ------
    KeyError
        If a layer or the column does not exist.
    ValueError
        If the labels say nothing.

    Examples
    --------
    >>> import pandas as pd
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.X
    >>> names = ["CD4 T cell", "CD8 T cell", "B cell", "macrophage", "epithelium", "other"]
    >>> ns.labels.silver(adata, pd.DataFrame({"CD3": [1, 1, 0, 0, 0, 0], "CD20": [0, 0, 1, 0, 0, 0]}, index=names))
    >>> ax = ns.pl.check_silver(adata)
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    from nimbus_sd.labels import check_silver as check

    table = check(adata, cell_type_key=cell_type_key, layer=layer, silver=silver)
    values, _, meaning = means_of(adata, cell_type_key, layer, list(table.index))
    if ax is None:
        longest = [max(map(len, map(str, names))) for names in (values.index, values.columns)]
        size = (extent(values.shape[1]) + 0.08 * longest[0] + 1.2, extent(len(values)) + 0.08 * longest[1] + 0.3)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    drawn = draw_matrix(ax, values, "viridis")
    points = min(font_size(len(values)), font_size(values.shape[1]))
    for (y, x), sign in np.ndenumerate(_signs(adata, cell_type_key, silver, values)):
        color = "black" if values.iat[y, x] > 0.6 else "white"
        ax.text(x, y, sign, ha="center", va="center", color=color, fontsize=points)
    for x, (_, row) in enumerate(table.iterrows()):
        for name in filter(None, (row["positive_type"], row["negative_type"]) if row["reason"] else ()):
            y = values.index.get_loc(name)
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=COLORS[1], linewidth=2, zorder=3))
    bar = ax.figure.colorbar(drawn, ax=ax, ticks=[0, 1], shrink=0.8)
    bar.set_label(meaning.replace("cluster", "type"), fontsize="x-small")
    bar.ax.tick_params(labelsize="x-small")
    return ax


def _signs(adata: AnnData, cell_type_key: str, silver: str, values: pd.DataFrame) -> np.ndarray:
    """Write the label of each type and marker, empty where cells differ or are not judged."""
    types = clusters_of(adata, cell_type_key)
    labels = pd.DataFrame(read_layer(adata, silver), columns=adata.var_names)[list(values.columns)]
    groups = labels.groupby(np.asarray(types.codes))
    low, high = (one.reindex(range(len(types.categories))).to_numpy() for one in (groups.min(), groups.max()))
    return np.where(low == high, np.vectorize(lambda label: _SIGNS.get(label, ""))(low), "")
