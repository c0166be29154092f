"""All that can be wrong with a table, found before hours of computing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import TableModel

from nimbus_sd._table import pixel_sizes
from nimbus_sd.keys import CELL_FEATURES, ERODED, GOLD, INTEGRATED, MEDIAN, POSITIVE_PIXELS, SILVER
from nimbus_sd.spatial.elements import check_spatialdata, image_element, not_found, pair_elements
from nimbus_sd.spatial.region import Region, find_regions
from nimbus_sd.spatial.rows import annotation, is_ours, rows_of, written_by_us

_TAKEN = (INTEGRATED, GOLD, SILVER, MEDIAN, ERODED, POSITIVE_PIXELS, CELL_FEATURES, TableModel.ATTRS_KEY)


def check_keys(
    sdata: SpatialData, table_key: str, key_added: str, channels: Sequence[str], regions: Sequence[Region]
) -> None:
    """Check that results can be written under these names, in or beside what is there.

    The arguments are those of `write_table`; ``regions`` will be scored. Raises ValueError where a name is not allowed
    or taken, or where the table is not about these regions or channels.
    """
    for argument, name in (("table_key", table_key), ("key_added", key_added)):
        if not (isinstance(name, str) and re.fullmatch(r"(?!__)[\w.-]+", name)) or name in (".", "..", "_index"):
            raise ValueError(
                f"`{argument}` is {name!r}; it must consist of letters, digits, '_', '-' and '.' (not '__...')."
            )
    if same_name(_TAKEN, key_added):
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; pass another name.")
    others = [*sdata.images, *sdata.labels, *sdata.shapes, *sdata.points, *(set(sdata.tables) - {table_key})]
    if taken := same_name(others, table_key):
        raise ValueError(f"`table_key` is {table_key!r}, but there is an element {taken!r}; pass another `table_key`.")
    if table_key not in sdata.tables:
        return
    table, name = sdata.tables[table_key], f"Table {table_key!r}"
    advice = "Pass another `table_key` to make a new table"
    _check_joinable(table, name, advice)
    places = (f"layers/{key_added}", f"layers/{INTEGRATED}", f"uns/{key_added}", f"varm/{key_added}_normalization")
    _check_free(table, name, places, "another `key_added` or `table_key`")
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
            f"{name} has no columns {_some(missing)}, and they cannot be added{why}. Pass `channels` without them. Or: "
            f"{advice}."
        )
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
    check_spatialdata(sdata)
    if table_key not in sdata.tables:
        existing = ", ".join(map(repr, sdata.tables)) or "none"
        raise KeyError(f"There is no table {table_key!r}; there is: {existing}. `nimbus_sd.predict` makes one.")
    table, name = sdata.tables[table_key], f"Table {table_key!r}"
    _check_joinable(table, name, "Pass the `table_key` of a table made by `nimbus_sd.predict`")
    _check_free(table, name, places, "another `table_key`")
    return table


def regions_of_table(
    sdata: SpatialData,
    table_key: str,
    image_key: str | Sequence[str] | None,
    labels_key: str | Sequence[str] | None,
    channels: Sequence[str] | None,
    pixel_size: float | Mapping[str, float] | None,
) -> list[Region]:
    """Find the regions and channels that a table is about, with the arguments and errors of `find_regions`.

    None for both keys takes the labels elements that the table names, None for ``channels`` the columns that the first
    image has, and None for ``pixel_size`` what is noted in the table.
    """
    table, name = sdata.tables[table_key], f"Table {table_key!r}"
    if image_key is None and labels_key is None:
        labels_key = sorted(set(table.obs[annotation(table)[0]]) & set(sdata.labels)) or None
    pairs = pair_elements(sdata, image_key, labels_key)
    if channels is None:
        offered = image_element(sdata, pairs[0][0])[1]
        channels = [channel for channel in offered if channel in table.var_names]
        if not channels:
            raise ValueError(f"{name} is of something else: none of its columns is one of the channels {offered}.")
    if pixel_size is None:
        noted = pixel_sizes(table)
        pixel_size = {image: noted[labels] for image, labels in pairs if labels in noted}
    images, masks = zip(*pairs, strict=True)
    regions = find_regions(sdata, images, masks, channels=channels, pixel_size=pixel_size)
    if missing := [channel for channel in regions[0].channels if channel not in table.var_names]:
        raise not_found("column", missing, table.var_names, f" in table {table_key!r}")
    check_rows(table, name, regions, "Run `nimbus_sd.predict` on these regions first", some=True)
    return regions


def check_rows(table: AnnData, name: str, regions: Sequence[Region], advice: str, *, some: bool) -> None:
    """Check that no cell of the regions has two rows and, where ``some``, that some cell has one.

    Raises ValueError with a message that calls the table ``name`` and ends with the advice.
    """
    n_rows = 0
    for region in regions:
        rows, ids = rows_of(table, region.labels_key)
        n_rows += len(rows)
        if len(np.unique(ids)) < len(ids):
            raise ValueError(f"{name} has several rows for one label of {region.labels_key!r}. {advice}.")
    if some and not n_rows:
        raise ValueError(
            f"{name} has no rows for {_some([region.labels_key for region in regions])}; it is about "
            f"{_some(table.obs[annotation(table)[0]].unique())}. {advice}."
        )


def same_name(names: Iterable[str], name: str) -> str | None:
    """Find a name that is there in upper or lower case: both together could not be stored."""
    return next((other for other in names if other.lower() == name.lower()), None)


def _check_joinable(table: AnnData, name: str, advice: str) -> None:
    """Check that rows can be found by (region, instance id) and columns by name."""
    if not isinstance(table.obs, pd.DataFrame):
        raise ValueError(f"{name} is not in memory; load it first (`to_memory()`). Or: {advice}.")
    attrs = table.uns.get(TableModel.ATTRS_KEY) or {}
    if not all(attrs.get(key) in table.obs for key in ("region_key", "instance_key")):
        raise ValueError(
            f"{name} does not say which cells its rows are (a region and an instance id for each, as set by "
            f"`TableModel.parse`), so it cannot be joined. {advice}."
        )
    if not table.var_names.is_unique:
        raise ValueError(f"{name} has several columns of the same name in `var_names`. {advice}.")


def _check_free(table: AnnData, name: str, places: Sequence[str], advice: str) -> None:
    """Check that what will be added is not there as something of others, or in other case."""
    # What we write into `uns` and `varm` is known by its form.
    ours = written_by_us(table) | {f"uns/{key}" for key, entry in table.uns.items() if is_ours(entry)}
    ours |= {f"varm/{key}" for key, entry in table.varm.items() if isinstance(entry, pd.DataFrame)}
    for place in places:
        where, key = place.split("/")
        for entry in getattr(table, where):
            # anndata 0.13 lists X among the layers, under the key None.
            if entry is not None and entry.lower() == key.lower() and not (entry == key and place in ours):
                raise ValueError(
                    f"{name} has {where}[{entry!r}] of another origin; {key!r} would overwrite it, or differ by case "
                    f"only. Rename it, or pass {advice}."
                )


def _some(names: Iterable[object], most: int = 5) -> str:
    names = list(names)
    return ", ".join(map(repr, map(str, names[:most]))) + (", ..." if len(names) > most else "")
