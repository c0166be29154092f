"""What the checks of clusters have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Finding(NamedTuple):
    """One thing to look at; see :func:`nimbus_sd.tl.cluster_checks` for the columns."""

    cluster: str
    check: str
    markers: str
    value: float
    expected: float
    cells: int
    concern: float
    reason: str


@dataclass(frozen=True)
class Clusters:
    """Clusters of n cells, and how many of a cluster's cells make something worth to report.

    Attributes
    ----------
    codes
        Position of each cell's cluster in ``names``, -1 for none, shape (n,).
    names
        Of the clusters.
    fewest
        Cells in question, per cluster.
    """

    codes: NDArray[np.integer]
    names: list[str]
    fewest: NDArray[np.float64]

    @classmethod
    def of(cls, column: pd.Categorical, min_share: float, min_cells: int) -> Clusters:
        """Take clusters from a column without empty categories."""
        size = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
        return cls(np.asarray(column.codes), list(column.categories), np.maximum(min_share * size, min_cells))

    def count(self, cells: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count these cells in each cluster."""
        return np.bincount(self.codes[cells & (self.codes >= 0)], minlength=len(self.names))

    def sum(self, values: NDArray, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Add up values over these cells of each cluster."""
        cells = cells & (self.codes >= 0)
        total = np.bincount(self.codes[cells], values[cells], minlength=len(self.names))
        return np.asarray(total, np.float64)


def beyond_chance(value: float, expected: float, n: int) -> bool:
    """Say whether a share of n cells is above the expected one by more than two standard errors."""
    return bool(value > expected + 2 * np.sqrt(expected * (1 - expected) / max(n, 1)))
