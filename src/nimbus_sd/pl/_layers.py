"""What pictures read from a table: single columns of layers, what their values are, and regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from spatialdata.models import TableModel

from nimbus_sd import keys
from nimbus_sd.spatial import annotation

if TYPE_CHECKING:
    from anndata import AnnData

_INTENSITIES = (keys.INTEGRATED, keys.MEDIAN, keys.ERODED)


def column(adata: AnnData, name: str, channel: str) -> NDArray:
    """Return one channel of a layer, shape (cells,), without a copy of the others.

    Raises
    ------
    KeyError
        If the layer or the channel does not exist.
    """
    if name not in adata.layers:
        # anndata 0.13 lists X among the layers, under the key None.
        there = [key for key in adata.layers if key is not None]
        raise KeyError(f"The table has no layer {name!r}; there are {there}. `predict` adds scores and means.")
    check_channels(adata, [channel])
    values = adata.layers[name][:, adata.var_names.get_loc(channel)]
    values = values.toarray().ravel() if sparse.issparse(values) else np.asarray(values)
    return values if values.dtype.kind == "f" else values.astype(np.float32)


def check_channels(adata: AnnData, channels: list[str]) -> None:
    """Raise a KeyError if the table lacks one of the channels."""
    if missing := [name for name in channels if name not in adata.var_names]:
        raise KeyError(f"The table has no column {missing}; there are {list(adata.var_names)}.")


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


def regions_of(adata: AnnData) -> pd.Series | None:
    """Return the column of ``obs`` that holds each cell's labels element; None where there is none."""
    key = annotation(adata)[0] if TableModel.ATTRS_KEY in adata.uns else keys.REGION
    return adata.obs[key].astype(str) if key in adata.obs else None
