"""Rows and columns of tables that hold cells of labels elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import DTypeLike, NDArray
from scipy import sparse
from spatialdata.models import TableModel

from nimbus_sd.keys import INSTANCE, REGION


def new_table(cells: Mapping[str, NDArray[np.int64]], channels: Sequence[str]) -> AnnData:
    """Make an annotated table of all cells, without values yet.

    Parameters
    ----------
    cells
        Ids of the cells of each labels element.
    channels
        Names of the columns.
    """
    ids = np.concatenate([np.zeros(0, np.int64), *cells.values()])
    obs = pd.DataFrame({REGION: _regions(cells), INSTANCE: ids}, index=_names(cells))
    values = np.full((len(obs), len(channels)), np.nan, np.float32)
    return _annotated(AnnData(values, obs=obs, var=pd.DataFrame(index=list(channels))), REGION, INSTANCE)


def annotation(table: AnnData) -> tuple[str, str]:
    """Name the ``obs`` columns that hold a row's labels element and the label in it."""
    attrs = table.uns[TableModel.ATTRS_KEY]
    return attrs[TableModel.REGION_KEY_KEY], attrs[TableModel.INSTANCE_KEY]


def rows_of(table: AnnData, labels_key: str) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Find the rows of a labels element: their positions and their ids.

    Raises
    ------
    ValueError
        Ids are not whole numbers.
    """
    region_key, instance_key = annotation(table)
    rows = np.flatnonzero(table.obs[region_key] == labels_key)
    column = table.obs[instance_key].iloc[rows]
    try:
        # Through text, because numbers may be categories or strings, and 64 bit do not fit into floats.
        ids = np.asarray((column if column.dtype.kind == "i" else column.astype(str)).astype("int64"))
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"obs[{instance_key!r}] of the table must hold the labels of {labels_key!r} as whole numbers, but: {error}."
        ) from error
    return rows, ids


def dense(values: Any, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray:
    """Copy values into a float array that can be written to; NaN throughout where there are none."""
    if values is None:
        return np.full(shape, np.nan, dtype)
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    return np.array(values, values.dtype if values.dtype.kind == "f" else dtype)


def extended(table: AnnData, cells: Mapping[str, NDArray[np.int64]], channels: Sequence[str]) -> AnnData:
    """Add rows for regions and columns for channels that a table lacks, NaN everywhere (empty where sparse).

    A region that has rows gets no more of them: the cells that are not there were taken out by the user.

    Parameters
    ----------
    table
        A table made by us. It is not changed.
    cells
        Ids of the cells of each labels element.
    channels
        Names of the columns that are needed.
    """
    region_key, instance_key = annotation(table)
    lacking = {key: ids[:0] if len(rows_of(table, key)[1]) else ids for key, ids in cells.items()}
    obs_names, var_names = _names(lacking), [name for name in channels if name not in table.var_names]
    if not len(obs_names) and not var_names:
        return table
    n_obs, n_vars = table.n_obs + len(obs_names), table.n_vars + len(var_names)

    obs, var = _grown_frame(table.obs, obs_names), _grown_frame(table.var, var_names)
    obs[region_key] = [*table.obs[region_key].astype(object), *_regions(lacking)]
    obs[instance_key] = np.concatenate([table.obs[instance_key].astype(np.int64), *lacking.values()])
    # anndata 0.13 lists X among the layers, under the key None.
    layers = {key: values for key, values in table.layers.items() if key is not None}
    grown = AnnData(
        _grown(table.X, (n_obs, n_vars)),
        obs=obs,
        var=var,
        uns=table.uns,
        layers={key: _grown(values, (n_obs, n_vars)) for key, values in layers.items()},
        obsm={key: _grown_side(values, obs.index) for key, values in table.obsm.items()},
        varm={key: _grown_side(values, var.index) for key, values in table.varm.items()},
        obsp={key: _grown(values, (n_obs, n_obs)) for key, values in table.obsp.items()},
        varp={key: _grown(values, (n_vars, n_vars)) for key, values in table.varp.items()},
    )
    return _annotated(grown, region_key, instance_key)


def _annotated(table: AnnData, region_key: str, instance_key: str) -> AnnData:
    regions = [str(region) for region in table.obs[region_key].unique()]
    table.obs[region_key] = pd.Categorical(table.obs[region_key], categories=regions)
    return TableModel.parse(
        table, region=regions, region_key=region_key, instance_key=instance_key, overwrite_metadata=True
    )


def _names(cells: Mapping[str, NDArray[np.int64]]) -> list[str]:
    return [f"{labels}_{cell}" for labels, ids in cells.items() for cell in ids]


def _regions(cells: Mapping[str, NDArray[np.int64]]) -> list[str]:
    return [labels for labels, ids in cells.items() for _ in ids]


def _grown_frame(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    if not len(names):
        return frame.copy()
    # A bool that is missing is an object otherwise, and cannot be written to disk.
    grown = frame.astype({key: "boolean" for key, dtype in frame.dtypes.items() if dtype.kind == "b"})
    grown = grown.reset_index(drop=True).reindex(range(len(frame) + len(names)))
    return grown.set_axis(frame.index.append(pd.Index(names)), axis=0)


def _grown_side(values: Any, names: pd.Index) -> Any:
    if isinstance(values, pd.DataFrame):
        return _grown_frame(values, names[len(values) :])
    return _grown(values, (len(names), *values.shape[1:]))


def _grown(values: Any, shape: tuple[int, ...]) -> Any:
    if values.shape == shape:
        return values
    if sparse.issparse(values):
        values = values.tocsr(copy=True)
        values.resize(shape)
        return values
    grown = np.full(shape, np.nan, np.result_type(values.dtype, np.float32))
    grown[tuple(slice(n) for n in values.shape)] = values
    return grown
