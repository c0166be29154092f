"""All that can be wrong with a table, found before hours of computing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel

from nimbus_sd.keys import CELL_FEATURES, ERODED, GOLD, INTEGRATED, MEDIAN, POSITIVE_PIXELS, SILVER
from nimbus_sd.spatial.provenance import is_extendable, is_ours, written_by_us
from nimbus_sd.spatial.region import Region
from nimbus_sd.spatial.rows import annotation, rows_of

if TYPE_CHECKING:
    from spatialdata import SpatialData

_TAKEN = (
    INTEGRATED,
    GOLD,
    SILVER,
    MEDIAN,
    ERODED,
    POSITIVE_PIXELS,
    CELL_FEATURES,
    TableModel.ATTRS_KEY,
)


def check_keys(
    sdata: SpatialData, table_key: str, key_added: str, channels: Sequence[str], regions: Sequence[Region]
) -> None:
    """Check that results can be written under these names, in or beside what is there.

    Parameters
    ----------
    sdata, table_key, key_added, channels
        As in `write_table`.
    regions
        The regions that will be scored.

    Raises
    ------
    ValueError
        A name is not allowed or taken by something else; or the table under ``table_key`` does not annotate
        these regions by (region, instance id), or is of something else than these channels.
    """
    check_name("table_key", table_key)
    check_name("key_added", key_added)
    if _variant(_TAKEN, key_added):
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; pass another name.")
    others = [*sdata.images, *sdata.labels, *sdata.shapes, *sdata.points, *(set(sdata.tables) - {table_key})]
    if taken := _variant(others, table_key):
        raise ValueError(
            f"`table_key` is {table_key!r}, but there is an element {taken!r}, and names must differ by "
            "more than case; pass another `table_key`."
        )
    if table_key in sdata.tables:
        _check_table(sdata.tables[table_key], table_key, key_added, list(channels), regions)


def _check_table(
    table: AnnData, table_key: str, key_added: str, channels: list[str], regions: Sequence[Region]
) -> None:
    name, advice = f"Table {table_key!r}", "Pass another `table_key` to make a new table"
    check_joinable(table, name, advice)
    _check_free(table, name, key_added)
    extendable, was_ours = is_extendable(table), "X" in written_by_us(table)
    missing = [channel for channel in channels if channel not in table.var_names]
    if len(missing) == len(channels) and not was_ours:
        raise ValueError(
            f"{name} is a table of something else: its {table.n_vars} columns ({_some(table.var_names)}) are none of "
            f"the channels ({_some(channels)}). {advice}."
        )
    if missing and not extendable:
        why = " any more, since X was changed after we made the table" if was_ours else ""
        raise ValueError(
            f"{name} has no columns {_some(missing)}, and they cannot be added{why}. Pass `channels` without them, "
            f"or another `table_key` to make a new table."
        )

    check_rows(table, name, regions, advice, some=not extendable)


def check_joinable(table: AnnData, name: str, advice: str) -> None:
    """Check that rows can be found by (region, instance id) and columns by name.

    Raises
    ------
    ValueError
        They cannot; the message calls the table ``name`` and ends with the advice.
    """
    if not isinstance(table.obs, pd.DataFrame):
        raise ValueError(f"{name} is not in memory; load it first (`to_memory()`). Or: {advice}.")
    attrs = table.uns.get(TableModel.ATTRS_KEY)
    if not attrs or any(not attrs.get(key) or attrs[key] not in table.obs for key in ("region_key", "instance_key")):
        raise ValueError(
            f"{name} does not say which cells its rows are (a region and an instance id for each, as set by "
            f"`TableModel.parse`), so it cannot be joined. {advice}."
        )
    if not table.var_names.is_unique:
        raise ValueError(f"{name} has several columns of the same name in `var_names`. {advice}.")


def check_rows(table: AnnData, name: str, regions: Sequence[Region], advice: str, *, some: bool) -> None:
    """Check that no cell of the regions has two rows and, on demand, that some cell has one.

    Raises
    ------
    ValueError
        As in `check_joinable`.
    """
    n_rows = 0
    for region in regions:
        rows, ids = rows_of(table, region.labels_key)
        n_rows += len(rows)
        if len(np.unique(ids)) < len(ids):
            raise ValueError(f"{name} has several rows for one label of {region.labels_key!r}. {advice}.")
    if some and not n_rows:
        region_key, _ = annotation(table)
        raise ValueError(
            f"{name} has no rows for {_some([region.labels_key for region in regions])}; it is about "
            f"{_some(table.obs[region_key].unique())}. {advice}."
        )


def _check_free(table: AnnData, name: str, key_added: str) -> None:
    """Check that what we will add is not there as something else, or in other case."""
    normalization = f"{key_added}_normalization"
    for where, keys in (
        ("layers", (key_added, INTEGRATED)),
        ("uns", (key_added,)),
        ("varm", (normalization,)),
    ):
        for key in keys:
            found = _variant((entry for entry in getattr(table, where) if entry is not None), key)
            if found and found != key:
                raise ValueError(
                    f"{name} has {where}[{found!r}], and {key!r}, which would be added, must differ by more "
                    "than case. Rename it, or pass another `key_added` or `table_key`."
                )
    for key in (key_added, INTEGRATED):
        if key in table.layers and f"layers/{key}" not in written_by_us(table):
            raise ValueError(
                f"{name} has layers[{key!r}] of another origin, which would be overwritten. Rename it, or pass another "
                "`key_added` or `table_key`."
            )
    made = table.uns.get(key_added)
    if made is not None and not is_ours(made):
        raise ValueError(f"{name} has another entry uns[{key_added!r}] already; pass another `key_added`.")
    if not isinstance(table.varm.get(normalization, pd.DataFrame()), pd.DataFrame):
        raise ValueError(f"{name} has another entry varm[{normalization!r}] already; pass another `key_added`.")


def has_key(mapping: Iterable[str], key: str) -> bool:
    """Say whether a key is there, in upper or lower case: both together could not be stored."""
    return _variant(mapping, key) is not None


def _variant(keys: Iterable[str], key: str) -> str | None:
    return next((other for other in keys if other.lower() == key.lower()), None)


def check_name(argument: str, name: str) -> None:
    """Refuse a name that an element, a layer or a column cannot have on disk.

    Raises
    ------
    ValueError
        If it has other letters than SpatialData allows.
    """
    allowed = isinstance(name, str) and name and all(letter.isalnum() or letter in "_-." for letter in name)
    if not allowed or name in (".", "..", "_index") or name.startswith("__"):
        raise ValueError(
            f"`{argument}` is {name!r}; it must consist of letters, digits, '_', '-' and '.', and not begin with '__'."
        )


def _some(names: Iterable[object], most: int = 5) -> str:
    names = list(names)
    return ", ".join(map(repr, map(str, names[:most]))) + (", ..." if len(names) > most else "")
