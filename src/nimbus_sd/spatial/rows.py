"""Rows and columns of tables that hold cells of labels elements, and which parts of a table are from us."""

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
    """Make an annotated table, without values yet, of the cells (ids) of each labels element; channels are columns."""
    obs = _cell_rows(cells)
    values = np.full((len(obs), len(channels)), np.nan, np.float32)
    return _annotated(AnnData(values, obs=obs, var=pd.DataFrame(index=list(channels))), REGION, INSTANCE)


def annotation(table: AnnData) -> tuple[str, str]:
    """Name the ``obs`` columns that hold a row's labels element and the label in it."""
    attrs = table.uns[TableModel.ATTRS_KEY]
    return attrs[TableModel.REGION_KEY_KEY], attrs[TableModel.INSTANCE_KEY]


def rows_of(table: AnnData, labels_key: str) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Find the rows of a labels element: positions and ids. Raises ValueError where ids are no whole numbers."""
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


def matched(table: AnnData, labels_key: str, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the rows of the table that hold one of these cells, and the cells' positions in ``ids``, ascending."""
    rows, row_ids = rows_of(table, labels_key)
    source = pd.Index(ids).get_indexer(pd.Index(row_ids))
    order = np.argsort(source, kind="stable")[np.count_nonzero(source < 0) :]
    return rows[order], source[order]


def dense(values: Any, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray:
    """Copy values into a float array that can be written to; NaN throughout where there are none."""
    if values is None:
        return np.full(shape, np.nan, dtype)
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    return np.array(values, values.dtype if values.dtype.kind == "f" else dtype)


def is_ours(entry: object) -> bool:
    """Whether an entry of ``uns`` says what else of the table we wrote."""
    return isinstance(entry, Mapping) and "wrote" in entry


def written_by_us(table: AnnData) -> set[str]:
    """List what of a table is from us, such as ``X``, ``obs/area``, ``layers/nimbus``."""
    return {str(item) for entry in table.uns.values() if is_ours(entry) for item in entry["wrote"]}


def extended(table: AnnData, cells: Mapping[str, NDArray[np.int64]], channels: Sequence[str]) -> AnnData:
    """Add rows for regions and columns for channels that a table of ours lacks, NaN everywhere (empty where sparse).

    A region that has rows gets no more of them: the cells that are not there were taken out by the user. The table
    itself is not changed.
    """
    region_key, instance_key = annotation(table)
    lacking = {key: ids[:0] if len(rows_of(table, key)[1]) else ids for key, ids in cells.items()}
    new_rows, new_columns = _cell_rows(lacking), [name for name in channels if name not in table.var_names]
    if new_rows.empty and not new_columns:
        return table
    obs_names = table.obs_names if new_rows.empty else table.obs_names.append(new_rows.index)
    var_names = table.var_names.append(pd.Index(new_columns)) if new_columns else table.var_names
    obs = _grown(table.obs, obs_names).copy()
    obs[region_key] = [*table.obs[region_key].astype(object), *new_rows[REGION]]
    obs[instance_key] = np.concatenate([table.obs[instance_key].astype(np.int64), new_rows[INSTANCE]])
    grown = AnnData(
        _grown(table.X, obs_names, var_names),
        obs=obs,
        var=_grown(table.var, var_names).copy(),
        uns=table.uns,
        # anndata 0.13 lists X among the layers, under the key None.
        layers={key: _grown(layer, obs_names, var_names) for key, layer in table.layers.items() if key is not None},
        obsm={key: _grown(values, obs_names) for key, values in table.obsm.items()},
        varm={key: _grown(values, var_names) for key, values in table.varm.items()},
        obsp={key: _grown(values, obs_names, obs_names) for key, values in table.obsp.items()},
        varp={key: _grown(values, var_names, var_names) for key, values in table.varp.items()},
    )
    return _annotated(grown, region_key, instance_key)


def _grown(values: Any, rows: pd.Index, columns: pd.Index | None = None) -> Any:
    """Fill up with what is missing at the end, for more rows and, where given, more columns."""
    shape = (len(rows), *(values.shape[1:] if columns is None else [len(columns)]))
    if values.shape == shape:
        return values
    if isinstance(values, pd.DataFrame):
        # A bool that is missing is an object otherwise, and cannot be written to disk.
        values = values.astype({key: "boolean" for key, dtype in values.dtypes.items() if dtype.kind == "b"})
        return values.reset_index(drop=True).reindex(range(len(rows))).set_axis(rows, axis=0)
    if sparse.issparse(values):
        values = values.tocsr(copy=True)
        values.resize(shape)
        return values
    grown = np.full(shape, np.nan, np.result_type(values.dtype, np.float32))
    grown[tuple(slice(n) for n in values.shape)] = values
    return grown


def _annotated(table: AnnData, region_key: str, instance_key: str) -> AnnData:
    regions = [str(region) for region in table.obs[region_key].unique()]
    table.obs[region_key] = pd.Categorical(table.obs[region_key], categories=regions)
    return TableModel.parse(
        table, region=regions, region_key=region_key, instance_key=instance_key, overwrite_metadata=True
    )


def _cell_rows(cells: Mapping[str, NDArray[np.int64]]) -> pd.DataFrame:
    names = [f"{labels}_{cell}" for labels, ids in cells.items() for cell in ids]
    regions = [labels for labels, ids in cells.items() for _ in ids]
    ids = np.concatenate([np.zeros(0, np.int64), *cells.values()])
    return pd.DataFrame({REGION: regions, INSTANCE: ids}, index=names)
