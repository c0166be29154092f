"""How many cells, and how many positive ones, lie around a cell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    pass

# So many pairs of neighbours are held at once, to limit the memory that they take.
_PAIRS = 2**22


def count_around(
    position: NDArray[np.float64], flags: NDArray[np.bool_], radius: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Count neighbours up to a distance, a cell itself not included.

    Parameters
    ----------
    position
        Of n cells, shape (n, 2); a cell without a finite position is nobody's neighbour.
    flags
        Shape (n, m).
    radius
        In the unit of the positions, inclusive.

    Returns
    -------
    all, flagged
        Number of cells, shape (n,), and of flagged cells, shape (n, m), around each cell; NaN for cells without a
        position.
    """
    n, m = flags.shape
    everyone, flagged = np.full(n, np.nan, np.float32), np.full((n, m), np.nan, np.float32)
    placed = np.flatnonzero(np.isfinite(position).all(axis=1))
    if not placed.size:
        return everyone, flagged
    # In the order of the tree, in which a block's cells lie together.
    placed = placed[cKDTree(position[placed]).indices]
    tree = cKDTree(position[placed])
    own = flags[placed].astype(np.float32)
    around = tree.query_ball_point(tree.data, radius, return_length=True)
    for start, stop in _blocks(around):
        pairs = cKDTree(tree.data[start:stop]).sparse_distance_matrix(tree, radius, output_type="ndarray")
        near = sparse.csr_array(
            (np.ones(len(pairs), np.float32), (pairs["i"], pairs["j"])), (stop - start, len(placed))
        )
        flagged[placed[start:stop]] = near @ own - own[start:stop]
    everyone[placed] = around - 1
    return everyone, flagged


def _blocks(around: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cut cells into runs that have few pairs together; a cell with many is a run of its own."""
    block = np.cumsum(around) // _PAIRS
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(around)]
    yield from pairwise(edges)
