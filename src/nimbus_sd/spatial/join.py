"""Finding the rows and columns of an existing table to which more is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd.spatial.elements import check_spatialdata, image_element, not_found
from nimbus_sd.spatial.pairs import pair_elements
from nimbus_sd.spatial.provenance import written_by_us
from nimbus_sd.spatial.region import Region
from nimbus_sd.spatial.regions import find_regions
from nimbus_sd.spatial.rows import annotation, rows_of
from nimbus_sd.spatial.table_checks import check_joinable, check_rows, has_key

if TYPE_CHECKING:
    from spatialdata import SpatialData


def existing_table(sdata: SpatialData, table_key: str, places: Sequence[str]) -> AnnData:
    """Find the table, and check that it can be joined and added to.

    Parameters
    ----------
    sdata, table_key
        Where the table is.
    places
        What will be added, such as ``"obs/area"``; it may be there already if we made it.

    Raises
    ------
    KeyError
        There is no such table.
    ValueError
        It does not say which cells its rows are, or has something else in one of the places.
    """
    check_spatialdata(sdata)
    if table_key not in sdata.tables:
        known = ", ".join(map(repr, sdata.tables)) or "none"
        raise KeyError(
            f"There is no table {table_key!r} to add to (there is: {known}). Run `nimbus_sd.predict` first, or pass "
            "the `table_key` of its table."
        )
    table, name = sdata.tables[table_key], f"Table {table_key!r}"
    check_joinable(table, name, "Pass the `table_key` of a table made by `nimbus_sd.predict`")
    ours = written_by_us(table)
    for place in places:
        where, key = place.split("/")
        if place not in ours and has_key((entry for entry in getattr(table, where) if entry is not None), key):
            raise ValueError(
                f"{name} has {where}[{key!r}] of another origin, which would be overwritten. Rename it, or pass "
                "another `table_key`."
            )
    return table


def regions_of_table(
    sdata: SpatialData,
    table_key: str,
    image_key: str | Sequence[str] | None,
    labels_key: str | Sequence[str] | None,
    channels: Sequence[str] | None,
    pixel_size: float | Mapping[str, float] | None,
    noted: Mapping[str, float],
) -> list[Region]:
    """Find the regions and channels that a table is about.

    Parameters
    ----------
    sdata, table_key
        Where the table is.
    image_key, labels_key, pixel_size
        As in `find_regions`; None for both keys takes the labels elements that the table names.
    channels
        Columns of the table. None takes all that the first image has.
    noted
        Pixel size of labels elements' images, taken where ``pixel_size`` is None.

    Raises
    ------
    KeyError
        An element or a channel does not exist, in the images or in the table.
    ValueError
        As `find_regions`, or the table has no row or column of these.
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
        pixel_size = {image: noted[labels] for image, labels in pairs if labels in noted}
    images, masks = zip(*pairs, strict=True)
    regions = find_regions(sdata, images, masks, channels=channels, pixel_size=pixel_size)
    if missing := [channel for channel in regions[0].channels if channel not in table.var_names]:
        raise not_found("column", missing, table.var_names, f" in table {table_key!r}")
    check_rows(table, name, regions, "Run `nimbus_sd.predict` on these regions first", some=True)
    return regions


def matched(table: AnnData, labels_key: str, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the rows of the table that hold one of these cells, and the cells' positions in ``ids``, ascending."""
    rows, own = rows_of(table, labels_key)
    source = pd.Index(ids).get_indexer(pd.Index(own))
    order = np.argsort(source, kind="stable")[np.count_nonzero(source < 0) :]
    return rows[order], source[order]
