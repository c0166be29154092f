"""Proofreading in QuPath: cells out with their labels, and back when they are corrected."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._disk import replacing
from nimbus_sd._table import as_list, check_table
from nimbus_sd._table import layer as read_layer
from nimbus_sd.labels._place import PLACE, cells_of, check_names, check_states, put_labels
from nimbus_sd.labels._states import listed
from nimbus_sd.spatial import Region, check_spatialdata, find_regions, not_found, read_polygons

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger("nimbus_sd")

_ENDING = ".geojson"


def to_qupath(
    sdata: SpatialData,
    folder: str | Path,
    *,
    layer: str | None = keys.SILVER,
    regions: str | Sequence[str] | None = None,
    channels: str | Sequence[str] | None = None,
    cells: pd.DataFrame | None = None,
    image_key: str | Sequence[str] | None = None,
    table_key: str = "table",
) -> list[Path]:
    """Write cells for proofreading in QuPath, a GeoJSON file for each region and channel.

    In QuPath, open the region's image, drag a file onto it, correct the classes of cells, and export all objects as
    GeoJSON under the same name. Classes are ``positive``, ``likely positive``, ``undetermined``, ``likely negative``
    and ``negative``; a cell without a class is not judged. Names of objects say where a label belongs and must stay.

    Parameters
    ----------
    sdata
        Images, labels and the table of their cells.
    folder
        Where to write; it is made if it is not there.
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
        If one of the files exists; nothing is written then.
    KeyError
        If the table, the layer, a region or a channel does not exist.
    ValueError
        If the layer does not hold labels, or there is nothing to write.

    Warns
    -----
    UserWarning
        Says how many cells of the table have no pixels in the labels.

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
    chosen = _chosen(adata, layer, regions, channels) if cells is None else _given(adata, cells)
    if chosen.empty:
        raise ValueError("There is no cell to write.")
    chosen["label"] = np.nan if layer is None else _labels_at(adata, layer, chosen)
    folder = Path(folder)
    files = _files(folder, chosen)
    if there := [path for path in files.values() if path.exists()]:
        raise FileExistsError(
            f"{there[0]} exists, and may hold corrections; nothing was written. Choose another folder, or delete "
            f"{len(there)} such files."
        )
    # Images are paired with regions as they were given, not in the order of the table.
    given = regions if cells is None and regions is not None else chosen["region"].unique()
    found = _regions(sdata, image_key, [str(name) for name in as_list(given)])
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(*files.values()) as new:
        place = dict(zip(files, new, strict=True))
        for name, in_region in chosen.groupby("region", sort=False):
            polygons = read_polygons(found[str(name)], in_region["instance_id"].unique())
            outlines = {cell: mapping(polygon) for cell, polygon in polygons}
            if without := sorted(set(in_region["instance_id"]) - set(outlines)):
                warnings.warn(
                    f"{len(without)} cells of the table have no pixels in labels {name!r}, such as {without[0]}; they "
                    "were left out.",
                    UserWarning,
                    stacklevel=2,
                )
            for channel, part in in_region.groupby("channel", sort=False):
                _write(place[str(name), str(channel)], part, outlines)
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
    FileNotFoundError
        If there is no such file, or none in a folder.
    KeyError
        If a region or channel is not in the table.
    ValueError
        If a file is no GeoJSON of such cells, or has other classes; if a cell has two states; if labels for training
        and for evaluation would be in one region. The table is left as it was then.

    Warns
    -----
    UserWarning
        Says how many cells of the files are not in the table.

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
    from nimbus_sd.labels._geojson import read_features

    check_table(adata)
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(one) for one in files]
    found = {path: sorted(path.glob(f"*{_ENDING}")) if path.is_dir() else [path] for path in paths}
    if empty := [str(path) for path, own in found.items() if not own]:
        raise FileNotFoundError(f"There is no {_ENDING} file in {listed(empty)}.")
    paths = [path for own in found.values() for path in own]
    rows = [row for path in paths for row in read_features(path)]
    if not rows:
        raise ValueError(f"There is no cell in {listed(map(str, paths)) or 'an empty list of files'}.")
    source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
    put_labels(adata, pd.DataFrame(rows, columns=[*PLACE, "label"]), key_added, source)


def _chosen(
    adata: AnnData, layer: str | None, regions: str | Sequence[str] | None, channels: str | Sequence[str] | None
) -> pd.DataFrame:
    """All cells of some regions in some channels."""
    cells = cells_of(adata)
    names = list(cells["region"].unique()) if regions is None else as_list(regions)
    if channels is not None:
        wanted = as_list(channels)
    elif layer is None:
        wanted = [str(name) for name in adata.var_names]
    else:
        wanted = [str(name) for name in adata.var_names[np.isfinite(read_layer(adata, layer)).any(axis=0)]]
    check_names(adata, names, wanted)
    cells = cells[cells["region"].isin(names)]
    return cells.merge(pd.Series(wanted, name="channel", dtype=object), how="cross")


def _given(adata: AnnData, cells: pd.DataFrame) -> pd.DataFrame:
    if lacking := [name for name in PLACE if name not in cells]:
        raise KeyError(f"`cells` lacks the columns {lacking}; it must be the result of `labels.draw_cells`.")
    check_names(adata, cells["region"].unique(), cells["channel"].unique())
    return cells[PLACE].reset_index(drop=True)


def _labels_at(adata: AnnData, layer: str, chosen: pd.DataFrame) -> np.ndarray:
    labels = read_layer(adata, layer)
    check_states(labels.ravel(), f"layers[{layer!r}]")
    rows = pd.MultiIndex.from_frame(cells_of(adata)).get_indexer(pd.MultiIndex.from_frame(chosen[PLACE[:2]]))
    if (rows < 0).any():
        raise KeyError(f"`cells` has {int((rows < 0).sum())} cells that the table has not.")
    return np.asarray(labels[rows, adata.var_names.get_indexer(chosen["channel"])], np.float32)


def _files(folder: Path, chosen: pd.DataFrame) -> dict[tuple[str, str], Path]:
    """Name a file for each region and channel; channels may have any letters, files may not."""
    files: dict[tuple[str, str], Path] = {}
    taken: set[str] = set()
    for region, channel in chosen[["region", "channel"]].drop_duplicates().itertuples(index=False):
        stem = first = region + "." + re.sub(r"[^\w.+-]", "_", channel)
        number = 1
        # Names that differ in case only are one file to some systems.
        while stem.casefold() in taken:
            number += 1
            stem = f"{first}_{number}"
        taken.add(stem.casefold())
        files[str(region), str(channel)] = folder / f"{stem}{_ENDING}"
    return files


def _regions(sdata: SpatialData, image_key: str | Sequence[str] | None, names: list[str]) -> dict[str, Region]:
    images = [image_key] * len(names) if image_key is None or isinstance(image_key, str) else list(image_key)
    if len(images) != len(names):
        raise ValueError(f"`image_key` names {len(images)} images for the {len(names)} regions {names}.")
    with warnings.catch_warnings():
        # Outlines are in pixels, so nobody needs to hear that the pixel size is unknown.
        warnings.simplefilter("ignore", UserWarning)
        # One by one, for images may have different channels.
        return {name: find_regions(sdata, image, name)[0] for image, name in zip(images, names, strict=True)}


def _write(path: Path, cells: pd.DataFrame, outlines: dict) -> None:
    from nimbus_sd.labels._geojson import feature

    features = [
        feature(region, cell, channel, label, outlines[cell])
        for region, cell, channel, label in cells[[*PLACE, "label"]].itertuples(index=False)
        if cell in outlines
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
