"""What a comparison is made on: the truth, groups of cells, and the draws of each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import judged, obs_columns, region_column, truth_layer
from nimbus_sd.metrics.bootstrap import Sample, draw_regions

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Group:
    """Some cells of the table: values of the ``by`` columns, row numbers, and draws if asked for."""

    key: tuple
    cells: NDArray[np.intp]
    sample: Sample | None = None


@dataclass(frozen=True)
class Frame:
    """Labels (cells x channels), groups, and all cells of the groups together."""

    labels: NDArray
    groups: list[Group]
    whole: Group
    likely: bool

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which cells are judged in a channel."""
        return np.asarray(judged(self.labels, likely=self.likely).any(axis=1))


def frame(
    adata: AnnData,
    truth: str,
    by: Sequence[str],
    *,
    likely: bool,
    n_boot: int,
    rng: int | np.random.Generator,
    region_key: str | None,
) -> Frame:
    """Check the truth, split the table, and draw regions.

    Regions are drawn within each group where no region is in two of them, and from all otherwise. For all cells
    together they are drawn from all.

    Raises
    ------
    KeyError
        If a layer or a column of ``obs`` does not exist.
    ValueError
        If the truth says nothing, no cell is in a group, or ``n_boot`` is negative.
    """
    if n_boot < 0 or n_boot == 1:
        raise ValueError(f"`n_boot` is {n_boot}; it must be the number of draws, at least 2, or 0 for none.")
    labels = truth_layer(adata, truth, likely=likely)
    parts = _split(adata, by)
    everything = np.sort(np.concatenate([cells for _, cells in parts]))
    if n_boot == 0:
        groups = [Group(key, cells) for key, cells in parts]
        return Frame(labels, groups, Group(("all",), everything), likely)
    region = _judged_regions(region_column(adata, region_key), labels, likely)
    *seeds, last, second, first = np.random.default_rng(rng).spawn(len(parts) + 3)
    strata = _strata(region, [cells for _, cells in parts])
    shared = draw_regions(strata, n_boot, first)
    unstratified = draw_regions(np.zeros_like(strata), n_boot, second)
    groups = [
        Group(key, cells, Sample(region[cells], shared, seed)) for (key, cells), seed in zip(parts, seeds, strict=True)
    ]
    return Frame(labels, groups, Group(("all",), everything, Sample(region[everything], unstratified, last)), likely)


def _split(adata: AnnData, by: Sequence[str]) -> list[tuple[tuple, NDArray[np.intp]]]:
    """Row numbers of each group, in the order of the columns; cells without a value are left out."""
    if not by:
        return [((), np.arange(adata.n_obs))]
    table = obs_columns(adata, by)
    number = table.groupby(list(by), observed=True, sort=True).ngroup().fillna(-1).to_numpy(int)
    order = np.argsort(number, kind="stable")
    order = order[np.searchsorted(number[order], 0) :]
    if not len(order):
        raise ValueError(f"No cell has a value in `obs` {', '.join(map(repr, by))}: there is no group to compare.")
    groups = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    return [(tuple(table[name].iloc[cells[0]] for name in by), cells) for cells in groups]


def _judged_regions(regions: pd.Series, labels: NDArray, likely: bool) -> NDArray[np.intp]:
    """Give each region with a judged cell a number; -1 for cells that are not judged in any channel."""
    known = np.zeros(len(labels), bool)
    for channel in labels.T:
        known |= judged(channel, likely=likely)
    number = np.full(len(labels), -1)
    number[known] = pd.factorize(regions[known], use_na_sentinel=False)[0]
    return number


def _strata(region: NDArray[np.intp], groups: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Return the group of each region, or one number for all where a region is in two groups."""
    stratum = np.full(region.max() + 1, -1)
    for number, cells in enumerate(groups):
        inside = np.unique(region[cells])
        inside = inside[inside >= 0]
        if (stratum[inside] >= 0).any():
            return np.zeros_like(stratum)
        stratum[inside] = number
    return stratum
