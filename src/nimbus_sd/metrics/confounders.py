"""What may make a cell hard to call: its size, its neighbours, and how the marker is expressed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import UNDETERMINED, judged, layer, obs_columns, pixel_sizes, region_column, truth_layer
from nimbus_sd.metrics.neighbours import count_around

if TYPE_CHECKING:
    from anndata import AnnData

#: Names, in the order of results.
CONFOUNDERS = ("cell_size", "heterogeneity", "rarity", "sparsity", "density", "spill_over")
#: Those of which a cell has one value for all channels, and those of which a region has one in each channel.
OF_CELL = ("cell_size", "density")
OF_REGION = ("heterogeneity", "rarity")


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
    truth
        Layer of labels in [0, 1] that says which cells are positive (above 0.5). Cells that it does not judge are
        never counted as positive.
    radius
        How far neighbours may be, from centre to centre.
    unit
        Of the radius: ``"px"``, the image's pixels, or ``"um"``, by the pixel size noted in ``uns``.
    likely
        Whether cells labelled 0.75 and 0.25 (likely positive, likely negative) count as judged.
    region_key
        Column of ``obs`` with the region of each cell; by default the one that the table's annotation names, else
        ``"region"``. Cells of different regions are no neighbours.

    Returns
    -------
    dict of DataFrame
        Each cells x channels, float32, NaN where not known. What all channels share is the same in all columns, which
        are one read-only column in memory.

        - ``"cell_size"``: ``obs["area"]``, um^2 (the paper: pixels)
        - ``"heterogeneity"``: standard deviation over mean of the region's integrated expression in the channel
        - ``"rarity"``: share of positives among the region's judged cells in the channel: low for rare markers
        - ``"sparsity"``: number of positive cells within the radius, without the cell itself: low where
          they are sparse; NaN where no cell of the region is judged in the channel
        - ``"density"``: number of cells within the radius, without the cell itself
        - ``"spill_over"``: share of the cell's perimeter that it has in common with positive cells; NaN unless
          :func:`nimbus_sd.tl.cell_features` was run, and where ``"sparsity"`` is. Not in the paper

    Raises
    ------
    KeyError
        If a layer, a column of ``obs`` or ``obsm["spatial"]`` does not exist, or a radius in um is asked for and the
        pixel size of a region is not noted.
    ValueError
        If ``radius`` is not a positive number or ``unit`` is unknown; if labels are outside of [0, 1] or none says
        positive or negative.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.predict(ns.datasets.example(), channels=["CD3", "CD20"], progress=False)
    >>> found = ns.metrics.confounders(adata, radius=20, unit="um")
    >>> list(found)
    ['cell_size', 'heterogeneity', 'rarity', 'sparsity', 'density', 'spill_over']
    >>> bool((found["sparsity"] <= found["density"]).all(axis=None))
    True
    """
    labels = truth_layer(adata, truth, likely=likely)
    known = judged(labels, likely=likely)
    positive = known & (labels > UNDETERMINED)
    expression = layer(adata, keys.INTEGRATED)
    regions = region_column(adata, region_key)
    area = obs_columns(adata, keys.AREA)[keys.AREA].to_numpy(np.float32)
    position = _position(adata)
    radii = _radii(adata, regions, radius, unit)

    heterogeneity, rarity, sparsity = (np.full(labels.shape, np.nan, np.float32) for _ in range(3))
    density = np.full(len(labels), np.nan, np.float32)
    for region, cells in _cells_of(regions):
        heterogeneity[cells] = _variation(expression[cells])
        total = known[cells].sum(axis=0)
        share = np.divide(positive[cells].sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)
        rarity[cells] = share
        density[cells], near = count_around(position[cells], positive[cells], radii[region])
        sparsity[cells] = np.where(total > 0, near, np.nan)

    columns = (area[:, None], heterogeneity, rarity, sparsity, density[:, None], _spill_over(adata, positive, rarity))
    return {
        name: pd.DataFrame(np.broadcast_to(values, labels.shape), adata.obs_names, adata.var_names, copy=False)
        for name, values in zip(CONFOUNDERS, columns, strict=True)
    }


def _position(adata: AnnData) -> NDArray[np.float64]:
    if keys.SPATIAL not in adata.obsm:
        raise KeyError(
            f"There is no obsm[{keys.SPATIAL!r}] with the cells' positions; run `nimbus_sd.predict`, which sets it."
        )
    return np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2]


def _radii(adata: AnnData, regions: pd.Series, radius: float, unit: str) -> dict[object, float]:
    """Radius in image pixels of each region."""
    if unit not in ("px", "um"):
        raise ValueError(f"`unit` is {unit!r}; it must be 'px' or 'um'.")
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"`radius` is {radius!r}; it must be a number above 0.")
    names = list(regions.dropna().unique())
    if unit == "px":
        return dict.fromkeys(names, radius)
    sizes = pixel_sizes(adata)
    if missing := [name for name in names if name not in sizes]:
        raise KeyError(
            f"The pixel size of the regions {missing} is not noted in `uns`, so that a radius in um means nothing. "
            "Give it in pixels with `unit='px'`, or run `tl.cell_features`, which notes it."
        )
    return {name: radius / sizes[name] for name in names}


def _cells_of(regions: pd.Series) -> list[tuple[object, NDArray[np.intp]]]:
    """Row numbers of each region's cells; cells without a region are in none."""
    return list(regions.reset_index(drop=True).groupby(regions.to_numpy(), observed=True).indices.items())


def _variation(expression: NDArray) -> NDArray[np.float64]:
    """Coefficient of variation of each column, of the values that are known."""
    known = np.isfinite(expression)
    count = known.sum(axis=0)
    values = np.where(known, expression, 0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = values.sum(axis=0) / count
        spread = np.sqrt((np.where(known, values - mean, 0) ** 2).sum(axis=0) / count)
        return np.where(mean != 0, spread / mean, np.nan)


def _spill_over(adata: AnnData, positive: NDArray[np.bool_], rarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of the perimeter common with positive cells, NaN where nobody is judged."""
    if keys.BOUNDARY not in adata.obsp or keys.PERIMETER not in adata.obs:
        return np.full((1, 1), np.nan, np.float32)
    perimeter = adata.obs[keys.PERIMETER].to_numpy(np.float32)[:, None]
    shared = np.asarray(adata.obsp[keys.BOUNDARY] @ positive.astype(np.float32))
    known = np.isfinite(rarity) & (perimeter > 0)
    return np.divide(shared, perimeter, out=np.full(shared.shape, np.nan, np.float32), where=known)
