"""Crops of single cells: where score and mean disagree, and what is typical or doubtful in each cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from spatialdata import SpatialData

from nimbus_sd import keys
from nimbus_sd._table import clusters_of, instance_column, region_column
from nimbus_sd._table import layer as read_layer
from nimbus_sd.pl._common import channel_names, cluster_means, column, factor_of, select
from nimbus_sd.pl.tissue import Crop, image, panel, region_of, table_of
from nimbus_sd.spatial import Region, cell_elements, cell_numbers, rows_of
from nimbus_sd.tl import check_count

_CALLED = {"dim": "positive", "bright": "negative"}
# Of markers on black, and darker on white, which colour-blind people can tell apart.
_LIGHT = np.array([[1.0, 0.15, 0.75], [0.95, 0.85, 0.1], [0.1, 0.65, 1.0]])
_DARK = ("#c2127f", "#9c8500", "#0072b2")
# Above the other cells, in mean scores.
_CHARACTERISTIC = 0.05


def disagreement(
    sdata: SpatialData,
    kind: Literal["dim", "bright"] = "dim",
    *,
    channels: str | Sequence[str] | None = None,
    layer: str = keys.NIMBUS,
    n_cells: int = 12,
    width: int = 60,
    table_key: str = "table",
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show the cells about which scores and integrated expression disagree most, as in Fig. 5 of Rumberger et al.

    A mean is put on a scale on which the channel's median cell called negative is 0 and the median cell called positive
    is 1. Slivers, cells with less than a third of the table's median ``obs["area"]``, are left out where the table has
    it: they are mistakes of the mask rather than of score or mean.

    Parameters
    ----------
    {located_sdata}
    kind
        ``"dim"``: called positive (score of at least 0.5) though the relative mean is below 0.5; ``"bright"``: called
        negative though it is above, as where neighbours spill over.
    channels
        Channels whose cells are ranked together, by their relative mean; all by default.
    {layer}
    n_cells
        Number of crops. Fewer are shown where fewer cells disagree, or fewer axes are given.
    {width}
    {table_key}
    ax
        Axes to draw on, one a crop; a new figure by default.

    Returns
    -------
    Array of Axes, one for each cell, the most extreme first. Titles name the channel, the score and the relative mean;
    the cell's outline is orange.

    Raises
    ------
    ValueError
        If no cell disagrees, no channel has calls of both kinds, or a cell is not where ``obsm["spatial"]`` says.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3"], progress=False)
    >>> axes = ns.pl.disagreement(sdata, "bright", channels=["CD3"], n_cells=4)
    """
    if kind not in _CALLED:
        raise ValueError(f"`kind` is {kind!r}; it must be 'dim' or 'bright'.")
    n_cells = n_cells if ax is None else min(n_cells, np.size(np.asarray(ax)))
    if n_cells < 1:
        raise ValueError("`n_cells` and the number of axes must be at least 1.")
    adata = _located_table(sdata, table_key)
    picked = _disagreeing(adata, kind, channel_names(adata, channels), layer, n_cells)
    axes = np.ravel(np.asarray(ax))
    if ax is None:
        columns = min(len(picked), 6)
        rows = -(-len(picked) // columns)
        axes = np.ravel(plt.subplots(rows, columns, figsize=(2 * columns, 2.3 * rows), layout="constrained")[1])
    for cell, here in zip(picked.itertuples(), axes, strict=False):
        crop, inside = _crop_around(region_of(sdata, adata, cell.channel, cell.region), cell, width)
        image(sdata, cell.channel, cell.region, crop=crop, outlines=False, table_key=table_key, ax=here)
        here.contour(inside, [0.5], colors=["#e69f00"], linewidths=1.2)
        # A score that is called at 0.5 must not be shown as the other side of it.
        digits = 3 if f"{cell.score:.2f}" == "0.50" else 2
        text = f"{cell.channel}: score {cell.score:.{digits}f}\nrelative mean {cell.relative:.2f}"
        here.set_title(text, fontsize=8)
    for here in axes[len(picked) :]:
        here.set_visible(False)
    return axes[: len(picked)]


def _disagreeing(adata: AnnData, kind: str, channels: list[str], layer: str, n_cells: int) -> pd.DataFrame:
    """Find the most extreme cells: channel, row, score, relative mean, region, instance, x and y of each."""
    dim, large, parts = kind == "dim", _large_enough(adata), []
    for channel in channels:
        score, mean = column(adata, layer, channel), column(adata, keys.INTEGRATED, channel)
        positive, negative = np.isfinite(mean) & (score >= 0.5), np.isfinite(mean) & (score < 0.5)
        low, high = (np.median(mean[called]) if called.any() else np.nan for called in (negative, positive))
        if high > low:
            relative = (mean - low) / (high - low)
            rows = np.flatnonzero((positive & (relative < 0.5) if dim else negative & (relative > 0.5)) & large)
            cells = {"channel": channel, "row": rows, "score": score[rows], "relative": relative[rows]}
            parts.append(pd.DataFrame(cells))
    names = ", ".join(channels)
    if not parts:
        raise ValueError(f"None of {names} has cells called positive, brighter on average, and negative.")
    picked = pd.concat(parts).sort_values("relative", ascending=dim, kind="stable").head(n_cells)
    if picked.empty:
        side = "below" if dim else "above"
        raise ValueError(f"No cell called {_CALLED[kind]} for {names} has a relative mean {side} 0.5: nothing to show.")
    return _with_places(adata, picked)


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
    (:func:`nimbus_sd.tl.Metaclusters.apply`); over all scored channels where ``uns[groupby]`` does not tell. Slivers
    are left out as in :func:`disagreement`.

    Parameters
    ----------
    {located_sdata}
    {groupby}
    clusters
        Which ones, a row each; all by default.
    channels
        One to three markers to show in every row. None takes for each cluster the three whose mean score is highest
        above that of the other cells, by at least 0.05 but for the first.
    {layer}
    n_cells
        Crops of each kind.
    {width}
    {table_key}

    Returns
    -------
    Array of Axes, clusters x (typical, then doubtful cells); empty where a cluster has fewer. Markers are drawn from 0
    to their normalisation factor or to the 99.9 % quantile of what is shown, whichever is less; the cell's outline is
    white.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD20"], progress=False)
    >>> axes = ns.pl.cluster_gallery(sdata, "cell_type", ["B cell", "macrophage"], n_cells=2)
    >>> axes.shape
    (2, 4)
    """
    adata = _located_table(sdata, table_key)
    wanted = select(clusters, clusters_of(adata, groupby).categories, f"obs[{groupby!r}] has no cluster")
    check_count("n_cells", n_cells, 1)
    check_count("width", width, 1)
    given = None if channels is None else channel_names(adata, channels)
    if given is not None and not 1 <= len(given) <= len(_DARK):
        raise ValueError(f"`channels` has {len(given)} names; a crop can show one to three.")
    picked, means = _typical_and_doubtful(sdata, adata, groupby, layer, wanted, n_cells)
    markers = {name: given or _markers(adata, groupby, means, name) for name in wanted}

    crops = []
    shown: dict[str, list[NDArray]] = {}
    for cell in picked.itertuples():
        region = region_of(sdata, adata, markers[cell.cluster], cell.region)
        crop, inside = _crop_around(region, cell, width)
        pixels = region.read_image(range(len(region.channels)), *crop).astype(np.float32)
        crops.append((pixels, inside))
        for name, plane in zip(region.channels, pixels, strict=True):
            shown.setdefault(name, []).append(plane.ravel())
    tops = {name: float(np.quantile(np.concatenate(planes), 0.999)) for name, planes in shown.items()}
    tops = {name: min(top, factor_of(adata, name) or top) for name, top in tops.items()}

    axes = _grid(markers, n_cells)
    place = picked.groupby(["cluster", "kind"]).cumcount() + n_cells * (picked["kind"] == "doubtful")
    for cell, number, (pixels, inside) in zip(picked.itertuples(), place, crops, strict=True):
        here = axes[wanted.index(cell.cluster), number]
        top = np.array([tops[name] if tops[name] > 0 else 1.0 for name in markers[cell.cluster]])[:, None, None]
        mixed = np.tensordot(np.clip(pixels / top, 0, 1), _LIGHT[: len(top)], axes=(0, 0))
        here.imshow(np.clip(mixed, 0, 1), interpolation="nearest")
        here.contour(inside, [0.5], colors=["white"], linewidths=1.2)
        if cell.nearest:
            here.set_title(f"or {cell.nearest}?", fontsize=7, pad=2)
    for here in axes.ravel():
        here.axis("off")
    return axes


def _typical_and_doubtful(
    sdata: SpatialData, adata: AnnData, groupby: str, layer: str, wanted: Sequence[str], n_cells: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pick cells by their distance to the means of clusters, the most typical and doubtful first.

    Returns their ``cluster``, ``kind``, ``row``, ``nearest`` (other cluster, "" of typical cells) and place, and the
    means, clusters x channels with a score.
    """
    clusters = clusters_of(adata, groupby)
    scores = pd.DataFrame(read_layer(adata, layer), columns=adata.var_names)
    scores = scores.loc[:, np.isfinite(scores.to_numpy()).any(axis=0)]
    means = cluster_means(adata, groupby, scores)
    made_from = scores.columns.isin(_channels_of(adata, groupby))
    used = made_from if made_from.any() else slice(None)
    values, centres = scores.to_numpy()[:, used], means.to_numpy()[:, used]
    fit = _large_enough(adata) & np.isfinite(values).all(axis=1)
    cut = _cut_by_edge(sdata, adata, clusters.isin(wanted))
    picked: list[tuple[str, str, int, str]] = []
    for name in wanted:
        code = means.index.get_loc(name)
        rows = np.flatnonzero(fit & (clusters.codes == code))
        distance = np.nan_to_num(cdist(values[rows], centres), nan=np.inf)
        near = distance[:, code].copy()
        typical = rows[np.lexsort((near, cut[rows]))[:n_cells]]
        picked += [(name, "typical", row, "") for row in typical]
        distance[:, code] = np.inf
        if np.isfinite(distance).any():
            doubtful = np.argsort(distance.min(axis=1) - near, kind="stable")[:n_cells]
            other = means.index[distance[doubtful].argmin(axis=1)]
            picked += [(name, "doubtful", row, nearest) for row, nearest in zip(rows[doubtful], other, strict=True)]
    if not picked:
        raise ValueError(f"No cell of obs[{groupby!r}] has a score in every channel: there is nothing to show.")
    return _with_places(adata, pd.DataFrame(picked, columns=["cluster", "kind", "row", "nearest"])), means


def _channels_of(adata: AnnData, groupby: str) -> list[str]:
    """Name the channels that clusters were made from, as our tools note them; none where nothing is noted."""
    visited: set[str] = set()
    while groupby not in visited and isinstance(entry := adata.uns.get(groupby), Mapping):
        visited.add(groupby)
        params = entry.get("params", {})
        noted = {"leiden": params, "flowsom": entry}.get(str(entry.get("tool")), {})
        if "channels" in noted:
            return [str(name) for name in noted["channels"]]
        # Metaclusters are of clusters.
        groupby = str(params["groupby"]) if entry.get("tool") == "metaclusters.apply" else groupby
    return []


def _markers(adata: AnnData, groupby: str, means: pd.DataFrame, name: str) -> list[str]:
    """Name the markers whose mean is highest above that of the cells of other clusters."""
    if len(means) == 1:
        return [str(marker) for marker in means.loc[name].nlargest(3).index]
    size = clusters_of(adata, groupby).value_counts().drop(name)
    others = np.ma.average(np.ma.masked_invalid(means.drop(name)), axis=0, weights=size)
    above = (means.loc[name] - np.ma.filled(others, np.nan)).nlargest(3)
    return [str(marker) for i, marker in enumerate(above.index) if i == 0 or above[marker] >= _CHARACTERISTIC]


def _cut_by_edge(sdata: SpatialData, adata: AnnData, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the cells that the edge of their image cuts, in regions of these cells; none where labels are missing."""
    cut = np.zeros(adata.n_obs, bool)
    for name in region_column(adata)[asked].astype(str).unique():
        if name in cell_elements(sdata):
            region, whole, first = region_of(sdata, adata, None, name), slice(None), slice(0, 1)
            last_row, last_column = (slice(size - 1, size) for size in region.shape)
            edges = ((first, whole), (last_row, whole), (whole, first), (whole, last_column))
            rows, ids = rows_of(adata, region)
            cut[rows[np.isin(ids, np.concatenate([region.read_labels(*edge).ravel() for edge in edges]))]] = True
    return cut


def _located_table(sdata: SpatialData, table_key: str) -> AnnData:
    """Return a table that says where its cells are."""
    adata = table_of(sdata, table_key)
    if keys.SPATIAL not in adata.obsm:
        raise KeyError(f"The table has no obsm[{keys.SPATIAL!r}], where x and y of its cells should be, in pixels.")
    return adata


def _large_enough(adata: AnnData) -> NDArray[np.bool_]:
    """Mark cells that are no slivers, where the table has areas."""
    if keys.AREA not in adata.obs:
        return np.ones(adata.n_obs, bool)
    area = adata.obs[keys.AREA].to_numpy(np.float64)
    return ~(area < np.nanmedian(area) / 3)


def _with_places(adata: AnnData, picked: pd.DataFrame) -> pd.DataFrame:
    """Add region, instance, x and y to picked cells, given by their ``row`` in the table."""
    rows = picked["row"].to_numpy()
    x, y = np.asarray(adata.obsm[keys.SPATIAL])[rows, :2].T
    region = region_column(adata).iloc[rows].astype(str).to_numpy()
    return picked.assign(region=region, instance=instance_column(adata).iloc[rows].to_numpy(), x=x, y=y)


def _crop_around(region: Region, cell: Any, width: int) -> tuple[Crop, NDArray[np.bool_]]:
    """Return the crop around a cell, as wide also at the image's edge, and where in it the cell is."""
    top, left = (
        max(0, min(int(centre * region.image_repeat) - width // 2, size - width))
        for centre, size in zip((cell.y, cell.x), region.shape, strict=True)
    )
    crop = (slice(top, top + width), slice(left, left + width))
    inside = region.read_labels(*crop) == cell_numbers(pd.Series([cell.instance]), region)
    if not inside.any():
        place = f"x = {cell.x:g}, y = {cell.y:g} in obsm[{keys.SPATIAL!r}], in pixels of the image"
        raise ValueError(f"Cell {cell.instance} of {region.labels_key!r} is not around its place: {place}.")
    return crop, inside


def _grid(markers: Mapping[str, Sequence[str]], n_cells: int) -> np.ndarray:
    """Make axes for crops, rows named by cluster and its markers in their colours, columns by the kind of cells."""
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = plt.figure(figsize=(1.15 * (2 * n_cells) + 1.5, 1.25 * len(markers) + 0.35), layout=layout)
    grid = figure.add_gridspec(len(markers), 2 * n_cells + 1, width_ratios=[*[1] * n_cells, 0.15, *[1] * n_cells])
    columns = [*range(n_cells), *range(n_cells + 1, 2 * n_cells + 1)]
    axes = np.array([[panel(figure.add_subplot(grid[i, j])) for j in columns] for i in range(len(markers))])
    for ax, (name, channels) in zip(axes[:, 0], markers.items(), strict=True):
        style: dict[str, Any] = {"ha": "right", "va": "center", "transform": ax.transAxes, "fontsize": 8}
        ax.text(-0.08, 0.8, name, weight="bold", **style)
        for i, (channel, color) in enumerate(zip(channels, _DARK, strict=False)):
            ax.text(-0.08, 0.56 - 0.2 * i, channel, color=color, **style)
    for first, text in ((0, "typical"), (n_cells, "doubtful")):
        style = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 9, "va": "bottom"}
        axes[0, first].annotate(text, (0, 1), (0, 12), **style)
    return axes
