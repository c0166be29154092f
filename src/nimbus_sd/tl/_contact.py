"""How much of a cell's signal its neighbours explain, told from the boundaries that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from nimbus_sd import keys

if TYPE_CHECKING:
    from anndata import AnnData

# Fewer cells tell nothing of a background or of a leak.
_FEWEST = 20


@dataclass(frozen=True)
class Contact:
    """Of n cells in one marker, each of shape (n,).

    Attributes
    ----------
    signal
        Integrated expression above the region's background, at least 0.
    explained
        The part of it that is likely from positive neighbours in other clusters, at most all of it.
    touching
        Share of the perimeter that is shared with positive cells, of whichever cluster.
    leak
        Share of a neighbour's signal that comes over at a boundary all around.
    """

    signal: NDArray[np.float64]
    explained: NDArray[np.float64]
    touching: NDArray[np.float64]
    leak: float


class Neighbours:
    """Shares of perimeters, ready to be weighed by what the neighbours are.

    Parameters
    ----------
    adata
        With ``obsp["boundary"]`` and ``obs["perimeter"]``.
    clusters
        Code of each cell's cluster, shape (n,); -1 is none, which is another cluster for everybody.
    regions
        Code of each cell's region, shape (n,).
    """

    def __init__(self, adata: AnnData, clusters: NDArray[np.integer], regions: NDArray[np.integer]) -> None:
        perimeter = adata.obs[keys.PERIMETER].to_numpy(np.float64)
        #: Cells whose boundary was measured.
        self.measured = np.isfinite(perimeter) & (perimeter > 0)
        length = sparse.coo_array(adata.obsp[keys.BOUNDARY])
        weight = length.data / np.where(self.measured, perimeter, np.inf)[length.row]
        self._all = sparse.csr_array((weight, (length.row, length.col)), length.shape)
        other = (clusters[length.row] != clusters[length.col]) | (clusters[length.row] < 0)
        self._other = sparse.csr_array((weight * other, (length.row, length.col)), length.shape)
        self._regions = regions

    def contact(self, expression: NDArray, positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> Contact | None:
        """Compare each cell's signal with what comes over from its positive neighbours.

        The leak is the slope, through the origin, of the signal of negative cells against the signal around them
        (their positive neighbours', weighted by the share of the perimeter). It is never below 0.

        Parameters
        ----------
        expression
            Integrated expression, shape (n,).
        positive, negative
            How the cells are called, each of shape (n,).

        Returns
        -------
        None where fewer than 20 negative cells touch positive ones: the leak is not known then.
        """
        known = np.isfinite(expression) & self.measured
        positive, negative = positive & known, negative & known
        touching = self._all @ positive.astype(np.float64)
        if (negative & (touching > 0)).sum() < _FEWEST:
            return None
        above = np.where(known, expression - self._background(expression, negative, touching), 0)
        source = np.where(positive, np.maximum(above, 0), 0)
        around = (self._all @ source)[negative]
        weight = float(around @ around)
        leak = max(0.0, float(around @ above[negative]) / weight) if weight > 0 else 0.0
        signal = np.maximum(above, 0)
        return Contact(signal, np.minimum(leak * (self._other @ source), signal), touching, leak)

    def _background(
        self, expression: NDArray, negative: NDArray[np.bool_], touching: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Median of the region's negative cells, of those that touch no positive one where there are enough."""
        alone = negative & (touching == 0)
        found = np.full(len(expression), np.median(expression[negative]))
        for chosen in (negative, alone):
            medians = pd.Series(expression[chosen]).groupby(self._regions[chosen]).agg(["median", "size"])
            medians = medians.loc[medians["size"] >= _FEWEST, "median"].reindex(self._regions).to_numpy()
            found = np.where(np.isfinite(medians), medians, found)
        return found
