"""Crops of cells of each cluster: the typical ones, and those to doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of
from nimbus_sd.pl._extremes import check_places
from nimbus_sd.pl._layers import check_channels, factor_of, regions_of
from nimbus_sd.pl._panels import panel, region_of, table_of
from nimbus_sd.pl._tissue import crop_around, cut_by_edge, draw_outline
from nimbus_sd.pl._typical import typical_and_doubtful
from nimbus_sd.tl import check_count

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

# On black, and darker on white; colour-blind people can tell them apart.
_LIGHT = np.array([[1.0, 0.15, 0.75], [0.95, 0.85, 0.1], [0.1, 0.65, 1.0]])
_DARK = ("#c2127f", "#9c8500", "#0072b2")
# Above the other cells, in mean scores.
_CHARACTERISTIC = 0.05


def cluster_gallery(
    sdata: SpatialData,
    groupby: str,
    clusters: str | Sequence[str] | None = None,
    *,
    channels: str | Sequence[str] | None = None,
    layer: str = keys.NIMBUS,
    n_cells: int = 4,
    width: int = 60,
    table_key: str = "table",
) -> np.ndarray:
    """Show typical and doubtful cells of each cluster in the image, in the colours of up to three markers.

    Typical cells are the nearest to the mean score of their cluster (Euclidean), those that the image's edge cuts last.
    Doubtful ones are those to which the mean of another cluster is nearer than their own, or comes nearest to be so;
    their titles name it. Distances are over the channels that :func:`nimbus_sd.tl.leiden` or
    :func:`nimbus_sd.tl.flowsom` made the clusters from, also where they were merged since
    (:meth:`nimbus_sd.tl.Metaclusters.apply`); over all scored channels where ``uns[groupby]`` does not tell. Slivers
    are left out as in :func:`disagreement`.

    Parameters
    ----------
    sdata
        Images, labels and a table with scores; its ``obsm["spatial"]`` holds x and y in pixels of the image.
    groupby
        Column of the table's ``obs`` with clusters.
    clusters
        Which ones, a row each; all by default.
    channels
        One to three markers to show in every row. None takes for each cluster the three whose mean score is highest
        above that of the other cells, by at least 0.05 but for the first.
    layer
        Layer of scores.
    n_cells
        Crops of each kind.
    width
        Side of a crop, in pixels of the finer of image and labels.
    table_key
        Name of the table.

    Returns
    -------
    Array of Axes, clusters x (typical, then doubtful cells); empty where a cluster has fewer. Markers are drawn from 0
    to their normalisation factor or to the 99.9 % quantile of what is shown, whichever is less; the cell's outline is
    white.

    Raises
    ------
    KeyError
        If a table, column, cluster, layer, channel or ``obsm["spatial"]`` does not exist.
    ValueError
        If there are more than three channels, ``n_cells`` or ``width`` is no whole number above 0, no cell has all
        scores, or a cell is not where ``obsm["spatial"]`` says.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD20"], progress=False)
    >>> axes = ns.pl.cluster_gallery(sdata, "cell_type", ["B cell", "macrophage"], n_cells=2)
    >>> axes.shape
    (2, 4)
    """
    adata = table_of(sdata, table_key)
    names = list(clusters_of(adata, groupby).categories)
    wanted = names if clusters is None else [str(name) for name in as_list(clusters)]
    if unknown := [name for name in wanted if name not in names]:
        raise KeyError(f"obs[{groupby!r}] has no cluster {', '.join(map(repr, unknown))}; it has {names}.")
    check_count("n_cells", n_cells, 1)
    check_count("width", width, 1)
    given = None if channels is None else [str(name) for name in as_list(channels)]
    if given is not None:
        check_channels(adata, given)
        if not 1 <= len(given) <= len(_DARK):
            raise ValueError(f"`channels` has {len(given)} names; a crop can show one to three.")
    check_places(adata)
    cut = _cut(sdata, adata, clusters_of(adata, groupby).isin(wanted))
    picked, means = typical_and_doubtful(adata, groupby, layer, wanted, n_cells, cut)
    of_cluster = {name: given or _markers(adata, groupby, means, name) for name in wanted}
    crops = [_read(sdata, cell, of_cluster[cell.cluster], width) for cell in picked.itertuples()]
    tops = _tops(adata, picked, of_cluster, [pixels for pixels, _ in crops])

    axes = _grid(len(wanted), n_cells)
    for row, name in zip(axes, wanted, strict=True):
        _name(row[0], name, of_cluster[name])
    filled = dict.fromkeys([(name, kind) for name in wanted for kind in ("typical", "doubtful")], 0)
    for cell, (pixels, inside) in zip(picked.itertuples(), crops, strict=True):
        place = filled[cell.cluster, cell.kind]
        filled[cell.cluster, cell.kind] += 1
        here = axes[wanted.index(cell.cluster), place + (n_cells if cell.kind == "doubtful" else 0)]
        scaled = pixels / np.array([tops[name] for name in of_cluster[cell.cluster]])[:, None, None]
        mixed = np.tensordot(np.clip(scaled, 0, 1), _LIGHT[: len(scaled)], axes=(0, 0))
        here.imshow(np.clip(mixed, 0, 1), interpolation="nearest")
        draw_outline(here, inside, "white")
        if cell.nearest:
            here.set_title(f"or {cell.nearest}?", fontsize=7, pad=2)
    for here in axes.ravel():
        here.axis("off")
    return axes


def _cut(sdata: SpatialData, adata: AnnData, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which of these cells the edge of their image cuts; none where labels are missing, an error once shown."""
    cut = np.zeros(adata.n_obs, bool)
    regions = regions_of(adata)
    for name in [] if regions is None else regions[asked].unique():
        if name in sdata.labels:
            cut[cut_by_edge(adata, region_of(sdata, None, name))] = True
    return cut


