"""What may make a cell hard to call: its size, its neighbours, the marker's expression; and how errors depend on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

from nimbus_sd import keys
from nimbus_sd._table import at_or_above, layer, noted_by_region, obs_columns, region_column, truth_states
from nimbus_sd.metrics.bootstrap import MIN_REGIONS
from nimbus_sd.metrics.judged import Flags, Names, warn_if_fitted
from nimbus_sd.metrics.thresholds import Threshold, called_layers

_FIGURES = ("information", "information_low", "information_high", "null_95", "p_value")
# Pairs of neighbours that are held at once, to limit memory.
_PAIRS = 2**22
# Of the estimate of information.
_NEIGHBOURS = 3


def confounders(
    adata: AnnData,
    truth: str = keys.GOLD,
    *,
    radius: float = 120.0,
    unit: Literal["px", "um"] = "px",
    likely: bool = True,
    region_key: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Compute the paper's confounders (Rumberger et al., "Confounders analysis"), and one more, spill-over.

    Parameters
    ----------
    adata
        Cells x channels, as made by :func:`nimbus_sd.predict`: with ``layers["integrated_expression"]``,
        ``obs["area"]`` and ``obsm["spatial"]``.
    truth, likely
        As for :func:`marker_metrics`. Cells that are not judged are never counted as positive.
    radius
        How far neighbours may be, from centre to centre.
    unit
        Of the radius: ``"px"``, the image's pixels, or ``"um"``, by the pixel size noted in ``uns``.
    region_key
        As for :func:`marker_metrics`. Cells of different regions are no neighbours.

    Returns
    -------
    dict of DataFrame
        Each cells x channels, float32, NaN where not known. Columns are one read-only column in memory where all
        channels share it.

        - ``"cell_size"``: ``obs["area"]``, um^2 (the paper: pixels)
        - ``"heterogeneity"``: standard deviation over mean of the region's integrated expression in the channel
        - ``"rarity"``: share of positives among the region's judged cells in the channel: low for rare markers
        - ``"sparsity"``: number of positive cells within the radius, without the cell itself: low where they are
          sparse; NaN where no cell of the region is judged in the channel
        - ``"density"``: number of cells within the radius, without the cell itself
        - ``"spill_over"``: share of the cell's perimeter that it has in common with positive cells; NaN unless
          :func:`nimbus_sd.tl.cell_features` was run, and where ``"sparsity"`` is. Not in the paper

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.predict(ns.datasets.example(), channels=["CD3", "CD20"], progress=False)
    >>> tables = ns.metrics.confounders(adata, radius=20, unit="um")
    >>> list(tables)
    ['cell_size', 'heterogeneity', 'rarity', 'sparsity', 'density', 'spill_over']
    """
    states = truth_states(adata, truth, likely=likely)
    judged, positive = states >= 0, states == 1
    expression = layer(adata, keys.INTEGRATED)
    regions = region_column(adata, region_key)
    area = obs_columns(adata, keys.AREA)[keys.AREA].to_numpy(np.float32)
    if keys.SPATIAL not in adata.obsm:
        raise KeyError(f"There is no obsm[{keys.SPATIAL!r}] with the cells' positions; `nimbus_sd.predict` sets it.")
    position = np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2]
    if unit not in ("px", "um"):
        raise ValueError(f"`unit` is {unit!r}; it must be 'px' or 'um'.")
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"`radius` is {radius!r}; it must be a number above 0.")
    names = list(regions.dropna().unique())
    sizes = noted_by_region(adata, "pixel_size") if unit == "um" else dict.fromkeys(names, 1.0)
    if missing := [name for name in names if name not in sizes]:
        raise KeyError(f"`uns` has no pixel size of {missing}; pass unit='px', or run `tl.cell_features`.")

    heterogeneity, rarity, sparsity = (np.full(states.shape, np.nan, np.float32) for _ in range(3))
    density, spill_over = np.full((len(states), 1), np.nan, np.float32), np.full((1, 1), np.nan, np.float32)
    cells_of = regions.reset_index(drop=True).groupby(regions.to_numpy(), observed=True).indices
    for region, cells in cells_of.items():
        heterogeneity[cells] = _variation(expression[cells])
        total = judged[cells].sum(axis=0)
        rarity[cells] = np.where(total > 0, positive[cells].sum(axis=0) / np.maximum(total, 1), np.nan)
        density[cells, 0], near = count_around(position[cells], positive[cells], radius / sizes[region])
        sparsity[cells] = np.where(total > 0, near, np.nan)
    if keys.BOUNDARY in adata.obsp and keys.PERIMETER in adata.obs:
        perimeter = adata.obs[keys.PERIMETER].to_numpy(np.float32)[:, None]
        shared = np.asarray(adata.obsp[keys.BOUNDARY] @ positive.astype(np.float32))
        spill_over = np.full(states.shape, np.nan, np.float32)
        np.divide(shared, perimeter, out=spill_over, where=np.isfinite(rarity) & (perimeter > 0))
    tables = {"cell_size": area[:, None], "heterogeneity": heterogeneity, "rarity": rarity}
    tables |= {"sparsity": sparsity, "density": density, "spill_over": spill_over}
    return {
        name: pd.DataFrame(np.broadcast_to(values, states.shape), adata.obs_names, adata.var_names, copy=False)
        for name, values in tables.items()
    }


