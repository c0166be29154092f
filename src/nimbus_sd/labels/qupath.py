"""Proofreading in QuPath: cells out with their labels as GeoJSON, and back when they are corrected."""

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

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from nimbus_sd import keys
from nimbus_sd._disk import replacing
from nimbus_sd._table import as_list, check_table
from nimbus_sd._text import listed
from nimbus_sd.labels.layers import PLACE, STATES, WORDS, cells_of, check_names, put_labels, read_labels, rows_of
from nimbus_sd.spatial import check_spatialdata, find_regions, not_found, read_polygons

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
    image_key: Names | None = None,
    table_key: str = "table",
) -> list[Path]:
    """Write cells for proofreading in QuPath, a GeoJSON file for each region and channel.

    In QuPath, open the region's image, drag a file onto it, correct the classes of cells (``positive``, ``likely
    positive``, ``undetermined``, ``likely negative``, ``negative``; none is not judged), and export all objects as
    GeoJSON. Names of objects say where a label belongs and must stay.

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
    image_key
        Image that QuPath shows, or one for each region. None finds it as :func:`nimbus_sd.predict` does.
    table_key
        The table.

    Returns
    -------
    list of Path
        The files, ``<region>.<channel>.geojson``. Outlines follow the pixels of the labels, in pixels of the image.

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
    labels = None if layer is None else read_labels(adata, layer)
    if cells is None:
        table = _all_cells(adata, labels, regions, channels)
    elif lacking := [name for name in PLACE if name not in cells]:
        raise KeyError(f"`cells` lacks the columns {lacking}; it must be the result of `labels.draw_cells`.")
    else:
        check_names(adata, cells["region"].unique(), cells["channel"].unique())
        table = cells[PLACE].reset_index(drop=True)
    if table.empty:
        raise ValueError("There is no cell to write.")
    table["label"] = np.nan
    if labels is not None:
        rows = rows_of(adata, table)
        if (rows < 0).any():
            raise KeyError(f"`cells` has {(rows < 0).sum()} cells that the table has not.")
        table["label"] = labels[rows, adata.var_names.get_indexer(table["channel"])]
    files = _files(Path(folder), table)
    if existing := [path for path in files.values() if path.exists()]:
        paths = listed(map(str, existing))
        raise FileExistsError(f"{paths} may hold corrections; nothing was written. Delete them first.")
    # Images are paired with regions as they were given, not in the order of the table.
    names = as_list(regions) if cells is None and regions is not None else list(table["region"].unique())
    images = [image_key] * len(names) if image_key is None or isinstance(image_key, str) else list(image_key)
    if len(images) != len(names):
        raise ValueError(f"`image_key` names {len(images)} images for the {len(names)} regions {names}.")
    with warnings.catch_warnings():
        # Outlines are in pixels, so nobody needs to hear that the pixel size is unknown.
        warnings.simplefilter("ignore", UserWarning)
        # One by one, for images may have different channels.
        places = {name: find_regions(sdata, image, name)[0] for image, name in zip(images, names, strict=True)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with replacing(*files.values()) as unfinished:
        unfinished_of = dict(zip(files, unfinished, strict=True))
        for name, in_region in table.groupby("region", sort=False):
            polygons = read_polygons(places[name], in_region["instance_id"].unique())
            outlines = {cell: mapping(polygon) for cell, polygon in polygons}
            if without := sorted(set(in_region["instance_id"]) - set(outlines)):
                message = f"{len(without)} cells of the table have no pixels in labels {name!r}, such as {without[0]}"
                warnings.warn(f"{message}; they were left out.", UserWarning, stacklevel=2)
            for channel, rows in in_region.groupby("channel", sort=False):
                features = [
                    _feature(f"{name} {cell} {channel}", label, outlines[cell])
                    for cell, label in zip(rows["instance_id"], rows["label"], strict=True)
                    if cell in outlines
                ]
                content = json.dumps({"type": "FeatureCollection", "features": features})
                unfinished_of[name, channel].write_text(content, encoding="utf-8")
    logger.info("wrote %d files to %s", len(files), folder)
    return list(files.values())


def from_qupath(adata: AnnData, files: str | Path | Iterable[str | Path], *, key_added: str = keys.GOLD) -> None:
    """Read cells that were proofread in QuPath.

    Parameters
    ----------
    adata
        Cells x channels, with region and instance id in ``obs``.
    files
        A file that QuPath exported, a folder of them, or several of both. Where a label belongs is taken from the
        names of objects, not from those of files.
    key_added
        Name of the layer: ``"gold"`` for whole regions of :func:`draw_regions`, ``"gold_training"`` for cells of
        :func:`draw_cells`, any other for an annotator (see :func:`consensus`).

    Returns
    -------
    None
        Sets ``layers[key_added]``: the labels of the files, NaN for their cells without a class; other cells keep the
        labels that they have.

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
    """
    check_table(adata)
    paths = []
    for path in map(Path, [files] if isinstance(files, str | Path) else files):
        inside = sorted(path.glob(f"*{_ENDING}")) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(f"There is no {_ENDING} file in {str(path)!r}.")
        paths += inside
    rows = [row for path in paths for row in _read_features(path)]
    if not rows:
        raise ValueError(f"There is no cell in {listed(map(str, paths)) or 'an empty list of files'}.")
    source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
    put_labels(adata, pd.DataFrame(rows, columns=[*PLACE, "label"]), key_added, source)


def _all_cells(adata: AnnData, labels: NDArray | None, regions: Names | None, channels: Names | None) -> pd.DataFrame:
    """Return where to write labels: all cells of some regions in some channels."""
    cells = cells_of(adata)
    names = list(cells["region"].unique()) if regions is None else as_list(regions)
    labelled = adata.var_names if labels is None else adata.var_names[np.isfinite(labels).any(axis=0)]
    wanted = list(labelled) if channels is None else as_list(channels)
    check_names(adata, names, wanted)
    return cells[cells["region"].isin(names)].merge(pd.Series(wanted, name="channel", dtype=object), how="cross")


def _files(folder: Path, table: pd.DataFrame) -> dict[tuple[str, str], Path]:
    """Name a file for each region and channel; channels may have any letters, files may not."""
    files: dict[tuple[str, str], Path] = {}
    taken: set[str] = set()
    for region, channel in table[["region", "channel"]].drop_duplicates().itertuples(index=False):
        stem = region + "." + re.sub(r"[^\w.+-]", "_", channel)
        # Names that differ in case only are one file to some systems.
        stem = next(name for name in chain([stem], (f"{stem}_{i}" for i in count(2))) if name.casefold() not in taken)
        taken.add(stem.casefold())
        files[region, channel] = folder / f"{stem}{_ENDING}"
    return files


def _feature(name: str, label: float, outline: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a cell in one channel; its name holds its place, which all versions of QuPath keep."""
    properties: dict[str, Any] = {"objectType": "detection", "name": name}
    if state := WORDS.get(float(label)):
        properties["classification"] = {"name": state, "color": _COLORS[state]}
    identity = str(uuid.uuid5(_NAMESPACE, name))
    return {"type": "Feature", "id": identity, "geometry": outline, "properties": properties}