def _markers(adata: AnnData, groupby: str, means: pd.DataFrame, name: str) -> list[str]:
    """Name the markers whose mean is highest above that of the cells of other clusters."""
    if len(means) == 1:
        return [str(marker) for marker in means.loc[name].nlargest(3).index]
    size = clusters_of(adata, groupby).value_counts().reindex(means.index)
    others = means.drop(name)
    weight = size.drop(name)
    rest = others.mul(weight, axis=0).sum() / others.notna().mul(weight, axis=0).sum()
    above = (means.loc[name] - rest).nlargest(3)
    return [str(marker) for i, marker in enumerate(above.index) if i == 0 or above[marker] >= _CHARACTERISTIC]


def _read(sdata: SpatialData, cell: tuple, channels: list[str], width: int) -> tuple[NDArray, NDArray[np.bool_]]:
    """Read a cell's crop, shape (channels, y, x), and where in it the cell is."""
    region = region_of(sdata, channels, cell.region)  # type: ignore[attr-defined]
    crop, inside = crop_around(region, cell.instance, (cell.y, cell.x), width)  # type: ignore[attr-defined]
    return region.read_image(range(len(channels)), *crop).astype(np.float32), inside


def _tops(
    adata: AnnData, picked: pd.DataFrame, of_cluster: dict[str, list[str]], pixels: list[NDArray]
) -> dict[str, float]:
    """Find the value of each marker that is drawn brightest."""
    shown: dict[str, list[NDArray]] = {}
    for cluster, crop in zip(picked["cluster"], pixels, strict=True):
        for name, plane in zip(of_cluster[cluster], crop, strict=True):
            shown.setdefault(name, []).append(plane.ravel())
    tops = {}
    for name, planes in shown.items():
        factor, shown_top = factor_of(adata, name), float(np.quantile(np.concatenate(planes), 0.999))
        tops[name] = min(shown_top, factor or shown_top)
    return {name: top if top > 0 else 1.0 for name, top in tops.items()}


def _name(ax: Axes, name: str, channels: list[str]) -> None:
    """Write a cluster's name and its markers, in their colours, to the left of a row."""
    style: dict[str, Any] = {"ha": "right", "va": "center", "transform": ax.transAxes, "fontsize": 8}
    ax.text(-0.08, 0.8, name, weight="bold", **style)
    for i, (channel, color) in enumerate(zip(channels, _DARK, strict=False)):
        ax.text(-0.08, 0.56 - 0.2 * i, channel, color=color, **style)


def _grid(rows: int, n_cells: int) -> np.ndarray:
    """Make axes for crops, with a gap between both kinds and a heading above each."""
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = plt.figure(figsize=(1.15 * (2 * n_cells) + 1.5, 1.25 * rows + 0.35), layout=layout)
    grid = figure.add_gridspec(rows, 2 * n_cells + 1, width_ratios=[*[1] * n_cells, 0.15, *[1] * n_cells])
    columns = [*range(n_cells), *range(n_cells + 1, 2 * n_cells + 1)]
    axes = np.array([[panel(figure.add_subplot(grid[row, column])) for column in columns] for row in range(rows)])
    for first, text in ((0, "typical"), (n_cells, "doubtful")):
        axes[0, first].annotate(
            text, (0, 1), xytext=(0, 12), xycoords="axes fraction", textcoords="offset points", fontsize=9, va="bottom"
        )
    return axes
