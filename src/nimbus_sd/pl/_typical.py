"""Cells that stand for their cluster, and cells that hardly belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from nimbus_sd._table import clusters_of
from nimbus_sd._table import layer as read_layer
from nimbus_sd.pl._extremes import large_enough, with_places

if TYPE_CHECKING:
    from anndata import AnnData


def typical_and_doubtful(
    adata: AnnData,
    groupby: str,
    layer: str,
    wanted: Sequence[str],
    n_cells: int,
    cut: NDArray[np.bool_] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pick cells of each cluster by their distance to the means of clusters, over `channels_of` that are scored.

    Parameters
    ----------
    adata, groupby, layer
        Scores and clusters.
    wanted
        Clusters to pick of.
    n_cells
        Of each kind.
    cut
        Cells that the image's edge cuts: typical only where there are too few others.

    Returns
    -------
    picked
        ``cluster``, ``kind`` ("typical" or "doubtful"), ``row``, ``nearest`` (the nearest other cluster, empty where
        there is none), ``region``, ``instance``, ``x`` and ``y``; the most typical and the most doubtful first.
    means
        Clusters x channels, without channels that have no score.
    """
    clusters = clusters_of(adata, groupby)
    values = read_layer(adata, layer)
    scored = np.isfinite(values).any(axis=0)
    values, channels = values[:, scored], adata.var_names[scored]
    frame = pd.DataFrame(values, columns=channels).groupby(np.asarray(clusters.codes)).mean()
    means = frame.reindex(range(len(clusters.categories))).set_axis(clusters.categories)
    judged = np.isin(channels, channels_of(adata, groupby))
    if judged.any():
        values = values[:, judged]
    centres = means.to_numpy()[:, judged if judged.any() else slice(None)]
    fit = large_enough(adata) & np.isfinite(values).all(axis=1)
    cut = np.zeros(len(values), bool) if cut is None else cut
    found = []
    for name in wanted:
        own = clusters.categories.get_loc(name)
        rows = np.flatnonzero(fit & (clusters.codes == own))
        near, margin = _distances(values[rows], centres, own)
        found += _rows(name, "typical", rows[np.lexsort((near, cut[rows]))[:n_cells]], {})
        if margin is not None:
            other, excess = margin
            first = np.argsort(-excess, kind="stable")[:n_cells]
            nearest = dict(zip(rows[first], clusters.categories[other[first]], strict=True))
            found += _rows(name, "doubtful", rows[first], nearest)
    if not found:
        raise ValueError(f"No cell of obs[{groupby!r}] has a score in every channel: there is nothing to show.")
    return with_places(adata, pd.DataFrame(found, columns=["cluster", "kind", "row", "nearest"])), means


def channels_of(adata: AnnData, groupby: str) -> list[str]:
    """Name the channels that clusters were made from, as our tools note them; none where nothing is noted."""
    seen: set[str] = set()
    # Metaclusters are of clusters.
    while groupby not in seen:
        seen.add(groupby)
        entry = adata.uns.get(groupby)
        if not isinstance(entry, Mapping):
            return []
        params = entry.get("params", {})
        noted = {"leiden": params, "flowsom": entry}.get(str(entry.get("tool")), {})
        if "channels" in noted:
            return [str(name) for name in noted["channels"]]
        if entry.get("tool") != "metaclusters.apply":
            return []
        groupby = str(params["groupby"])
    return []


def _distances(
    values: NDArray, means: NDArray, own: int
) -> tuple[NDArray[np.float64], tuple[NDArray[np.intp], NDArray[np.float64]] | None]:
    """Distance to the own mean; nearest other cluster, and by how much it is nearer (below 0: farther)."""
    distance = np.nan_to_num(cdist(values, means), nan=np.inf)
    near = distance[:, own].copy()
    distance[:, own] = np.inf
    if not np.isfinite(distance).any():
        return near, None
    other = distance.argmin(axis=1)
    return near, (other, near - distance.min(axis=1))


def _rows(name: str, kind: str, rows: NDArray[np.intp], nearest: dict) -> list[tuple[str, str, int, str]]:
    return [(name, kind, int(row), str(nearest.get(row, ""))) for row in rows]
