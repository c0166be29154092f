"""From per-cell results to the table."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd.keys import AREA, INTEGRATED, SPATIAL
from nimbus_sd.spatial.provenance import (
    is_extendable,
    made_otherwise,
    merge_factors,
    storable,
    written_by_us,
)
from nimbus_sd.spatial.region import RegionResult
from nimbus_sd.spatial.rows import dense, extended, new_table, rows_of
from nimbus_sd.spatial.table_checks import check_keys, has_key

if TYPE_CHECKING:
    from spatialdata import SpatialData

__all__ = ["WRITING", "RegionResult", "check_keys", "write_table"]

#: Held while a table is read, changed and put back: threads that share a SpatialData would lose each other's results.
WRITING: Final = threading.Lock()


def write_table(
    sdata: SpatialData,
    results: Sequence[RegionResult],
    *,
    channels: Sequence[str],
    table_key: str,
    key_added: str,
    factors: pd.DataFrame,
    provenance: Mapping[str, Any],
) -> AnnData:
    """Put results into a table of a SpatialData: a new one, or one that is there already.

    A new table has one row per cell and one column per channel. An existing one is joined on (region,
    instance id): its rows, their order and its other content stay, and of our layers only the scored channels
    of the scored regions are replaced. Cells and channels that it lacks are added if we made the table;
    otherwise cells without a row are left out with a warning, and lacking channels are an error.

    All is prepared on a copy, which takes the place of the table in the end. Nothing on disk changes.

    Parameters
    ----------
    sdata
        Where to put the table.
    results
        One for each region.
    channels
        Names of the C channels.
    table_key
        Name of the table.
    key_added
        Name of the layer of scores, and of the other entries below.
    factors
        Normalisation, one row per channel, one column per region and a column ``factor``.
    provenance
        How the scores were made. What cannot be stored in zarr is stored as text, None is left out.

    Returns
    -------
    AnnData
        ``sdata.tables[table_key]``, in which is set:

        - ``layers[key_added]``: scores, float32, NaN = not scored.
        - ``layers["integrated_expression"]``: mean raw intensities; ``X`` of a table made by us is the same.
        - ``obs["area"]``: in um^2, and ``obsm["spatial"]``: x and y in pixels of the image, unless
          there already.
        - ``varm[f"{key_added}_normalization"]``: ``factors``.
        - ``uns[key_added]``: ``provenance``, the unit of the area, and ``wrote``: what of this table is
          from us.

    Raises
    ------
    ValueError
        As `check_keys`, and where an id does not fit into int64.
    """
    channels = [str(channel) for channel in channels]
    check_keys(sdata, table_key, key_added, channels, [result.region for result in results])
    cells = {result.region.labels_key: _as_int64(result) for result in results}
    if table_key in sdata.tables:
        table = sdata.tables[table_key].copy()
        ours = is_extendable(table)
        table = extended(table, cells, channels) if ours else table
    else:
        table, ours = new_table(cells, channels), True

    columns = table.var_names.get_indexer(channels)
    scores = dense(table.layers.get(key_added), table.shape)
    expression = dense(table.layers.get(INTEGRATED), table.shape)
    area, position = _own(table, "obs", AREA, (table.n_obs,)), _own(table, "obsm", SPATIAL, (table.n_obs, 2))
    kept = np.isfinite(scores)
    without_row = 0
    for result in results:
        region = result.region
        rows, ids = rows_of(table, region.labels_key)
        source = pd.Index(cells[region.labels_key]).get_indexer(pd.Index(ids))
        block = np.ix_(rows, columns)
        scores[block], expression[block] = _taken(result.scores, source), _taken(result.expression, source)
        kept[block] = False
        if area is not None:
            area[rows] = _taken(result.area_px * region.pixel_size**2, source)
        if position is not None:
            position[rows] = _taken(result.centroid[:, ::-1] / region.image_repeat, source)
        without_row += len(result.ids) - int(np.count_nonzero(source >= 0))
    if without_row:
        _warn(
            f"{without_row} cells of the masks have no row in table {table_key!r} and were left out. Pass "
            "another `table_key` to get a table of all cells."
        )
    if kept.any() and (other := made_otherwise(table, key_added, provenance)):
        _warn(
            f"layers[{key_added!r}] keeps scores made otherwise ({other}) for cells or channels not "
            f"scored now, and uns[{key_added!r}] tells of the new ones only. Pass another `key_added` to "
            "keep them apart."
        )

    layers = {key_added: scores, INTEGRATED: expression}
    wrote = [f"layers/{key}" for key in layers]
    for key, values in layers.items():
        table.layers[key] = values
    if ours:
        table.X = expression.copy()
        wrote.append("X")
    if area is not None:
        table.obs[AREA] = area
        wrote.append(f"obs/{AREA}")
    if position is not None:
        table.obsm[SPATIAL] = position
        wrote.append(f"obsm/{SPATIAL}")
    normalization = f"{key_added}_normalization"
    table.varm[normalization] = merge_factors(table.varm.get(normalization), factors, table.var_names)
    table.uns[key_added] = {
        **storable(provenance),
        **({} if area is None else {"area_unit": "um^2"}),
        "wrote": sorted(wrote),
    }
    sdata.tables[table_key] = table
    return table


def _own(table: AnnData, where: str, key: str, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Copy what we wrote before, NaN throughout if nothing; None where there is something of others."""
    there = getattr(table, where)
    if key in there and f"{where}/{key}" in written_by_us(table):
        return dense(there[key], shape, np.float64)
    return None if has_key(there, key) else dense(None, shape, np.float64)


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)


def _as_int64(result: RegionResult) -> NDArray[np.int64]:
    ids = np.asarray(result.ids)
    if ids.size and ids.max() > np.iinfo(np.int64).max:
        raise ValueError(
            f"Labels {result.region.labels_key!r} hold the id {ids.max()}, but a table holds ids up to "
            f"{np.iinfo(np.int64).max} only. Renumber them, e.g. with `spatialdata.relabel_sequential`."
        )
    return ids.astype(np.int64)


def _taken(values: NDArray, source: NDArray[np.intp]) -> NDArray:
    """Take rows of results, NaN where the source is -1."""
    found = source >= 0
    if found.all():
        return values[source]
    taken = np.full((len(source), *values.shape[1:]), np.nan, values.dtype)
    taken[found] = values[source[found]]
    return taken
