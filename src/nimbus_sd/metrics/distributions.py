"""How values are distributed over cells: intensities as the network saw them, and how clearly scores fall in two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.stats import kurtosis, skew

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, stack_layers, truth_states
from nimbus_sd.metrics.judged import Names, States, warn_if_fitted

_STATISTICS = ("median", "q10", "q99", "zeros", "cv")
# Fewer cells say nothing about an image.
_FEWEST_OF_IMAGE = 20
# Fewer cells, of all or of one class, have no shape.
_FEWEST = 10
_GRID = 256


def image_statistics(adata: AnnData, key: str = keys.NIMBUS) -> pd.DataFrame:
    """Describe each channel by its cells' mean intensities, as the network saw them.

    Intensities are divided by the normalisation factor and clipped to [0, 1]; regions are pooled.

    Parameters
    ----------
    adata
        Table from :func:`nimbus_sd.predict`, with ``layers["integrated_expression"]`` and
        ``varm[f"{key}_normalization"]``.
    key
        Layer of scores whose normalisation is meant.

    Returns
    -------
    DataFrame
        One row per channel: ``median``, ``q10`` and ``q99`` (quantiles 0.1 and 0.99) over cells, ``zeros`` (share of
        cells at 0) and ``cv`` (standard deviation over mean; marker heterogeneity of Rumberger et al., "Confounders
        analysis"). NaN with fewer than 20 cells or without a factor.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.predict(ns.datasets.example(), channels=["CD3", "CD20"], progress=False)
    >>> ns.metrics.image_statistics(adata).columns.to_list()
    ['median', 'q10', 'q99', 'zeros', 'cv']
    """
    rows = [describe(column) for column in relative_expression(adata, key).T]
    return pd.DataFrame(rows, index=adata.var_names, columns=list(_STATISTICS))


def relative_expression(adata: AnnData, key: str = keys.NIMBUS) -> NDArray[np.float64]:
    """Divide mean intensities by the normalisation factor, without clipping: cells x channels."""
    normalization = f"{key}_normalization"
    if normalization not in adata.varm:
        raise KeyError(f"There is no varm[{normalization!r}]; nimbus_sd.predict leaves it with the scores.")
    factors = np.asarray(adata.varm[normalization]["factor"], np.float64)
    return layer(adata, keys.INTEGRATED) / np.where(factors > 0, factors, np.nan)


def describe(relative: NDArray) -> dict[str, float]:
    """Compute the statistics of one channel from its cells' relative intensities; NaN is left out."""
    cells = np.clip(relative[np.isfinite(relative)], 0, 1)
    if cells.size < _FEWEST_OF_IMAGE:
        return dict.fromkeys(_STATISTICS, float("nan"))
    q10, median, q99 = np.quantile(cells, [0.1, 0.5, 0.99])
    cv = cells.std() / cells.mean() if cells.mean() > 0 else np.nan
    return dict(zip(_STATISTICS, map(float, (median, q10, q99, (cells == 0).mean(), cv)), strict=True))


def outside(
    statistics: Mapping[str, float], ranges: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, Literal["low", "high"]]]:
    """Name the statistics of a channel that are below or above the trained ranges (:class:`nimbus_sd.models.Card`)."""
    found: list[tuple[str, Literal["low", "high"]]] = []
    for name, limits in ranges.items():
        value = statistics.get(name, float("nan"))
        found += [(name, "low")] if value < limits["low"] else [(name, "high")] if value > limits["high"] else []
    return found


def score_shape(
    adata: AnnData,
    pred: Names = keys.NIMBUS,
    truth: str | None = None,
    *,
    middle: tuple[float, float] = (0.25, 0.75),
    likely: bool = True,
) -> pd.DataFrame:
    """Measure how clearly a layer separates positive from negative cells (Rumberger et al., Fig. 5).

    Parameters
    ----------
    adata, likely
        As for :func:`marker_metrics`.
    pred
        Layer of scores or of any values, or several.
    truth
        Layer of labels, as for :func:`marker_metrics`; with None ``overlap`` is NaN.
    middle
        Range of scores, ends included, that say neither yes nor no.

    Returns
    -------
    DataFrame
        One row per channel and one, ``"all"``, of all channels' cells together; of several layers, the layer is the
        first level of the index.

        - ``cells``: with a value
        - ``bimodality``: Sarle's coefficient with the correction for sample size, in (0, 1]; a uniform distribution
          has 0.555, two distant groups come near 1. A single skewed group may have a high one too.
        - ``overlap``: area under both classes' densities, in [0, 1], 0 if they are apart: Gaussian kernel estimates
          (Scott's bandwidth per class, mirrored at the ends) on a grid of 256 bins over the range of the values
        - ``middle``: share of cells in the uncertain middle; NaN if values are outside [0, 1]

        NaN with fewer than 10 cells (``overlap``: of either class); ``bimodality`` and ``overlap`` also where all
        values are the same.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.metrics.score_shape(adata, "gold", "gold").loc["CD3", "overlap"].round(2).item()
    0.0
    """
    if not 0 <= middle[0] <= middle[1] <= 1:
        raise ValueError(f"`middle` is {middle}; it must be two numbers in [0, 1], the smaller one first.")
    states = np.full(adata.shape, -1, np.int8) if truth is None else truth_states(adata, truth, likely=likely)
    tables = {}
    for name in as_list(pred):
        values = layer(adata, name)
        warn_if_fitted(adata, name, states)
        parts = [*zip(values.T, states.T, strict=True), (values, states)]
        rows = [_shape(column[np.isfinite(column)], state[np.isfinite(column)], middle) for column, state in parts]
        tables[name] = pd.DataFrame(rows, index=[*adata.var_names, "all"])
    return stack_layers(tables, pred)


def _shape(values: NDArray, state: States, middle: tuple[float, float]) -> dict[str, float]:
    values = values.astype(np.float64)
    shape = {"cells": values.size, **dict.fromkeys(("bimodality", "overlap", "middle"), float("nan"))}
    if values.size < _FEWEST:
        return shape
    if values.max() > values.min():
        # Sarle's coefficient.
        n = values.size
        spread = kurtosis(values, bias=False) + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
        shape["bimodality"] = float((skew(values, bias=False) ** 2 + 1) / spread)
        shape["overlap"] = _overlap(values, state)
    if values.min() >= 0 and values.max() <= 1:
        shape["middle"] = float(((values >= middle[0]) & (values <= middle[1])).mean())
    return shape


def _overlap(values: NDArray, state: States) -> float:
    """Area under both densities; NaN without enough cells of a class."""
    classes = values[state == 0], values[state == 1]
    if min(members.size for members in classes) < _FEWEST:
        return float("nan")
    (edges, negative), (_, positive) = (density(members, values.min(), values.max()) for members in classes)
    return float((np.minimum(negative, positive) * np.diff(edges)).sum())


def density(values: NDArray, low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate a density, of area 1, by Gaussian kernels that are mirrored at both ends of a range.

    Returns the edges of bins and the density in each.
    """
    values = values.astype(np.float64)
    counts, edges = np.histogram(values, _GRID, (low, high if high > low else low + 1))
    step = edges[1] - edges[0]
    bandwidth = values.std(ddof=values.size > 1) * values.size**-0.2
    # Not finer than the grid.
    return edges, gaussian_filter1d(counts / (values.size * step), max(1.0, bandwidth / step), mode="reflect")
