"""From per-cell results to the table."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from pandas.api.extensions import take
from spatialdata import SpatialData
from spatialdata.models import TableModel

from nimbus_sd._text import listed
from nimbus_sd.keys import AREA, INTEGRATED, SPATIAL
from nimbus_sd.spatial.elements import same_name
from nimbus_sd.spatial.region import Region
from nimbus_sd.spatial.rows import (
    annotation,
    check_keys,
    dense,
    extend,
    is_extendable,
    new_table,
    rows_of,
    stored_ids,
    written_by_us,
)

#: Held while a table is read, changed and put back: threads that share a SpatialData would lose each other's results.
WRITING: Final = threading.Lock()


@dataclass(frozen=True, eq=False)
class RegionResult:
    """What was measured of the n cells of a region, in C channels.

    Attributes
    ----------
    ids
        Labels of the cells, shape (n,), each once.
    scores, expression
        Confidence that the cell expresses the marker, in [0, 1], and mean raw intensity, float32 (n, C).
    area_px
        Pixels of the region's common grid in each cell, shape (n,).
    centroid
        Mean y and x on the common grid, shape (n, 2); the centre of the first pixel is (0.5, 0.5).
    too_small
        Number of cells that have no interior pixel at the model's pixel size.
    """

    region: Region
    ids: NDArray[np.integer]
    scores: NDArray[np.float32]
    expression: NDArray[np.float32]
    area_px: NDArray[np.integer]
    centroid: NDArray[np.float64]
    too_small: int = 0


def write_table(
    sdata: SpatialData,
    results: Sequence[RegionResult],
    *,
    table_key: str,
    key_added: str,
    factors: pd.DataFrame,
    provenance: Mapping[str, Any],
) -> AnnData:
    """Put results into a table of a SpatialData: a new one, or one that is there already.

    An existing one is joined on (region, instance id): its rows, their order and its other content stay, and in our
    layers only the scored channels of the scored regions are replaced. Cells and channels that it lacks are added if we
    made the table; else cells without a row are left out with a warning, and `check_keys` refuses lacking channels.
    All is prepared on a copy, which takes the place of the table in the end. Nothing on disk changes.

    Parameters
    ----------
    results
        One for each region.
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
        - ``obs["area"]``: in um^2, and ``obsm["spatial"]``: x and y in pixels of the image, unless there already.
        - ``varm[f"{key_added}_normalization"]``: ``factors``.
        - ``uns[key_added]``: ``provenance``, the unit of the area, and ``wrote``: what of this table is from us.
    """
    channels = results[0].region.channels
    check_keys(sdata, table_key, key_added, channels, [result.region for result in results])
    cells = {result.region.labels_key: result.region.cell_ids(result.ids) for result in results}
    if table_key in sdata.tables:
        table = sdata.tables[table_key].copy()
        region_key, instance_key = annotation(table)
        table.obs[instance_key] = stored_ids(table)
        table.uns[TableModel.ATTRS_KEY][TableModel.REGION_KEY] = table.obs[region_key].unique().tolist()
        ours = is_extendable(table)
        table = extend(table, cells, channels) if ours else table
    else:
        table, ours = new_table(cells, channels), True

    places = f"layers/{key_added}", f"layers/{INTEGRATED}", f"obs/{AREA}", f"obsm/{SPATIAL}"
    arrays = {place: dense(table.layers.get(place.removeprefix("layers/")), table.shape) for place in places[:2]}
    for place, shape in zip(places[2:], ((table.n_obs,), (table.n_obs, 2)), strict=True):
        where, key = place.split("/")
        entries = getattr(table, where)
        if not same_name(entries, key) or (key in entries and place in written_by_us(table)):
            arrays[place] = dense(entries.get(key), shape, np.float64)
    kept = np.isfinite(arrays[places[0]])
    earlier = table.uns.pop(key_added, {})
    without_row = without_cell = 0
    regrown = []
    for result in results:
        region = result.region
        rows, ids = rows_of(table, region)
        source = pd.Index(result.ids).get_indexer(pd.Index(ids))
        block = np.ix_(rows, table.var_names.get_indexer(channels))
        area, position = result.area_px * region.pixel_size**2, result.centroid[:, ::-1] / region.image_repeat
        for place, values in zip(places, (result.scores, result.expression, area, position), strict=True):
            if place in arrays:
                # NaN where the source is -1.
                arrays[place][block if place in places[:2] else rows] = take(values, source, allow_fill=True)
        kept[block] = False
        without_row += len(result.ids) - int(np.count_nonzero(source >= 0))
        without_cell += int(np.count_nonzero(source < 0))
        if kept[rows].any() and earlier.get("grow", {}).get(region.labels_key, region.grow) != region.grow:
            regrown.append(region.labels_key)
    if without_row:
        left_out = f"{without_row} cells of the masks have no row in table {table_key!r} and were left out"
        _warn(f"{left_out}. Pass another `table_key` to get a table of all cells.")
    if without_cell:
        _warn(
            f"{without_cell} rows of table {table_key!r} are of no cell of the masks, and get no scores. Check the ids."
        )
    if regrown:
        mixed = f"layers[{key_added!r}] keeps scores of cells of {listed(regrown)} that were grown otherwise (`grow`)"
        _warn(f"{mixed}, for channels not scored now. Score them again, or pass another `key_added`.")
    if kept.any() and (other := _other_settings(earlier, _storable(provenance))):
        mixed = f"layers[{key_added!r}] keeps scores made otherwise ({other}) for cells or channels not scored now"
        _warn(f"{mixed}, and uns[{key_added!r}] tells of the new ones only. Pass another `key_added`.")

    for place, values in arrays.items():
        where, key = place.split("/")
        getattr(table, where)[key] = values
    if ours:
        table.X = table.layers[INTEGRATED].copy()
    normalization = f"{key_added}_normalization"
    table.varm[normalization] = _merged(table.varm.get(normalization), factors, table.var_names)
    # The entry was taken out, so that it comes last: `noted_by_region` goes by the last call.
    kept_notes = {key: {**earlier[key], **provenance[key]} for key in ("image", "pixel_size", "grow") if key in earlier}
    table.uns[key_added] = {
        **_storable({**provenance, **kept_notes}),
        **({"area_unit": "um^2"} if f"obs/{AREA}" in arrays else {}),
        "wrote": sorted([*arrays, *(["X"] if ours else [])]),
    }
    sdata.tables[table_key] = table
    return table


def _warn(message: str) -> None:
    """Warn on behalf of the caller of `predict`."""
    warnings.warn(message, UserWarning, stacklevel=4)


def _other_settings(before: Mapping[str, Any], now: Any) -> str:
    """State the settings under which earlier scores were made, where they are not those of now."""
    settings = ("model", "sha256", "views", "precision", "normalization", "quantile")
    # Lists come back from disk as arrays.
    other = [key for key in settings if key in before and not np.array_equal(before[key], now.get(key))]
    return ", ".join(f"{key} {before[key]!r}" for key in other)


def _storable(value: Any) -> Any:
    """Turn provenance into what zarr can hold: None is left out, other objects become text."""
    if isinstance(value, Mapping):
        return {str(key): _storable(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_storable(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, bool | int | float | str | np.ndarray) else str(value)


def _merged(before: pd.DataFrame | None, factors: pd.DataFrame, var_names: pd.Index) -> pd.DataFrame:
    """Put new factors, channels x (regions and ``factor``), over those of earlier runs; the others stay."""
    before = pd.DataFrame(index=var_names) if before is None else before
    columns = [*before.columns, *(column for column in factors.columns if column not in before.columns)]
    columns.sort(key=lambda column: column == "factor")
    merged = pd.DataFrame(np.nan, index=var_names, columns=columns)
    merged[before.columns] = before.to_numpy(np.float64)
    merged.loc[factors.index, factors.columns] = factors.to_numpy(np.float64)
    return merged
