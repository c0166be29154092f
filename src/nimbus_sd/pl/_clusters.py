"""What pictures of clusters have in common: colours, means of markers, and an order in which like is by like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import as_list, clusters_of
from nimbus_sd._table import layer as read_layer
from nimbus_sd.pl._layers import check_channels, holds_scores
from nimbus_sd.pl._style import COLORS, title
from nimbus_sd.tl import GREYS

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

NO_CLUSTER = "#d9d9d9"
LEGEND_ROWS = 26


class Means(NamedTuple):
    """Clusters x channels, their sizes, and what the values are.

    Attributes
    ----------
    values
        Mean over the cells that have a value; of intensities scaled from 0 (the lowest cluster) to 1 (the highest).
    size
        Number of cells of each cluster.
    meaning
        For a colour bar.
    """

    values: pd.DataFrame
    size: NDArray[np.int64]
    meaning: str


def means_of(adata: AnnData, groupby: str, layer: str, channels: str | Sequence[str] | None) -> Means:
    """Average a layer over the cells of each cluster, in the order of the clusters."""
    clusters = clusters_of(adata, groupby)
    channels = [str(name) for name in (adata.var_names if channels is None else as_list(channels))]
    check_channels(adata, channels)
    if not channels:
        raise ValueError("`channels` is empty; name at least one.")
    values = read_layer(adata, layer)[:, adata.var_names.get_indexer(channels)]
    mean = pd.DataFrame(values, columns=channels).groupby(np.asarray(clusters.codes)).mean()
    mean = mean.reindex(range(len(clusters.categories))).set_axis(clusters.categories)
    size = np.bincount(clusters.codes[clusters.codes >= 0], minlength=len(clusters.categories))
    if holds_scores(layer, values):
        return Means(mean, size, f"mean of {title(layer)}")
    spread = (mean.max() - mean.min()).replace(0, np.nan)
    return Means((mean - mean.min()) / spread, size, f"{title(layer)},\nlowest to highest cluster")


def tree(values: NDArray) -> NDArray[np.float64] | None:
    """Cluster rows hierarchically (average linkage, Euclidean), like by like; None where there are fewer than three."""
    from scipy.cluster.hierarchy import linkage

    if len(values) < 3:
        return None
    return np.asarray(linkage(np.nan_to_num(values), "average", optimal_ordering=len(values) <= 500))


def colors_of(adata: AnnData, groupby: str) -> dict[str, str]:
    """Give each cluster a colour: that in ``uns[f"{groupby}_colors"]``, where scanpy keeps them, else one of ours.

    Of ours, cells that :func:`nimbus_sd.tl.cell_types` gave no type are grey.
    """
    names = list(clusters_of(adata, groupby).categories)
    column = adata.obs[groupby]
    known = adata.uns.get(f"{groupby}_colors")
    if known is not None and isinstance(column.dtype, pd.CategoricalDtype):
        every = [str(name) for name in column.cat.categories]
        if len(known) == len(every):
            return {name: str(color) for name, color in zip(every, known, strict=True) if name in names}
    typed = [name for name in names if name not in GREYS]
    of_type = dict(zip(typed, distinct(len(typed)), strict=True))
    return {name: GREYS.get(name) or of_type[name] for name in names}


@lru_cache
def distinct(n: int) -> list[str]:
    """Choose n colours: six that colour-blind people can tell apart, then each as far from the others as can be."""
    from matplotlib.colors import to_hex, to_rgb
    from skimage.color import rgb2lab

    chosen = [to_rgb(color) for color in COLORS[:6]]
    steps = np.linspace(0.05, 0.95, 12)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = rgb2lab(rgb)
    # Neither black or white, nor like grey, which means no cluster, nor glaring.
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    fit = (lab[:, 0] > 25) & (lab[:, 0] < 88) & (chroma > 22) & (chroma < 75)
    rgb, lab = rgb[fit], lab[fit]
    nearest = np.min([np.linalg.norm(lab - rgb2lab(np.array(color)), axis=1) for color in chosen], axis=0)
    while len(chosen) < n:
        best = int(nearest.argmax())
        chosen.append(tuple(rgb[best]))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
    return [to_hex(color) for color in chosen[:n]]


def legend_size(names: Iterable[str]) -> tuple[float, float]:
    """Return the inches, rather too many, that a legend of these names and a title take."""
    names = list(names)
    columns = max(1, -(-len(names) // LEGEND_ROWS))
    return columns * (0.5 + 0.08 * max(map(len, names), default=0)), 0.3 + 0.2 * -(-len(names) // columns)


def legend_of(ax: Axes, colors: Mapping[str, str], name: str | None = None, gap: float = 0.08) -> None:
    """Put a legend of clusters to the right of the axes, with a gap in inches."""
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=cluster) for cluster, color in colors.items()]
    place_legend(ax, handles, gap, title=name, title_fontsize="small")


def place_legend(ax: Axes, handles: Sequence[Artist], gap: float = 0.08, **style: Any) -> Legend:
    """Put a legend to the right of the axes, in as many columns as it takes, with a gap in inches."""
    from matplotlib.transforms import ScaledTranslation

    beside = ax.transAxes + ScaledTranslation(gap, 0, ax.figure.dpi_scale_trans)
    columns = -(-len(handles) // LEGEND_ROWS)
    return ax.legend(
        handles=list(handles),
        bbox_to_anchor=(1, 1),
        bbox_transform=beside,
        ncols=columns,
        loc="upper left",
        frameon=False,
        fontsize="small",
        handlelength=1,
        handleheight=1,
        borderaxespad=0,
        **style,
    )
