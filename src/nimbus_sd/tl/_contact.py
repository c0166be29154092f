"""How much of a cell's signal its neighbours explain, estimated from the boundaries that they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from nimbus_sd import keys
from nimbus_sd._table import layer as read_layer
from nimbus_sd._table import region_column

if TYPE_CHECKING:
    from anndata import AnnData

# Fewer cells are too few to estimate a background or a leak.
_FEWEST = 20


class Contact(NamedTuple):
    """Contact of n cells with those that are positive for a marker, arrays of shape (n,)."""

    positive: NDArray[np.bool_]
    negative: NDArray[np.bool_]
    #: Cells with a boundary and an integrated expression.
    measured: NDArray[np.bool_]
    expression: NDArray
    #: Integrated expression above the region's background, at least 0.
    signal: NDArray[np.float64]
    #: The part of the signal that positive neighbours in other clusters explain, at most all of it.
    explained: NDArray[np.float64]
    #: Share of the perimeter that is shared with positive cells of any cluster.
    touching: NDArray[np.float64]
    #: Share of a neighbour's signal that comes over at a boundary all around.
    leak: float


def contacts(
    adata: AnnData,
    clusters: NDArray[np.integer],
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    region_key: str | None,
) -> Iterator[tuple[str, Contact]]:
    """Compare each cell's signal with that of its positive neighbours, marker by marker.

    Neighbours are weighted by the shared perimeter. The leak is the slope, through the origin, of the signal of
    negative cells against the signal around them; at least 0. Markers of which fewer than 20 negative cells touch
    positive ones are left out. ``clusters`` are codes, (cells,), -1 for none, which is another cluster for everybody;
    ``positive`` and ``negative`` are (cells, channels).
    """
    missing = [f"obsp[{keys.BOUNDARY!r}]"] if keys.BOUNDARY not in adata.obsp else []
    missing += [f"obs[{keys.PERIMETER!r}]"] if keys.PERIMETER not in adata.obs else []
    if missing:
        raise KeyError(
            f"The checks of contact need {' and '.join(missing)}: run `nimbus_sd.tl.cell_features(sdata)` first, or "
            "leave them out with `checks=['contradiction', 'stability']`."
        )
    expressions = read_layer(adata, keys.INTEGRATED)
    has_regions = region_key is not None or "spatialdata_attrs" in adata.uns or keys.REGION in adata.obs
    regions = pd.factorize(region_column(adata, region_key))[0] if has_regions else np.zeros(adata.n_obs, np.int64)
    perimeter = adata.obs[keys.PERIMETER].to_numpy(np.float64)
    has_boundary = np.isfinite(perimeter) & (perimeter > 0)
    length = sparse.coo_array(adata.obsp[keys.BOUNDARY])
    share = length.data / np.where(has_boundary, perimeter, np.inf)[length.row]
    is_other = (clusters[length.row] != clusters[length.col]) | (clusters[length.row] < 0)
    shares, shares_of_others = (
        sparse.csr_array((weight, (length.row, length.col)), length.shape) for weight in (share, share * is_other)
    )
    for i, name in enumerate(map(str, adata.var_names)):
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
        yield name, Contact(positive[:, i], negative[:, i], measured, expression, signal, explained, touching, leak)


def _background(
    expression: NDArray, negative: NDArray[np.bool_], touching: NDArray[np.float64], regions: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Median of the region's negative cells, of those that touch no positive one where there are enough."""
    background = np.full(len(expression), np.median(expression[negative]))
    for cells in (negative, negative & (touching == 0)):
        by_region = pd.Series(expression[cells]).groupby(regions[cells]).agg(["median", "size"])
        medians = by_region.loc[by_region["size"] >= _FEWEST, "median"].reindex(regions).to_numpy()
        background = np.where(np.isfinite(medians), medians, background)
    return background
