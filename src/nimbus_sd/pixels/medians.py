"""Medians of many cells at once, by one sort."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint32(1 << 31)


def cell_medians(cell: NDArray[np.integer], values: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Median of the values of each cell, as by ``numpy.median``.

    Parameters
    ----------
    cell
        The cell of each value, 0 to n - 1, shape (p,).
    values
        Finite, shape (p,).
    n
        Number of cells.

    Returns
    -------
    Shape (n,); NaN for a cell without a value.
    """
    # Cell and value in one integer, so that one plain sort orders both. The bits of floats are in the order of their
    # values once negative ones are turned around.
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    keys = (cell.astype(np.uint64) << np.uint64(32)) | np.where(bits & _SIGN, ~bits, bits | _SIGN)
    keys.sort()
    count = np.bincount(cell, minlength=n)
    stop, some = np.cumsum(count), count > 0
    start = (stop - count)[some]
    middle = [_value(keys[start + offset]) for offset in ((count[some] - 1) // 2, count[some] // 2)]
    medians = np.full(n, np.nan, np.float32)
    medians[some] = (middle[0] + middle[1]) / 2
    return medians


def _value(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    bits = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float32).astype(np.float64)