def _read_features(path: Path) -> list[tuple[str, int, str, float]]:
    """Read region, cell, channel and label of each object; NaN for those without a class."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no GeoJSON file: {error}.") from error
    objects = content.get("features") if isinstance(content, Mapping) else content
    if not isinstance(objects, list) or not all(isinstance(feature, Mapping) for feature in objects):
        raise ValueError(f"{path} holds no list of objects; export them from QuPath as a FeatureCollection.")
    rows, nameless, classes = [], [], set()
    for number, feature in enumerate(objects, 1):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        place, state = str(properties.get("name", "")).split(" ", 2), _state(properties.get("classification"))
        # Names of regions have no blank.
        if len(place) < 3 or not place[1].isdecimal():
            nameless.append(number)
        elif state and state not in STATES:
            classes.add(state)
        else:
            rows.append((place[0], int(place[1]), place[2], STATES.get(state, float("nan"))))
    if nameless:
        what = f"{len(nameless)} of {len(objects)} objects without a name such as 'fov1_labels 17 CD3'"
        advice = "Delete what was drawn beside the cells."
        raise ValueError(f"{path} has {what}, the first is number {nameless[0]}. {advice}")
    if classes:
        raise ValueError(f"{path} has the class(es) {listed(sorted(classes))}; a class is one of {list(STATES)}.")
    return rows


def _state(classification: object) -> str:
    """Read a class as any version of QuPath writes it; empty for none."""
    if isinstance(classification, Mapping):
        names = classification.get("names") or classification.get("name")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else names
    return " ".join(str(classification or "").casefold().split())