def _variation(expression: NDArray) -> pd.Series:
    """Coefficient of variation of each column's finite values."""
    table = pd.DataFrame(np.where(np.isfinite(expression), expression, np.nan).astype(np.float64))
    mean = table.mean()
    return (table.std(ddof=0) / mean).where(mean != 0)


def count_around(position: NDArray, flags: Flags, radius: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Count cells, shape (n,), and flagged cells, shape (n, m), up to a distance from each cell, without itself.

    A cell without a finite position (n, 2) is not counted and has NaN.
    """
    n, m = flags.shape
    everyone, flagged = np.full(n, np.nan, np.float32), np.full((n, m), np.nan, np.float32)
    placed = np.flatnonzero(np.isfinite(position).all(axis=1))
    # In the order of the tree, in which a block's cells lie together.
    placed = placed[cKDTree(position[placed]).indices]
    tree = cKDTree(position[placed])
    flag = flags[placed].astype(np.float32)
    around = tree.query_ball_point(tree.data, radius, return_length=True)
    everyone[placed] = around - 1
    # Blocks of cells that have few pairs together; a cell with many is a block of its own.
    edges = np.flatnonzero(np.diff(np.cumsum(around) // _PAIRS)) + 1
    for start, stop in pairwise([0, *edges.tolist(), len(around)]):
        pairs = cKDTree(tree.data[start:stop]).sparse_distance_matrix(tree, radius, output_type="ndarray")
        ones = np.ones(len(pairs), np.float32)
        near = sparse.csr_array((ones, (pairs["i"], pairs["j"])), (stop - start, len(placed)))
        flagged[placed[start:stop]] = near @ flag - flag[start:stop]
    return everyone, flagged


def confounder_information(
    adata: AnnData,
    pred: Names = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    threshold: Threshold | Mapping[str, Threshold] = 0.5,
    likely: bool = True,
    radius: float = 120.0,
    unit: Literal["px", "um"] = "px",
    max_cells: int = 3000,
    n_permutations: int = 100,
    n_boot: int = 100,
    rng: int | np.random.Generator = 0,
    region_key: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure the mutual information between each confounder and wrong calls (Rumberger et al., Fig. 4d).

    Judged pairs of a cell and a marker are called right or wrong, those of all markers together. The information is
    estimated from 3 nearest neighbours (Ross 2014, :func:`sklearn.feature_selection.mutual_info_classif`).

    The null shuffles the confounder between those that have a value of their own: cells for size and density, the
    channels of regions for heterogeneity and rarity, else pairs. So a few regions do not count as thousands of cells.
    It ignores that neighbouring cells are alike: trust the interval rather than the p value where errors cluster in
    space.

    A bootstrap would take cells that are drawn twice for information. So halves of the regions are drawn without
    replacement, whose spread is the standard error of the whole (delete-half jackknife, Shao & Wu 1989), and the
    interval is Student's with as many degrees of freedom as regions but one. Near 0, which no estimate falls below,
    the null says more than the interval.

    Parameters
    ----------
    adata, radius, unit, region_key
        As for :func:`confounders`.
    pred, truth, threshold, likely
        As for :func:`marker_metrics`.
    max_cells
        Pairs of cell and marker that are used, at most: drawn once, the same for all layers that have values there.
    n_permutations, n_boot
        Number of shuffles of the null, and of halves drawn for 95 % intervals; 0 for none.
    rng
        Seed or generator of all draws.
    progress
        Show a progress bar over the confounders of each layer.

    Returns
    -------
    DataFrame
        Index ``layer``, ``confounder``:

        - ``information``: in nats, at most the entropy of being wrong; ``information_low``, ``information_high``: its
          95 % interval
        - ``null_95``: 95 % quantile of the null; ``p_value``: share of the null at or above the estimate, the
          estimate included in it
        - ``pairs``: used, of ``pairs_judged``; ``wrong``: how many of them are
        - ``n_regions``: with a pair; ``resampled``: as in :func:`marker_metrics`
        - ``reason``: why there is no estimate, else empty

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.predict(ns.datasets.example(), channels=["CD3", "CD8"], progress=False)
    >>> options = {"max_cells": 500, "n_permutations": 10, "n_boot": 0, "progress": False}
    >>> table = ns.metrics.confounder_information(adata, "nimbus", **options)
    >>> table.loc[("nimbus", "spill_over"), "reason"]
    'not measured; run `tl.cell_features` first'
    """
    if max_cells < 1 or min(n_permutations, n_boot) < 0:
        given = f"`max_cells` is {max_cells}, `n_permutations` {n_permutations} and `n_boot` {n_boot}"
        raise ValueError(f"{given}; they must be at least 1, 0 and 0.")
    states = truth_states(adata, truth, likely=likely)
    layers = list(called_layers(adata, pred, states, threshold))
    tables = confounders(adata, truth, radius=radius, unit=unit, likely=likely, region_key=region_key)
    region = pd.factorize(region_column(adata, region_key))[0]
    draw, *seeds = np.random.default_rng(rng).spawn(1 + len(layers))
    order = draw.random(states.shape, np.float32).ravel()
    rows = {}
    for (name, values, valued, cuts), seed in zip(layers, seeds, strict=True):
        warn_if_fitted(adata, name, states)
        used = judged = np.flatnonzero(valued.ravel() >= 0)
        if len(used) > max_cells:
            used = np.sort(used[np.argpartition(order[used], max_cells)[:max_cells]])
        cell, channel = np.divmod(used, states.shape[1])
        called = np.stack([at_or_above(column, cut) for column, cut in zip(values.T, cuts, strict=True)], axis=1)
        wrong = (called != (states == 1))[cell, channel]
        pairs = pd.DataFrame({"wrong": wrong, "region": region[cell], "cell": cell})
        of_region = region[cell] * states.shape[1] + channel
        owners = {"cell_size": cell, "density": cell, "heterogeneity": of_region, "rarity": of_region}
        for confounder, table in tqdm(tables.items(), desc=f"confounders of {name}", disable=not progress):
            pairs["value"] = table.to_numpy()[cell, channel].astype(np.float64)
            pairs["owner"] = owners.get(confounder, used)
            usable = pairs[np.isfinite(pairs["value"])]
            reason = _reason(usable)
            if not len(judged):
                reason = "no cell has both a label and a value"
            elif confounder == "spill_over" and keys.BOUNDARY not in adata.obsp:
                reason = "not measured; run `tl.cell_features` first"
            rows[name, confounder] = {
                **_estimate(usable, n_permutations, n_boot, seed.spawn(1)[0]),
                "pairs": len(usable),
                "pairs_judged": len(judged),
                "wrong": int(usable["wrong"].sum()),
                "reason": reason,
            }
    index = pd.MultiIndex.from_tuples(rows, names=["layer", "confounder"])
    return pd.DataFrame(list(rows.values()), index=index)


def _reason(pairs: pd.DataFrame) -> str:
    """Say why there can be no estimate; empty if there can."""
    if pairs.empty:
        return "not known for any of the cells"
    if pairs["value"].nunique() == 1:
        return "the same for all cells"
    for word, count in (("wrong", pairs["wrong"].sum()), ("right", (~pairs["wrong"]).sum())):
        if count <= _NEIGHBOURS:
            return f"{count or 'no'} calls are {word}; at least {_NEIGHBOURS + 1} are needed"
    return ""


def _estimate(pairs: pd.DataFrame, n_permutations: int, n_boot: int, rng: np.random.Generator) -> dict[str, Any]:
    """Information, its interval and its null."""
    n_regions = pairs["region"].nunique()
    resampled = "regions" if n_regions >= MIN_REGIONS else "cells"
    figures = dict.fromkeys(_FIGURES, float("nan"))
    if not _reason(pairs):
        seed = int(rng.integers(2**31))
        point = figures["information"] = _information(pairs, seed)
        unit = pairs["region" if resampled == "regions" else "cell"].to_numpy()
        halves = np.array([_information(half, seed) for half in _halves(pairs, unit, n_boot, rng)])
        figures["information_low"], figures["information_high"] = _interval(point, halves, len(np.unique(unit)))
        if n_permutations:
            nulls = np.array([_information(_shuffled(pairs, rng), seed) for _ in range(n_permutations)])
            figures["null_95"] = float(np.quantile(nulls, 0.95))
            figures["p_value"] = float((1 + (nulls >= point).sum()) / (1 + n_permutations))
    return figures | {"n_regions": n_regions, "resampled": resampled}


def _information(pairs: pd.DataFrame, seed: int) -> float:
    """Estimate the mutual information; NaN with too few wrong or right pairs."""
    from sklearn.feature_selection import mutual_info_classif

    value, wrong = pairs[["value"]].to_numpy(), pairs["wrong"].to_numpy()
    if min(wrong.sum(), (~wrong).sum()) <= _NEIGHBOURS:
        return float("nan")
    options = {"discrete_features": False, "n_neighbors": _NEIGHBOURS, "random_state": seed}
    return float(mutual_info_classif(value, wrong, **options)[0])


def _shuffled(pairs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Break the tie between confounder and being wrong: values change owners."""
    _, first, owner = np.unique(pairs["owner"], return_index=True, return_inverse=True)
    return pairs.assign(value=rng.permutation(pairs["value"].to_numpy()[first])[owner])


def _halves(pairs: pd.DataFrame, unit: NDArray[np.intp], n: int, rng: np.random.Generator) -> Iterator[pd.DataFrame]:
    """Draw halves of the units, without replacement."""
    names, number = np.unique(unit, return_inverse=True)
    for _ in range(n):
        drawn = np.zeros(len(names), bool)
        drawn[rng.permutation(len(names))[: len(names) // 2]] = True
        yield pairs[drawn[number]]


def _interval(point: float, halves: NDArray[np.float64], units: int) -> tuple[float, float]:
    """Interval of Student about the estimate, from the spread of halves, never below 0."""
    finite = halves[np.isfinite(halves)]
    if finite.size < 2:
        return float("nan"), float("nan")
    half = units // 2
    # A half varies about the whole by (1 / half - 1 / units) of a unit's variance, the whole by 1 / units.
    error = float(finite.std(ddof=1)) * np.sqrt(half / (units - half))
    reach = float(stats.t.ppf(0.975, units - 1)) * error
    return max(point - reach, 0.0), point + reach
