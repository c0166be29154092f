"""What a channel's image looks like to the network, told from the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import layer as read_layer

if TYPE_CHECKING:
    from anndata import AnnData

STATISTICS = ("median", "q10", "q99", "zeros", "cv")
#: Fewer cells tell nothing of an image.
FEWEST = 20


def image_statistics(adata: AnnData, key: str = keys.NIMBUS) -> pd.DataFrame:
    """Describe each channel by its cells' mean intensities, as the network saw them.

    Intensities are divided by the normalisation factor and clipped to [0, 1]; a channel's cells of all regions go
    together.

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

    Raises
    ------
    KeyError
        If the expression or the factors are not there.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> import nimbus_sd as ns
    >>> adata = anndata.AnnData(
    ...     layers={"integrated_expression": np.array([[0.0], [20], [30], [50]] * 10)},
    ...     var=pd.DataFrame(index=["CD3"]),
    ...     varm={"nimbus_normalization": pd.DataFrame({"factor": [100.0]}, index=["CD3"])},
    ... )
    >>> ns.metrics.image_statistics(adata).loc["CD3"].round(2).to_dict()
    {'median': 0.25, 'q10': 0.0, 'q99': 0.5, 'zeros': 0.25, 'cv': 0.72}
    """
    values = relative_expression(adata, key)
    rows = [describe(values[:, i]) for i in range(adata.n_vars)]
    return pd.DataFrame(rows, index=adata.var_names, columns=list(STATISTICS))


def relative_expression(adata: AnnData, key: str = keys.NIMBUS) -> NDArray[np.float64]:
    """Mean intensities over the normalisation factor, not clipped, cells x channels.

    Raises
    ------
    KeyError
        If the expression or the factors are not there.
    """
    normalization = f"{key}_normalization"
    if normalization not in adata.varm:
        raise KeyError(f"There is no varm[{normalization!r}]; nimbus_sd.predict leaves it with the scores.")
    factors = np.asarray(adata.varm[normalization]["factor"], np.float64)
    return read_layer(adata, keys.INTEGRATED) / np.where(factors > 0, factors, np.nan)


def describe(relative: NDArray) -> dict[str, float]:
    """Compute the statistics of one channel from its cells' relative intensities; NaN is left out."""
    cells = np.clip(relative[np.isfinite(relative)], 0, 1)
    if cells.size < FEWEST:
        return dict.fromkeys(STATISTICS, float("nan"))
    q10, median, q99 = np.quantile(cells, [0.1, 0.5, 0.99])
    mean = cells.mean()
    cv = cells.std() / mean if mean > 0 else np.nan
    return {
        name: float(value) for name, value in zip(STATISTICS, (median, q10, q99, (cells == 0).mean(), cv), strict=True)
    }


def outside(statistics: Mapping[str, float], ranges: Mapping[str, Mapping[str, float]]) -> list[str]:
    """State which statistics are beyond the trained range, and how often that happens on images of the training's kind.

    Parameters
    ----------
    statistics
        Of one channel, by name.
    ranges
        By name: ``low``, ``high``, ``false_alarm`` (share in [0, 1]); see :class:`nimbus_sd.models.Card`.
    """
    found = []
    for name, limits in ranges.items():
        value = statistics.get(name, float("nan"))
        for beyond, side in ((value < limits["low"], "low"), (value > limits["high"], "high")):
            if beyond:
                where = "below" if side == "low" else "above"
                found.append(
                    f"{name} {value:.3g} is {where} {limits[side]:.3g} ({limits['false_alarm']:.1%} of good images are)"
                )
    return found
