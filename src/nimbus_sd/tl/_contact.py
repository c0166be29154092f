"""Checks of contact: how much of a cell's signal its neighbours explain, estimated from the boundaries they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from nimbus_sd import keys
from nimbus_sd._table import layer as read_layer
from nimbus_sd._table import region_column

Flags: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = NDArray[np.float64]
#: Cluster, check, markers, value, expected, cells, concern, reason.
Finding: TypeAlias = tuple[str, str, str, float, float, int, float, str]

# Fewer cells are too few to estimate a background or a leak.
_FEWEST = 20
# A cell is doubtful if its neighbours explain more than this share of its signal.
_MOSTLY = 0.5
# On the scale from the median negative (0) to the median positive cell (1).
_DIM = 0.5
# Of the perimeter, shared with positive cells.
_LITTLE_CONTACT = 0.1


class Clusters:
    """Clusters of n cells: ``codes``, (n,), -1 for none; ``names``, ``size`` and the ``fewest`` cells worth a row."""

    def __init__(self, column: pd.Categorical, min_share: float, min_cells: int) -> None:
        self.codes = np.asarray(column.codes)
        self.names = list(column.categories)
        self.size = self.count(self.codes >= 0)
        self.fewest = np.maximum(min_share * self.size, min_cells)

    def count(self, cells: Flags) -> NDArray[np.int64]:
        """Count these cells in each cluster."""
        return np.bincount(self.codes[cells & (self.codes >= 0)], minlength=len(self.names))

    def sum(self, values: NDArray, cells: Flags) -> Values:
        """Add up values over these cells of each cluster."""
        cells = cells & (self.codes >= 0)
        return np.bincount(self.codes[cells], values[cells], minlength=len(self.names)).astype(np.float64)


def beyond_chance(share: NDArray, expected: NDArray | float, n: NDArray) -> Flags:
    """Whether shares of n cells are above the expected ones by more than two standard errors."""
    return np.asarray(share > expected + 2 * np.sqrt(expected * (1 - expected) / np.maximum(n, 1)))


def contact_findings(
    adata: AnnData, clusters: Clusters, positive: Flags, negative: Flags, region_key: str | None
) -> Iterator[tuple[str, float, list[Finding]]]:
    """Yield each marker, its leak, and the findings of "spill_over" and "dim" in it.

    The leak, the share of a neighbour's signal that comes over at a boundary all around, is the slope through the
    origin, at least 0, of the signal of negative cells against the signal around them; neighbours are weighted by the
    shared perimeter. Markers of which fewer than 20 negative cells touch positive ones are left out. Cells without a
    cluster are in another one for everybody; ``positive`` and ``negative`` are (cells, channels).
    """
    for slot, name in (("obsp", keys.BOUNDARY), ("obs", keys.PERIMETER)):
        if name not in getattr(adata, slot):
            hint = "run `nimbus_sd.tl.cell_features(sdata)`, or pass `checks=['contradiction', 'stability']`"
            raise KeyError(f"The checks of contact need {slot}[{name!r}]: {hint}.")
    expressions = read_layer(adata, keys.INTEGRATED)
    has_regions = region_key is not None or "spatialdata_attrs" in adata.uns or keys.REGION in adata.obs
    regions = pd.factorize(region_column(adata, region_key))[0] if has_regions else np.zeros(adata.n_obs, np.int64)
    perimeter = adata.obs[keys.PERIMETER].to_numpy(np.float64)
    has_boundary = np.isfinite(perimeter) & (perimeter > 0)
    length = sparse.coo_array(adata.obsp[keys.BOUNDARY])
    share = length.data / np.where(has_boundary, perimeter, np.inf)[length.row]
    is_other = (clusters.codes[length.row] != clusters.codes[length.col]) | (clusters.codes[length.row] < 0)
    shares, shares_of_others = (
        sparse.csr_array((weight, (length.row, length.col)), length.shape) for weight in (share, share * is_other)
    )
    for i, marker in enumerate(map(str, adata.var_names)):
        expression = expressions[:, i]
        measured = np.isfinite(expression) & has_boundary
        is_source, is_sink = positive[:, i] & measured, negative[:, i] & measured
        touching = shares @ is_source.astype(np.float64)
        if (is_sink & (touching > 0)).sum() < _FEWEST:
            continue
        above = np.where(measured, expression - _background(expression, is_sink, touching, regions), 0)
        signal = np.maximum(above, 0)
        source = np.where(is_source, signal, 0)
        around = (shares @ source)[is_sink]
        weight = float(around @ around)
        leak = max(0.0, float(around @ above[is_sink]) / weight) if weight > 0 else 0.0
        explained = np.minimum(leak * (shares_of_others @ source), signal)
        spill_over = _spill_over(clusters, marker, positive[:, i], signal, explained)
        yield marker, leak, [*spill_over, *_dim(clusters, marker, expression, is_source, negative[:, i], touching)]


def _background(expression: NDArray, negative: Flags, touching: Values, regions: NDArray[np.integer]) -> Values:
    """Median of the region's negative cells, of those that touch no positive one where there are enough."""
    background = np.full(len(expression), np.median(expression[negative]))
    for cells in (negative, negative & (touching == 0)):
        by_region = pd.Series(expression[cells]).groupby(regions[cells]).agg(["median", "size"])
        medians = by_region.loc[by_region["size"] >= _FEWEST, "median"].reindex(regions).to_numpy()
        background = np.where(np.isfinite(medians), medians, background)
    return background


