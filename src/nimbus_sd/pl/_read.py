"""What pictures read from a table: channels of layers, what their values are, and means of clusters."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of, layer

_INTENSITIES = (keys.INTEGRATED, keys.MEDIAN, keys.ERODED)


def channel_names(adata: AnnData, channels: str | Sequence[str] | None) -> list[str]:
    """Return the channels asked for, or all; raise a KeyError if the table lacks one."""
    names = [str(name) for name in (adata.var_names if channels is None else as_list(channels))]
    if missing := [name for name in names if name not in adata.var_names]:
        raise KeyError(f"The table has no column {missing}; there are {list(adata.var_names)}.")
    return names


def column(adata: AnnData, name: str, channel: str) -> NDArray:
    """Return one channel of a layer, shape (cells,), without a dense copy of the others."""
    return layer(adata[:, channel_names(adata, channel)], name)[:, 0]


def holds_scores(name: str, values: NDArray) -> bool:
    """Say whether values of a layer are scores or labels, in [0, 1], rather than intensities or the like."""
    return name not in _INTENSITIES and not ((values < 0) | (values > 1)).any()


def factor_of(adata: AnnData, channel: str) -> float | None:
    """Return the normalisation factor of a channel; None where there is none above 0."""
    tables = {key: table for key, table in adata.varm.items() if str(key).endswith("_normalization")}
    table = tables.get(f"{keys.NIMBUS}_normalization", next(iter(tables.values()), None))
    if table is None or channel not in table.index or not table.loc[channel, "factor"] > 0:
        return None
    return float(table.loc[channel, "factor"])


def chosen_clusters(adata: AnnData, groupby: str, chosen: str | Sequence[str] | None) -> list[str]:
    """Return the clusters asked for, or all; raise a KeyError if the column lacks one."""
    names = list(clusters_of(adata, groupby).categories)
    chosen = names if chosen is None else [str(name) for name in as_list(chosen)]
    if unknown := [name for name in chosen if name not in names]:
        raise KeyError(f"obs[{groupby!r}] has no cluster {', '.join(map(repr, unknown))}; it has {names}.")
    return chosen


def cluster_means(adata: AnnData, groupby: str, values: pd.DataFrame) -> pd.DataFrame:
    """Average cells x channels over the cells of each cluster that have a value: clusters x channels."""
    clusters = clusters_of(adata, groupby)
    means = values.groupby(np.asarray(clusters.codes)).mean()
    return means.reindex(range(len(clusters.categories))).set_axis(clusters.categories)
