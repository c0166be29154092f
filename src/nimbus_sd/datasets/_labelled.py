"""A folder of fields of view, masks and labels of their cells, as one SpatialData."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nimbus_sd import keys
from nimbus_sd._text import plain
from nimbus_sd.io import before_ending, element_names, find_fovs, list_tiffs, read_fovs, stem
from nimbus_sd.spatial import new_table

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# Names of the gold standard come first, those of the full data after them.
_IMAGES = ("fovs", "images", "image_data", "raw_structured")
_MASKS = ("masks", "segmentation", "segmentation_data")


def find_datasets(root: Path, depth: int = 3) -> dict[str, Path]:
    """Find the folders that hold a folder of images and one of masks, by their name.

    Raises
    ------
    ValueError
        Two of them are of one name.
    """
    found: dict[str, Path] = {}
    for folder in _folders(root, depth):
        if _one_of(folder, _IMAGES) and _one_of(folder, _MASKS):
            if folder.name in found:
                raise ValueError(f"There are two data sets {folder.name!r}: {found[folder.name]} and {folder}.")
            found[folder.name] = folder
    return found


def read_labelled(
    folder: Path,
    layers: Mapping[str, pd.DataFrame],
    *,
    pixel_size: float | None,
    attrs: Mapping[str, Any],
    progress: bool,
) -> SpatialData:
    """Read one data set: images and masks lazily, and a table of all cells of the masks.

    Parameters
    ----------
    folder
        Of the data set, as `find_datasets` finds it; its name is that of the data set.
    layers
        Layers of the table, with the labels as `read_labels` returns them. Only channels that are labelled are read.
    pixel_size
        As in `read_fovs`.
    attrs
        Where the data are from.
    progress
        Show a progress bar.

    Returns
    -------
    SpatialData
        As `pan_m_gold_standard` describes it.

    Raises
    ------
    ValueError
        Labels and images have no field of view or no channel in common; or as `read_fovs`.
    """
    images, masks = _image_folder(folder), _mask_folder(folder)
    paths = find_fovs(images)
    layers = dict(layers)
    # No comprehension: it is a frame of its own in some versions of Python, and warnings point at the caller.
    for layer in layers:
        layers[layer] = _of_known_fovs(layers[layer], list(paths), folder.name)
    wanted = {str(channel) for labels in layers.values() for channel in labels["channel"].unique()}
    files = [list_tiffs(path) if path.is_dir() else [path] for path in paths.values()]
    if all(len(one) > 1 for one in files):
        offered = set.intersection(*({stem(file) for file in one} for one in files))
        channels = _present(wanted, offered, folder.name)
        sdata = read_fovs(images, masks, pixel_size=pixel_size, channels=channels)
    else:
        sdata = read_fovs(images, masks, pixel_size=pixel_size)
        offered = {str(channel) for channel in next(iter(sdata.images.values())).coords["c"].values}
        channels = _present(wanted, offered, folder.name)
        for key in list(sdata.images):
            sdata.images[key] = sdata.images[key].sel(c=channels)
    names = element_names(paths)
    regions = {f"{names[fov]}_labels": fov for fov in paths}
    sdata.tables["table"] = _table(sdata, regions, channels, layers, folder.name, progress)
    sdata.attrs["pan_m"] = {**attrs, "dataset": folder.name, "folder": str(folder)}
    return sdata


def _folders(root: Path, depth: int) -> Iterator[Path]:
    yield root
    for path in sorted(root.iterdir()) if depth else ():
        if path.is_dir() and path.name not in (*_IMAGES, *_MASKS) and not path.name.startswith("."):
            yield from _folders(path, depth - 1)


def _one_of(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _image_folder(folder: Path) -> Path:
    """Return the folder of images, or the only one in it that holds the fields of view."""
    path = next(folder / name for name in _IMAGES if (folder / name).is_dir())
    inner = _inner(path)
    return inner[0] if len(inner) == 1 and not list_tiffs(path) and not list_tiffs(inner[0]) else path


def _mask_folder(folder: Path) -> Path:
    """Return the folder of masks, or the only one in it."""
    path = next(folder / name for name in _MASKS if (folder / name).is_dir())
    inner = _inner(path)
    return inner[0] if len(inner) == 1 and not list_tiffs(path) else path


def _inner(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _of_known_fovs(labels: pd.DataFrame, fovs: list[str], name: str) -> pd.DataFrame:
    """Give labels the names that the fields of view have as files, and leave out those of no field of view."""
    short = {before_ending(fov): fov for fov in fovs}
    labelled = [str(fov) for fov in labels["fov"].unique()]
    known = {fov: fov if fov in fovs else short.get(before_ending(fov)) for fov in labelled}
    if missing := sorted(fov for fov, file in known.items() if file is None):
        _warn(f"{name}: labels of {_some(missing)} were left out, there are no images of that name.")
    labels = labels.assign(fov=labels["fov"].astype(str).map(known)).dropna(subset="fov")
    if labels.empty:
        raise ValueError(
            f"{name}: no field of view has labels; images are of {_some(fovs)}, labels of {_some(labelled)}."
        )
    return labels


def _present(wanted: set[str], offered: set[str], name: str) -> list[str]:
    """List the labelled channels that all fields of view have."""
    if missing := sorted(wanted - offered):
        _warn(f"{name}: labels of {_some(missing)} were left out, not all fields of view have such a channel.")
    if not wanted & offered:
        raise ValueError(
            f"{name}: labelled channels are {_some(sorted(wanted))}, those of images {_some(sorted(offered))}."
        )
    return sorted(wanted & offered)


def _table(
    sdata: SpatialData,
    regions: Mapping[str, str],
    channels: list[str],
    layers: Mapping[str, pd.DataFrame],
    dataset: str,
    progress: bool,
) -> AnnData:
    """Make a table of all cells; ``regions`` says of which field of view a labels element is."""
    bar = tqdm(regions, desc=plain(f"Cells of {dataset}"), unit="mask", disable=not progress)
    cells = {region: da.unique(sdata.labels[region].data).compute() for region in bar}
    cells = {region: ids[ids > 0].astype(np.int64) for region, ids in cells.items()}
    table = new_table(cells, channels)
    # Nothing is measured yet.
    del table.X
    table.obs["fov"] = table.obs[keys.REGION].map(regions).astype("category")
    platform, _, tissue = dataset.partition("_")
    for column, value in (("dataset", dataset), ("platform", platform), ("tissue", tissue)):
        table.obs[column] = pd.Categorical([value] * table.n_obs)
    rows_by_cell = pd.MultiIndex.from_arrays([table.obs["fov"].astype(str), table.obs[keys.INSTANCE]])
    for layer, labels in layers.items():
        rows = rows_by_cell.get_indexer(pd.MultiIndex.from_arrays([labels["fov"].astype(str), labels["cell_id"]]))
        columns = table.var_names.get_indexer(labels["channel"].astype(str))
        if without := labels.loc[rows < 0, ["fov", "cell_id"]].drop_duplicates().shape[0]:
            _warn(f"{dataset}: labels of {without} cells were left out, the masks have no such cells.")
        kept = (rows >= 0) & (columns >= 0)
        values = np.full(table.shape, np.nan, np.float32)
        values[rows[kept], columns[kept]] = labels["label"].to_numpy()[kept]
        table.layers[layer] = values
    return table


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=6)


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")
