"""Numbering labels from 0, whatever they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def numbered(labels: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Give each label a number from 0 on, as ``numpy.unique`` does but mostly without sorting.

    Parameters
    ----------
    labels
        Not negative, shape (p,).

    Returns
    -------
    ids, number
        Distinct labels, ascending, (n,); and where each label is among them, (p,).
    """
    top = int(labels.max()) if labels.size else 0
    # A table of all labels up to the largest; not where they are far apart.
    if top > 4 * labels.size:
        ids, number = np.unique(labels, return_inverse=True)
        return ids, number.astype(np.int64, copy=False)
    there = np.zeros(top + 1, bool)
    there[labels] = True
    ids = np.flatnonzero(there)
    number = np.empty(top + 1, np.int64)
    number[ids] = np.arange(len(ids))
    return ids.astype(labels.dtype, copy=False), number[labels]
