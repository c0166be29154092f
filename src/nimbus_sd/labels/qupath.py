"""Cells to QuPath as GeoJSON, with their labels for proofreading or with types and scores, and back when corrected."""

from __future__ import annotations

import json
import logging
import re
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from nimbus_sd import keys
from nimbus_sd._disk import replacing
from nimbus_sd._geojson import ENDINGS, as_in_qupath
from nimbus_sd._table import as_list, check_table, clusters_of
from nimbus_sd._table import layer as read_layer
from nimbus_sd._text import listed
from nimbus_sd.labels.layers import (
    PLACE,
    STATES,
    WORDS,
    cells_of,
    check_names,
    known_cells,
    put_labels,
    read_labels,
    rows_of,
)
from nimbus_sd.labels.qupath_objects import read_features
from nimbus_sd.spatial import cell_numbers, check_spatialdata, not_found, read_polygons, region_of_table

logger = logging.getLogger("nimbus_sd")

Names: TypeAlias = str | Sequence[str]

_ENDING = ".geojson"

# From orange (positive) to blue (negative), sure ones darker (Okabe and Ito 2008, lightened).
_RGB = ([213, 94, 0], [240, 170, 110], [204, 121, 167], [130, 185, 220], [0, 114, 178])
_COLORS = dict(zip(STATES, _RGB, strict=True))
# QuPath keeps ids of objects if they are of this kind; these differ from those of all others.
_NAMESPACE = uuid.UUID("5e3b0c1a-6f0b-5d34-9a57-6c1f0d6a4b1e")


def to_qupath(
    sdata: SpatialData,
    folder: str | Path,
    *,
    layer: str | None = keys.SILVER,
    regions: Names | None = None,
    channels: Names | None = None,
    cells: pd.DataFrame | None = None,
    class_key: str | None = None,
    measurements: Names | None = None,
    image_key: Names | None = None,
    table_key: str = "table",
) -> list[Path]:
    """Write cells as GeoJSON for QuPath: a file for each region and channel to proofread, or one a region to look at.

    In QuPath, open the region's image, drag a file onto it, correct the classes of cells (``positive``, ``likely
    positive``, ``undetermined``, ``likely negative``, ``negative``; none is not judged), and export all objects as
    GeoJSON. Names of objects say where a label belongs and must stay.

    With ``class_key`` or ``measurements`` each cell is one object, to look at scores and to correct types.

    Parameters
    ----------
    sdata
        Images, labels and the table of their cells.
    folder
        Where to write; created if needed.
    layer
        Layer of labels to start from, as the paper did with silver ones. None leaves all cells without a class.
    regions
        Labels elements, such as those of :func:`draw_regions`. None takes all of the table.
    channels
        Channels. None takes those with a label in the layer, or all without one.
    cells
        Only these, as :func:`draw_cells` returns them; in place of ``regions`` and ``channels``.
    class_key
        Column of ``obs``, such as cell types or clusters, that is the class of cells, in place of ``layer``.
    measurements
        Layers, such as ``["nimbus", "positive"]``, whose values are measurements of cells: ``nimbus: CD3``.
    image_key
        Image that QuPath shows, or one for each region. None finds it as :func:`nimbus_sd.predict` does.
    table_key
        The table.

    Returns
    -------
    list of Path
        The files, ``<region>.<channel>.geojson`` or ``<region>.geojson``. Outlines follow the pixels of the cells that
        were scored (those of labels or shapes, grown if they were), in pixels of the image.

    Raises
    ------
    FileExistsError
        One of the files exists; nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = ns.labels.to_qupath(sdata, folder, layer="gold", regions="fov1_labels", channels=["CD3", "CD8"])
    >>> [file.name for file in files]
    ['fov1_labels.CD3.geojson', 'fov1_labels.CD8.geojson']
    """
    from shapely.geometry import mapping

    check_spatialdata(sdata)
    if table_key not in sdata.tables:
        raise not_found("table", [table_key], sdata.tables)
    adata = sdata.tables[table_key]
    if class_key is not None or measurements is not None:
        if cells is not None:
            raise ValueError("`cells` are for proofreading; pass `regions` with `class_key` or `measurements`.")
        table = _whole_cells(adata, regions, channels, class_key, measurements)
    else:
        labels = None if layer is None else read_labels(adata, layer)
        table = _cells_by_channel(adata, labels, regions, channels, cells)
    if table.empty:
        raise ValueError("There is no cell to write.")
    files = _files(Path(folder), table)
    if existing := [path for path in files.values() if path.exists()]:
        paths = listed(map(str, existing))
        raise FileExistsError(f"{paths} may hold corrections; nothing was written. Delete them first.")
    # Images are paired with regions as they were given, not in the order of the table.
    names = as_list(regions) if cells is None and regions is not None else list(table["region"].unique())
    images = [image_key] * len(names) if image_key is None or isinstance(image_key, str) else list(image_key)
    if len(images) != len(names):
        raise ValueError(f"`image_key` names {len(images)} images for the {len(names)} regions {names}.")
    # One by one, for images may have different channels.
    pairs = zip(images, names, strict=True)
    places = {name: region_of_table(sdata, adata, image, name) for image, name in pairs}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with replacing(*files.values()) as unfinished:
        unfinished_of = dict(zip(files, unfinished, strict=True))
        for name, in_region in table.groupby("region", sort=False):
            numbers = cell_numbers(in_region["instance_id"], places[name])
            outlines = {cell: mapping(polygon) for cell, polygon in read_polygons(places[name], np.unique(numbers))}
            in_region = in_region.assign(outline=[outlines.get(cell) for cell in numbers])
            if len(without := in_region[in_region["outline"].isna()]["instance_id"].unique()):
                message = f"{len(without)} cells of the table have no pixels in labels {name!r}, such as {without[0]}"
                warnings.warn(f"{message}; they were left out.", UserWarning, stacklevel=2)
            for channel, rows in in_region.groupby("channel", sort=False):
                rows = rows.dropna(subset="outline")
                place = [f"{name} {quote(str(cell))} {channel}".strip() for cell in rows["instance_id"]]
                features = [*map(_feature, place, rows["properties"], rows["outline"])]
                content = json.dumps({"type": "FeatureCollection", "features": features})
                unfinished_of[name, channel].write_text(content, encoding="utf-8")
    logger.info("wrote %d files to %s", len(files), folder)
    return list(files.values())


