"""The cells whose mean speaks against how they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.pl._layers import check_channels, column, regions_of
from nimbus_sd.spatial import rows_of

if TYPE_CHECKING:
    from anndata import AnnData

#: How the cells of each kind are called.
CALLED = {"dim": "positive", "bright": "negative"}


def extremes(adata: AnnData, kind: str, channels: list[str], layer: str, n_cells: int) -> pd.DataFrame:
    """Find the most extreme cells: channel, score, relative mean, region, instance, x and y of each."""
    check_channels(adata, channels)
    check_places(adata)
    large = large_enough(adata)
    found = []
    comparable = False
    for channel in channels:
        score, mean = column(adata, layer, channel), column(adata, keys.INTEGRATED, channel)
        relative = _relative(score, mean)
        if relative is None:
            continue
        comparable = True
        dim = kind == "dim"
        wrong = (score >= 0.5) & (relative < 0.5) if dim else (score < 0.5) & (relative > 0.5)
        rows = np.flatnonzero(wrong & large)
        rows = rows[np.argsort(relative[rows] if dim else -relative[rows], kind="stable")[:n_cells]]
        found.append(pd.DataFrame({"channel": channel, "row": rows, "score": score[rows], "relative": relative[rows]}))
    names = ", ".join(channels)
    if not comparable:
        raise ValueError(f"None of {names} has cells called positive, brighter on average, and negative.")
    picked = pd.concat(found).sort_values("relative", ascending=kind == "dim", kind="stable").head(n_cells)
    if picked.empty:
        side = "below" if kind == "dim" else "above"
        raise ValueError(f"No cell called {CALLED[kind]} for {names} has a relative mean {side} 0.5: nothing to show.")
    return with_places(adata, picked)


def _relative(score: NDArray, mean: NDArray) -> NDArray | None:
    """Put means on the scale from the median negative to the median positive cell; None where there is none."""
    known = np.isfinite(score) & np.isfinite(mean)
    positive, negative = known & (score >= 0.5), known & (score < 0.5)
    if not positive.any() or not negative.any():
        return None
    low, high = np.median(mean[negative]), np.median(mean[positive])
    return (mean - low) / (high - low) if high > low else None


def large_enough(adata: AnnData) -> NDArray[np.bool_]:
    """Leave out slivers, where the table knows areas."""
    if keys.AREA not in adata.obs:
        return np.ones(adata.n_obs, bool)
    area = adata.obs[keys.AREA].to_numpy(np.float64)
    return ~(area < np.nanmedian(area) / 3)


def check_places(adata: AnnData) -> None:
    """Raise a KeyError if the table does not say where its cells are."""
    if keys.SPATIAL not in adata.obsm:
        raise KeyError(f"The table has no obsm[{keys.SPATIAL!r}], where x and y of its cells should be, in pixels.")


def with_places(adata: AnnData, picked: pd.DataFrame) -> pd.DataFrame:
    """Add region, instance, x and y to picked cells, given by their ``row`` in the table."""
    regions = regions_of(adata)
    if regions is None:
        raise KeyError("The table does not say which labels its rows are in; see spatialdata's TableModel.parse.")
    rows = picked["row"].to_numpy()
    region = regions.to_numpy()[rows]
    instance = np.zeros(len(rows), np.int64)
    for name in dict.fromkeys(region):
        places, ids = rows_of(adata, name)
        here = region == name
        instance[here] = ids[np.searchsorted(places, rows[here])]
    x, y = np.asarray(adata.obsm[keys.SPATIAL])[rows, :2].T
    return picked.assign(region=region, instance=instance, x=x, y=y)
