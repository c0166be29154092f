"""Rows and columns of tables of cells, and all that can be wrong with them, found before hours of computing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import DTypeLike, NDArray
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.models import TableModel

from nimbus_sd._text import listed
from nimbus_sd.keys import CELL_FEATURES, ERODED, GOLD, INSTANCE, INTEGRATED, MEDIAN, POSITIVE_PIXELS, REGION, SILVER
from nimbus_sd.spatial import elements
from nimbus_sd.spatial.features import windows
from nimbus_sd.spatial.region import Region

_TAKEN = (INTEGRATED, GOLD, SILVER, MEDIAN, ERODED, POSITIVE_PIXELS, CELL_FEATURES, TableModel.ATTRS_KEY)
_NEW_TABLE = "Pass another `table_key` to make a new table"


def new_table(cells: Mapping[str, NDArray], channels: Sequence[str]) -> AnnData:
    """Make an annotated table, without values yet, of the cells (ids) of each labels element; channels are columns."""
    obs = _cell_rows(cells)
    values = np.full((len(obs), len(channels)), np.nan, np.float32)
    return _annotated(AnnData(values, obs=obs, var=pd.DataFrame(index=list(channels))), REGION, INSTANCE)


def annotation(table: AnnData) -> tuple[str, str]:
    """Name the ``obs`` columns that hold a row's labels element and the label in it."""
    attrs = table.uns[TableModel.ATTRS_KEY]
    return attrs[TableModel.REGION_KEY_KEY], attrs[TableModel.INSTANCE_KEY]


def cell_numbers(column: pd.Series, region: Region) -> NDArray[np.int64]:
    """Turn a table's ids, numbers in any form or names of shapes, into those of `Region.read_labels`; 0 if unknown."""
    if region.instances is None:
        return _whole_numbers(column, repr(region.labels_key))
    known = pd.Index(plain_ids(region.instances.to_series()))
    return known.get_indexer(pd.Index(plain_ids(column))).astype(np.int64) + 1


def stored_ids(table: AnnData) -> pd.Series:
    """Return the ids of a table's cells in a form that SpatialData takes: as they are, or else as whole numbers."""
    column = table.obs[annotation(table)[1]]
    values = column.cat.categories.to_series() if isinstance(column.dtype, pd.CategoricalDtype) else column
    # The numbers that `TableModel` takes.
    taken = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iu" and values.dtype.itemsize > 1
    as_they_are = taken or pd.api.types.is_string_dtype(values)
    return column if as_they_are else pd.Series(_whole_numbers(column, "its regions"), column.index)


def plain_ids(column: pd.Series) -> pd.Series:
    """Write ids as text, whole numbers without blanks and decimals."""
    return column.astype(str).str.strip().str.replace(r"^([+-]?[0-9]+)\.0*$", r"\1", regex=True)


def _whole_numbers(column: pd.Series, labels: str) -> NDArray[np.int64]:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "i":
        return column.to_numpy(np.int64)
    # Through text, since 64 bit do not fit into floats.
    text = plain_ids(column)
    wrong = ~text.str.fullmatch("[+-]?[0-9]+")
    numbers = text.where(~wrong, "0").map(int)
    wrong |= numbers.abs() > np.iinfo(np.int64).max
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        # Beyond, floats leave out whole numbers, so that one may stand for another.
        wrong |= column.abs() > 2 ** (np.finfo(column.dtype).nmant + 1)
    if wrong.any():
        what = f"as whole numbers, but holds {listed(text[wrong].unique(), 3)}"
        raise ValueError(f"obs[{column.name!r}] must hold the labels of {labels} {what}. Write them into it anew.")
    return numbers.to_numpy(np.int64)


def rows_of(table: AnnData, region: Region) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Find the rows of a region, and the cells that they are about, as by `cell_numbers`; an error if one is twice."""
    region_key, instance_key = annotation(table)
    rows = np.flatnonzero(table.obs[region_key] == region.labels_key)
    ids = cell_numbers(table.obs[instance_key].iloc[rows], region)
    known = ids[ids > 0]
    if len(np.unique(known)) < len(known):
        message = f"The table has several rows for one label of {region.labels_key!r}"
        raise ValueError(f"{message}. Rename regions of samples before joining these, or make a new table.")
    return rows, ids


def matched(table: AnnData, region: Region, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the rows of the table that hold one of these cells, and the cells' positions in ``ids``, ascending."""
    rows, row_ids = rows_of(table, region)
    source = pd.Index(ids).get_indexer(pd.Index(row_ids))
    order = np.argsort(source, kind="stable")[np.count_nonzero(source < 0) :]
    return rows[order], source[order]