def _spill_over(
    clusters: Clusters, marker: str, positive: Flags, signal: Values, explained: Values
) -> Iterator[Finding]:
    """Find clusters whose positive cells owe their signal to neighbours in other clusters."""
    lit = positive & (signal > 0)
    sum_signal, sum_explained = clusters.sum(signal, lit), clusters.sum(explained, lit)
    value = sum_explained / np.where(sum_signal > 0, sum_signal, 1)
    expected = float(sum_explained.sum() / max(sum_signal.sum(), 1e-300))
    doubtful = clusters.count(lit & (explained > _MOSTLY * signal))
    n_positive = clusters.count(positive)
    for i in np.flatnonzero((doubtful >= clusters.fewest) & (value > expected)):
        cells = f"{doubtful[i]} of the {n_positive[i]} cells positive for {marker} owe more than half of its signal to"
        shares = f"{value[i]:.0%} of the cluster's signal, {expected:.0%} over all clusters"
        reason = f"{cells} positive neighbours in other clusters; {shares}"
        concern = doubtful[i] / clusters.size[i]
        yield clusters.names[i], "spill_over", marker, value[i], expected, doubtful[i], concern, reason


def _dim(
    clusters: Clusters, marker: str, expression: NDArray, positive: Flags, negative: Flags, touching: Values
) -> Iterator[Finding]:
    """Find clusters in which cells are positive though dim, and without neighbours that could explain it."""
    low = np.median(expression[negative & np.isfinite(expression)])
    high = np.median(expression[positive])
    if not high > low:
        return
    relative = (expression - low) / (high - low)
    dim = clusters.count(positive & (relative < _DIM) & (touching < _LITTLE_CONTACT))
    n_positive = clusters.count(positive)
    value = dim / np.maximum(n_positive, 1)
    expected = float(dim.sum() / max(n_positive.sum(), 1))
    for i in np.flatnonzero((dim >= clusters.fewest) & beyond_chance(value, expected, n_positive)):
        cells = f"{dim[i]} of the {n_positive[i]} cells positive for {marker} are dim (below half of the way from the"
        dim_cells = f"{cells} median negative to the median positive cell) and touch hardly any positive cell"
        shares = f"{value[i]:.0%} of the cluster's positive cells, {expected:.0%} over all clusters"
        reason = f"{dim_cells}: dim but real, or mistakes of the score; {shares}"
        yield clusters.names[i], "dim", marker, value[i], expected, dim[i], dim[i] / clusters.size[i], reason
