"""The data of the paper, Pan-M and its gold standard: folders of images, masks and labels as SpatialData."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from tqdm.auto import tqdm

from nimbus_sd import keys
from nimbus_sd._text import listed, plain
from nimbus_sd.datasets.archives import Source, fetch, open_local
from nimbus_sd.io import before_ending, element_names, find_fovs, list_tiffs, read_fovs, stem
from nimbus_sd.spatial import new_table

GOLD_STANDARD = "JLrumberger/Pan-Multiplex-Gold-Standard"
FULL = "JLrumberger/Pan-Multiplex"

#: The data sets of the gold standard.
GOLD_DATASETS = ("codex_colon", "mibi_breast", "mibi_decidua", "vectra_colon", "vectra_pancreas")
# Names of the gold standard come first, those of the full data after them.
_IMAGES = ("fovs", "images", "image_data", "raw_structured")
_MASKS = ("masks", "segmentation", "segmentation_data")


def pan_m_gold_standard(
    datasets: str | Sequence[str] | None = None,
    *,
    folder: str | Path | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
    update: bool = False,
    progress: bool = True,
) -> dict[str, SpatialData]:
    """Read the gold standard of Pan-M: images whose cells were labelled by hand, channel by channel.

    Five data sets (Rumberger et al., "Manual annotation to construct gold standard labels"), named after platform and
    tissue: ``codex_colon``, ``mibi_breast``, ``mibi_decidua``, ``vectra_colon``, ``vectra_pancreas``. They are
    downloaded once from the Hugging Face hub, unpacked beside its cache, and read lazily. License: CC-BY-SA-4.0.

    Parameters
    ----------
    datasets
        Names of the data sets to read. None reads all.
    folder
        A copy placed by hand: the downloaded zip, or the folder it was unpacked to. None takes that of the hub.
    pixel_size
        um per pixel of the images, for all or by name of the data set. None, or a data set not named, takes it from
        the files where they say it. The paper halved the images of all data sets, as if they were of 0.5 um.
    update
        Look up the latest version instead of using the one found at the first call.
    progress
        Show progress bars.

    Returns
    -------
    dict
        A SpatialData for each data set, with

        - for each field of view, an image ``<fov>`` of the channels that were labelled, and labels ``<fov>_labels``,
          as :func:`nimbus_sd.io.read_fovs` reads them
        - a table ``"table"`` of all cells of the masks: ``layers["gold"]`` (1 positive, 0 negative, 0.75 and 0.25
          uncertain but leaning to one of them, NaN not labelled; float32), ``obs["region"]``, ``obs["instance_id"]``,
          ``obs["fov"]``, ``obs["dataset"]``, ``obs["platform"]``, ``obs["tissue"]``. :func:`nimbus_sd.predict` adds
          scores to it.
        - ``attrs["pan_m"]``: repository, commit, data set and folder

    Raises
    ------
    ConnectionError
        The data are not in the cache and the hub cannot be reached.
    KeyError
        There is no such data set, in ``datasets`` or ``pixel_size``; without ``folder``, said before any download.
    ValueError
        The archive is damaged or hostile; images, masks and labels do not fit. Labels without a matching field of view,
        channel or cell are dropped with a warning.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.pan_m_gold_standard("mibi_breast")["mibi_breast"]  # doctest: +SKIP
    >>> adata = ns.predict(sdata, pixel_size=0.5)  # doctest: +SKIP
    >>> ns.metrics.marker_metrics(adata)  # doctest: +SKIP
    """
    from nimbus_sd.labels import find_label_tables, read_label_table

    wanted = [datasets] if isinstance(datasets, str) else datasets
    sizes = pixel_size if isinstance(pixel_size, Mapping) else {}
    if folder is None:
        check_datasets(wanted, sizes)
    source, folders = _open(GOLD_STANDARD, None, folder, update=update, progress=progress)
    check_datasets(wanted, sizes, folders)
    result = {}
    for name in folders if wanted is None else wanted:
        table, *others = find_label_tables(_places(source, folders[name]), name)
        if others:
            raise ValueError(f"{table.parent} holds several tables of labels for {name!r}. Remove all but one.")
        layers = {keys.GOLD: read_label_table(table, "gold", [name])}
        size = sizes.get(name) if isinstance(pixel_size, Mapping) else pixel_size
        result[name] = _read(folders[name], layers, source, size, progress)
    return result


def pan_m(
    name: str,
    *,
    folder: str | Path | None = None,
    pixel_size: float | None = None,
    update: bool = False,
    progress: bool = True,
) -> SpatialData:
    """Read one data set of the full Pan-M, with labels derived from the cell types of its study.

    It must have the folders of the gold standard (images, masks) and a table of labels with the columns ``fov``,
    ``cell_id``, ``channel``, ``activity`` (0 negative, 1 positive, 2 undetermined). It is many times larger than the
    gold standard: over 100 GB for all five.

    Parameters
    ----------
    name
        Name of the data set, such as ``"mibi_breast"``.
    folder
        A copy placed by hand: the downloaded zip (or the first of its parts), or the folder it was unpacked to. None
        takes that of the hub.
    pixel_size
        um per pixel of the images. None takes it from the files where they say it.
    update
        Look up the latest version instead of using the one found at the first call.
    progress
        Show progress bars.

    Returns
    -------
    SpatialData
        As :func:`pan_m_gold_standard` describes it (also its errors), with ``layers["silver"]`` in the table (0.5 =
        undetermined). A table of labels that is named as ``gold``, ``proofread`` or ``ground_truth`` becomes
        ``layers["gold"]``.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.pan_m("mibi_decidua")  # doctest: +SKIP
    """
    from nimbus_sd.labels import find_label_tables, read_label_table

    source, folders = _open(FULL, name, folder, update=update, progress=progress)
    check_datasets([name], existing=folders)
    layers: dict[str, pd.DataFrame] = {}
    for path in find_label_tables(_places(source, folders[name]), name):
        layer = keys.GOLD if re.search(r"gold|proofread|ground_?truth", path.name, re.IGNORECASE) else keys.SILVER
        if layer in layers:
            raise ValueError(f"{path.parent} holds several tables of {layer} labels. Remove all but one.")
        layers[layer] = read_label_table(path, "gold" if layer == keys.GOLD else "silver", [name])
    return _read(folders[name], layers, source, pixel_size, progress)


def check_datasets(
    names: Iterable[str] | None, sizes: Iterable[str] = (), existing: Iterable[str] = GOLD_DATASETS
) -> None:
    """Raise a KeyError if a data set does not exist that is wanted (None: all), or whose pixel size is given."""
    for given, where in ((names or (), ""), (sizes, " (named in `pixel_size`)")):
        if unknown := ", ".join(repr(name) for name in given if name not in existing):
            raise KeyError(f"There is no data set {unknown}{where}; there are {', '.join(sorted(existing))}.")


def _open(
    repository: str, name: str | None, folder: str | Path | None, *, update: bool, progress: bool
) -> tuple[Source, dict[str, Path]]:
    """Get the data from the hub or a copy; return also the folders that hold images and masks, by their name."""
    if folder is None:
        source = fetch(repository, name, update=update, progress=progress)
    else:
        source = open_local(Path(folder).expanduser().resolve(), repository, progress=progress)
    datasets: dict[str, Path] = {}
    for path in _folders(source.root, 3):
        complete = all(any((path / inside).is_dir() for inside in names) for names in (_IMAGES, _MASKS))
        if complete and datasets.setdefault(path.name, path) != path:
            raise ValueError(f"There are two data sets {path.name!r}: {datasets[path.name]} and {path}.")
    if not datasets:
        raise ValueError(f"{source.root} holds no data set: no folder with a folder of images (fovs) and one of masks.")
    return source, datasets


def _folders(root: Path, depth: int) -> Iterator[Path]:
    yield root
    for path in sorted(root.iterdir()) if depth else ():
        if path.is_dir() and path.name not in (*_IMAGES, *_MASKS) and not path.name.startswith("."):
            yield from _folders(path, depth - 1)


def _places(source: Source, folder: Path) -> list[Path]:
    """List where the labels of a data set may be: its folder, those above it, and beside the archive."""
    above = [path for path in folder.parents if path.is_relative_to(source.root)]
    return list(dict.fromkeys([folder, *above, *source.beside]))


def _read(
    folder: Path, layers: Mapping[str, pd.DataFrame], source: Source, pixel_size: float | None, progress: bool
) -> SpatialData:
    """Read one data set: images and masks lazily, only labelled channels, and a table of all cells of the masks."""
    images, masks = _content(folder, _IMAGES), _content(folder, _MASKS)
    paths = find_fovs(images)
    # No comprehension: it is a frame of its own in some versions of Python, and warnings point at the caller.
    labels = dict(layers)
    for layer, table in layers.items():
        labels[layer] = _of_images(table, list(paths), folder.name)
    wanted = {str(channel) for table in labels.values() for channel in table["channel"].unique()}
    files = [list_tiffs(path) if path.is_dir() else [path] for path in paths.values()]
    if all(len(of_fov) > 1 for of_fov in files):
        offered = set.intersection(*({stem(file) for file in of_fov} for of_fov in files))
        channels = _present(wanted, offered, folder.name)
        sdata = read_fovs(images, masks, pixel_size=pixel_size, channels=channels)
    else:
        sdata = read_fovs(images, masks, pixel_size=pixel_size)
        offered = {str(channel) for channel in next(iter(sdata.images.values())).coords["c"].values}
        channels = _present(wanted, offered, folder.name)
        for key in list(sdata.images):
            sdata.images[key] = sdata.images[key].sel(c=channels)
    fovs = {f"{name}_labels": fov for fov, name in element_names(paths).items()}
    bar = tqdm(fovs, desc=plain(f"Cells of {folder.name}"), unit="mask", disable=not progress)
    ids = {region: da.unique(sdata.labels[region].data).compute() for region in bar}
    table = new_table({region: cells[cells > 0].astype(np.int64) for region, cells in ids.items()}, channels)
    # Nothing is measured yet.
    del table.X
    table.obs["fov"] = table.obs[keys.REGION].map(fovs).astype("category")
    platform, _, tissue = folder.name.partition("_")
    for column, value in (("dataset", folder.name), ("platform", platform), ("tissue", tissue)):
        table.obs[column] = pd.Categorical([value] * table.n_obs)
    for layer, of_layer in labels.items():
        table.layers[layer] = _layer(table, of_layer, folder.name)
    sdata.tables["table"] = table
    sdata.attrs["pan_m"] = {**source.attrs, "dataset": folder.name, "folder": str(folder)}
    return sdata


def _content(folder: Path, names: Sequence[str]) -> Path:
    """Return the folder of images or masks, or the only one in it, unless that is a field of view."""
    path = next(folder / name for name in names if (folder / name).is_dir())
    inner = [inside for inside in path.iterdir() if inside.is_dir() and not inside.name.startswith(".")]
    if len(inner) == 1 and not list_tiffs(path) and (names is _MASKS or not list_tiffs(inner[0])):
        return inner[0]
    return path


def _of_images(labels: pd.DataFrame, fovs: list[str], dataset: str) -> pd.DataFrame:
    """Name the fields of view of labels as their images, and leave out those without one."""
    short, labelled = {before_ending(fov): fov for fov in fovs}, [str(fov) for fov in labels["fov"].unique()]
    files = {fov: fov if fov in fovs else short.get(before_ending(fov)) for fov in labelled}
    if missing := sorted(fov for fov, file in files.items() if file is None):
        _warn(f"{dataset}: labels of {listed(missing)} were left out, there are no images of that name.")
    if len(missing) == len(labelled):
        both = f"images are of {listed(fovs)}, labels of {listed(labelled)}"
        raise ValueError(f"{dataset}: no field of view has labels; {both}.")
    return labels.assign(fov=labels["fov"].astype(str).map(files)).dropna(subset="fov")


def _present(wanted: set[str], offered: set[str], dataset: str) -> list[str]:
    """List the labelled channels that all fields of view have."""
    if missing := sorted(wanted - offered):
        _warn(f"{dataset}: labels of {listed(missing)} were left out, not all fields of view have such a channel.")
    if not wanted & offered:
        both = f"labelled channels are {listed(sorted(wanted))}, those of images {listed(sorted(offered))}"
        raise ValueError(f"{dataset}: {both}.")
    return sorted(wanted & offered)


def _layer(table: AnnData, labels: pd.DataFrame, dataset: str) -> NDArray[np.float32]:
    """Put labels into the form of a layer; NaN where a cell has none."""
    cells = pd.MultiIndex.from_arrays([table.obs["fov"].astype(str), table.obs[keys.INSTANCE]])
    rows = cells.get_indexer(pd.MultiIndex.from_frame(labels[["fov", "instance_id"]]))
    columns = table.var_names.get_indexer(labels["channel"].astype(str))
    if without := len(labels.loc[rows < 0, ["fov", "instance_id"]].drop_duplicates()):
        _warn(f"{dataset}: labels of {without} cells were left out, the masks have no such cells.")
    kept = (rows >= 0) & (columns >= 0)
    layer = np.full(table.shape, np.nan, np.float32)
    layer[rows[kept], columns[kept]] = labels["label"].to_numpy()[kept]
    return layer


def _warn(message: str) -> None:
    # The caller of `pan_m` or `pan_m_gold_standard`.
    warnings.warn(message, UserWarning, stacklevel=5)