def dense(values: Any, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray:
    """Copy values into a float array that can be written to; NaN throughout where there are none."""
    if values is None:
        return np.full(shape, np.nan, dtype)
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    return np.array(values, values.dtype if values.dtype.kind == "f" else dtype)


def written_by_us(table: AnnData) -> set[str]:
    """List what of a table is from us, such as ``X``, ``obs/area``, ``layers/nimbus``."""
    return {str(item) for entry in table.uns.values() if elements.is_ours(entry) for item in entry["wrote"]}


def extend(table: AnnData, cells: Mapping[str, NDArray], channels: Sequence[str]) -> AnnData:
    """Add rows for regions and columns for channels that a table of ours lacks, NaN everywhere (empty where sparse).

    A region that has rows gets no more of them: the cells that are not there were taken out by the user. The table
    itself is not changed.
    """
    region_key, instance_key = annotation(table)
    present = set(table.obs[region_key])
    lacking = {key: ids[:0] if key in present else ids for key, ids in cells.items()}
    new_rows, new_columns = _cell_rows(lacking), [name for name in channels if name not in table.var_names]
    if new_rows.empty and not new_columns:
        return table
    obs_names = table.obs_names if new_rows.empty else table.obs_names.append(new_rows.index)
    var_names = table.var_names.append(pd.Index(new_columns)) if new_columns else table.var_names
    obs = _grown(table.obs, obs_names).copy()
    obs[region_key] = [*table.obs[region_key].astype(object), *new_rows[REGION]]
    obs[instance_key] = _alike([table.obs[instance_key].to_numpy(), new_rows[INSTANCE].to_numpy()])
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


def _cell_rows(cells: Mapping[str, NDArray]) -> pd.DataFrame:
    names = [f"{labels}_{cell}" for labels, ids in cells.items() for cell in ids]
    regions = [labels for labels, ids in cells.items() for _ in ids]
    return pd.DataFrame({REGION: regions, INSTANCE: _alike(cells.values())}, index=names)


def _alike(parts: Iterable[NDArray]) -> NDArray:
    """Join ids of cells: as whole numbers, or as text where some are text."""
    parts = [part for part in parts if len(part)]
    if all(part.dtype.kind in "iu" for part in parts):
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
    return np.concatenate([part.astype(str).astype(object) for part in parts])


def check_keys(
    sdata: SpatialData, table_key: str, key_added: str, channels: Sequence[str], regions: Sequence[Region]
) -> None:
    """Check that results can be written under these names, in or beside what is there.

    The arguments are those of `write_table`; ``regions`` will be scored. Raises ValueError where a name is not allowed
    or taken, or where the table is not about these regions or channels.
    """
    for argument, key in (("table_key", table_key), ("key_added", key_added)):
        if not (isinstance(key, str) and re.fullmatch(r"(?!__)[\w.-]+", key)) or key in (".", "..", "_index"):
            raise ValueError(f"`{argument}` is {key!r}; it must consist of letters, digits and '_-.' (not '__...').")
    if elements.same_name(_TAKEN, key_added):
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; pass another name.")
    others = [*sdata.images, *sdata.labels, *sdata.shapes, *sdata.points, *(set(sdata.tables) - {table_key})]
    if taken := elements.same_name(others, table_key):
        raise ValueError(f"`table_key` is {table_key!r}, but there is an element {taken!r}; pass another `table_key`.")
    if table_key not in sdata.tables:
        return
    table, name, advice = sdata.tables[table_key], f"Table {table_key!r}", _NEW_TABLE
    places = (f"layers/{key_added}", f"layers/{INTEGRATED}", f"uns/{key_added}", f"varm/{key_added}_normalization")
    _check_joinable(table, name, places, advice)
    extendable, was_ours = is_extendable(table), "X" in written_by_us(table)
    missing = [channel for channel in channels if channel not in table.var_names]
    if len(missing) == len(channels) and not was_ours:
        columns = f"its {table.n_vars} columns ({listed(table.var_names, 5)})"
        raise ValueError(f"{name} is of something else: {columns} are none of {listed(channels, 5)}. {advice}.")
    if missing and not extendable:
        why = " any more, since X was changed after we made the table" if was_ours else ""
        lacking = f"{name} has no columns {listed(missing, 5)}, and they cannot be added{why}"
        raise ValueError(f"{lacking}. Pass `channels` without them. Or: {advice}.")
    check_rows(table, name, regions, advice, some=not extendable)


def is_extendable(table: AnnData) -> bool:
    """Whether rows and columns may be added: we made the table, and X still is what we put there."""
    if "X" not in written_by_us(table) or INTEGRATED not in table.layers or table.X is None or table.raw is not None:
        return False
    return np.array_equal(np.asarray(table.X), np.asarray(table.layers[INTEGRATED]), equal_nan=True)


def existing_table(sdata: SpatialData, table_key: str, places: Sequence[str]) -> AnnData:
    """Find the table, and check that it can be joined and added to.

    ``places`` are what will be added, such as ``"obs/area"``; it may be there already if we made it. Raises KeyError
    where there is no such table, and ValueError where it does not say which cells its rows are, or has something else
    in one of the places.
    """
    elements.check_spatialdata(sdata)
    if table_key not in sdata.tables:
        existing = listed(sdata.tables) or "none"
        raise KeyError(f"There is no table {table_key!r}; there is: {existing}. `nimbus_sd.predict` makes one.")
    table, advice = sdata.tables[table_key], "Pass the `table_key` of a table made by `nimbus_sd.predict`"
    _check_joinable(table, f"Table {table_key!r}", places, advice)
    return table


def check_rows(table: AnnData, name: str, regions: Sequence[Region], advice: str, *, some: bool) -> None:
    """Check that rows of the regions are of their cells, each once and, where ``some``, that some cell has one.

    Raises ValueError with a message that calls the table ``name`` and ends with the advice.
    """
    n_rows = 0
    for region in regions:
        rows, ids = rows_of(table, region)
        if len(rows) and not (ids > 0).any():
            raise _of_other_cells(table, name, region, rows, advice)
        n_rows += int(np.count_nonzero(ids > 0))
    if some and not n_rows:
        lacking = listed([region.labels_key for region in regions], 5)
        content = listed(table.obs[annotation(table)[0]].unique(), 5)
        raise ValueError(f"{name} has no rows for {lacking}; it is about {content}. {advice}.")


def check_cells(sdata: SpatialData, table_key: str, regions: Sequence[Region]) -> None:
    """Check, in pixels, that a table which is there and has rows for a region has one for one of its cells."""
    for region in regions if table_key in sdata.tables else ():
        rows, ids = rows_of(sdata.tables[table_key], region)
        # Mostly the first window is enough.
        found = (np.isin(region.read_labels(*window), ids[ids > 0]).any() for window in windows(region))
        if len(rows) and not any(found):
            raise _of_other_cells(sdata.tables[table_key], f"Table {table_key!r}", region, rows, _NEW_TABLE)


def _of_other_cells(table: AnnData, name: str, region: Region, rows: NDArray[np.intp], advice: str) -> ValueError:
    ids = listed(table.obs[annotation(table)[1]].iloc[rows[:3]].astype(str))
    return ValueError(f"{name} has rows for {region.labels_key!r}, but of none of its cells: {ids}, ... {advice}.")


def _check_joinable(table: AnnData, name: str, places: Sequence[str], advice: str) -> None:
    """Check that rows can be found by (region, instance id) and columns by name, and that the places are free."""
    if not isinstance(table.obs, pd.DataFrame):
        raise ValueError(f"{name} is not in memory; load it first (`to_memory()`). Or: {advice}.")
    attrs = table.uns.get(TableModel.ATTRS_KEY) or {}
    if not all(attrs.get(key) in table.obs for key in ("region_key", "instance_key")):
        lacking = "does not say which cells its rows are (region and instance id, as set by `TableModel.parse`)"
        raise ValueError(f"{name} {lacking}, so it cannot be joined. {advice}.")
    stored_ids(table)
    if not table.var_names.is_unique:
        raise ValueError(f"{name} has several columns of the same name in `var_names`. {advice}.")
    # What we write into `uns` and `varm` is known by its form.
    ours = written_by_us(table) | {f"uns/{key}" for key, entry in table.uns.items() if elements.is_ours(entry)}
    ours |= {f"varm/{key}" for key, entry in table.varm.items() if isinstance(entry, pd.DataFrame)}
    for place in places:
        where, key = place.split("/")
        # anndata 0.13 lists X among the layers, under the key None.
        alike = [entry for entry in getattr(table, where) if entry is not None and entry.lower() == key.lower()]
        if others := [entry for entry in alike if entry != key or place not in ours]:
            clash = f"{name} has {where}[{others[0]!r}] of another origin"
            raise ValueError(f"{clash}; {key!r} would overwrite it, or differ by case only. Pass another key.")