def from_qupath(
    adata: AnnData,
    files: str | Path | Iterable[str | Path],
    *,
    key_added: str = keys.GOLD,
    class_key: str | None = None,
) -> None:
    """Read labels, or classes of cells, that were corrected in QuPath.

    Parameters
    ----------
    adata
        Cells x channels, with region and instance id in ``obs``.
    files
        A file that QuPath exported, as it is or compressed (``.zip``, ``.gz``), a folder of them, or several of both.
        Where a label belongs is taken from the names of objects, not from those of files.
    key_added
        Name of the layer: ``"gold"`` for whole regions of :func:`draw_regions`, ``"gold_training"`` for cells of
        :func:`draw_cells`, any other for an annotator (see :func:`consensus`).
    class_key
        Column of ``obs`` for the classes of cells that :func:`to_qupath` wrote with ``class_key`` or ``measurements``.

    Returns
    -------
    None
        Sets ``layers[key_added]``: the labels of the files, NaN for their cells without a class; or in its place the
        categories ``obs[class_key]``. Other cells keep what they have.

    Raises
    ------
    KeyError
        A region or channel is not in the table; a warning says how many cells are not.
    ValueError
        A file is no GeoJSON of such cells, a cell has two states, or a region would be for training and for evaluation.

    Examples
    --------
    >>> import tempfile
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = sdata.tables["table"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = ns.labels.to_qupath(sdata, folder, layer="gold", channels="CD3")
    ...     ns.labels.from_qupath(adata, folder, key_added="again")
    >>> bool((adata.to_df("again")["CD3"] == adata.to_df("gold")["CD3"]).all())
    True

    Types, with labels as measurements, out and back:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = ns.labels.to_qupath(sdata, folder, class_key="cell_type", measurements="gold")
    ...     ns.labels.from_qupath(adata, folder, class_key="corrected")
    >>> bool((adata.obs["corrected"] == adata.obs["cell_type"]).all())
    True
    """
    check_table(adata)
    paths = []
    for path in map(Path, [files] if isinstance(files, str | Path) else files):
        inside = sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS)) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(f"There is no {_ENDING} file in {str(path)!r}.")
        paths += inside
    form = {"types": class_key is not None, "numbers": cells_of(adata)["instance_id"].dtype == np.int64}
    rows = [row for path in paths for row in read_features(path, **form)]
    if not rows:
        raise ValueError(f"There is no cell in {listed(map(str, paths)) or 'an empty list of files'}.")
    source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
    table = pd.DataFrame(rows, columns=[*PLACE, "label"])
    if class_key is None:
        put_labels(adata, table, key_added, source)
    else:
        _put_classes(adata, table, class_key, source)


