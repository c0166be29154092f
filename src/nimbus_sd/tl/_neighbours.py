"""scanpy's graph of nearest neighbours, for any number of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

_EXACT_BELOW = 8192


def with_neighbours(values: NDArray[np.float32], n_neighbors: int, seed: int) -> AnnData:
    """Return a table of the values (cells, channels) after ``scanpy.pp.neighbors``, exact below 8,192 cells."""
    import scanpy as sc
    from anndata import AnnData

    table = AnnData(values)
    transformer = None if len(values) < _EXACT_BELOW else _Approximate(len(values), n_neighbors, seed)
    sc.pp.neighbors(table, n_neighbors, use_rep="X", random_state=seed, transformer=transformer)
    return table


class _Approximate:
    """PyNNDescent with the settings that scanpy takes, as a sparse matrix.

    From 0.7 on PyNNDescent gives a sparse array, on which scanpy 1.11 fails.
    """

    def __init__(self, n_cells: int, n_neighbors: int, seed: int) -> None:
        from pynndescent import PyNNDescentTransformer
        from scanpy import settings

        self._finder = PyNNDescentTransformer(
            n_neighbors=n_neighbors,
            metric="euclidean",
            random_state=seed,
            n_jobs=settings.n_jobs,
            n_trees=min(64, 5 + round(n_cells**0.5 / 20)),
            n_iters=max(5, round(np.log2(n_cells))),
        )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return self._finder.get_params(deep)

    def fit_transform(self, values: NDArray[np.float32], y: None = None) -> sparse.csr_matrix:
        return sparse.csr_matrix(self._finder.fit_transform(values))