def _cells_by_channel(
    adata: AnnData, labels: NDArray | None, regions: Names | None, channels: Names | None, cells: pd.DataFrame | None
) -> pd.DataFrame:
    """Return what to proofread, `PLACE`, with its class as ``properties``: all cells of some regions, or these."""
    if cells is None:
        labelled = adata.var_names if labels is None else adata.var_names[np.isfinite(labels).any(axis=0)]
        wanted = pd.Series(list(labelled) if channels is None else as_list(channels), name="channel", dtype=object)
        table = _cells_in(adata, regions, wanted).merge(wanted, how="cross")
    elif lacking := [name for name in PLACE if name not in cells]:
        raise KeyError(f"`cells` lacks the columns {lacking}; it must be the result of `labels.draw_cells`.")
    else:
        check_names(adata, cells["region"].unique(), cells["channel"].unique())
        table = cells[PLACE].reset_index(drop=True)
    if (missing := (rows := rows_of(adata, table)) < 0).any():
        raise KeyError(f"`cells` has {missing.sum()} cells that the table has not.")
    columns = adata.var_names.get_indexer(table["channel"])
    states = [None] * len(table) if labels is None else map(WORDS.get, labels[rows, columns].astype(float))
    classes = ({"name": state, "color": _COLORS[state]} if state else None for state in states)
    return table.assign(properties=[{"classification": state} if state else {} for state in classes])


def _whole_cells(
    adata: AnnData, regions: Names | None, channels: Names | None, class_key: str | None, measurements: Names | None
) -> pd.DataFrame:
    """Return all cells of some regions, with an empty channel, and class and measurements as ``properties``."""
    wanted = list(adata.var_names) if channels is None else as_list(channels)
    table = _cells_in(adata, regions, wanted)
    names = as_list(measurements or [])
    columns = [f"{name}: {channel}" for name in names for channel in wanted]
    values = [read_layer(adata, name)[:, adata.var_names.get_indexer(wanted)] for name in names]
    matrix = np.hstack([np.zeros((adata.n_obs, 0)), *values])[table.index]
    classes = clusters_of(adata, class_key)[table.index] if class_key is not None else [np.nan] * len(table)
    properties: list[dict[str, Any]] = [{} if pd.isna(name) else {"classification": {"name": name}} for name in classes]
    for entry, row in zip(properties, matrix if names else (), strict=bool(names)):
        entry["measurements"] = {
            name: float(f"{value:.6g}") for name, value in zip(columns, row, strict=True) if np.isfinite(value)
        }
    return table.assign(channel="", properties=properties)


def _cells_in(adata: AnnData, regions: Names | None, channels: Iterable[str]) -> pd.DataFrame:
    """Return region and id of all cells of some regions, with their rows as index."""
    cells = cells_of(adata).reset_index(drop=True)
    names = list(cells["region"].unique()) if regions is None else as_list(regions)
    check_names(adata, names, channels)
    return cells[cells["region"].isin(names)]


def _files(folder: Path, table: pd.DataFrame) -> dict[tuple[str, str], Path]:
    """Name a file for each region and channel; channels may have any letters, files may not."""
    files: dict[tuple[str, str], Path] = {}
    taken: set[str] = set()
    for region, channel in table[["region", "channel"]].drop_duplicates().itertuples(index=False):
        stem = region + "." * bool(channel) + re.sub(r"[^\w.+-]", "_", channel)
        # Names that differ in case only are one file to some systems.
        stem = next(name for name in chain([stem], (f"{stem}_{i}" for i in count(2))) if name.casefold() not in taken)
        taken.add(stem.casefold())
        files[region, channel] = folder / f"{stem}{_ENDING}"
    return files


def _feature(name: str, properties: Mapping[str, Any], outline: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a cell; its name holds its place, which all versions of QuPath keep."""
    identity = str(uuid.uuid5(_NAMESPACE, name))
    properties = {"objectType": "detection", "name": name, **properties}
    return {"type": "Feature", "id": identity, "geometry": outline, "properties": properties}


def _put_classes(adata: AnnData, table: pd.DataFrame, key: str, source: str) -> None:
    """Write classes (`PLACE` and ``label``) into a column of ``obs``, over those of these cells."""
    table, rows = known_cells(adata, table, source)
    there = key in adata.obs and adata.obs[key].notna().any()
    before = clusters_of(adata, key) if there else pd.Categorical([None] * adata.n_obs, [])
    own = {as_in_qupath(name): name for name in before.categories}
    after = before.astype(object)
    after[rows] = [None if pd.isna(name) else own.get(name, name) for name in table["label"]]
    categories = list(dict.fromkeys([*before.categories, *sorted(set(after[pd.notna(after)]))]))
    adata.obs[key] = pd.Categorical(after, categories)
    logger.info("added the classes of %d cells to obs[%r]", len(rows), key)
