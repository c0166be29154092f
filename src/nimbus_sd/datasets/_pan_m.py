"""The data of the paper: Pan-M and its gold standard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nimbus_sd import keys

if TYPE_CHECKING:
    from spatialdata import SpatialData

GOLD_STANDARD = "JLrumberger/Pan-Multiplex-Gold-Standard"
FULL = "JLrumberger/Pan-Multiplex"

#: The data sets of the gold standard.
GOLD_DATASETS = ("codex_colon", "mibi_breast", "mibi_decidua", "vectra_colon", "vectra_pancreas")


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
    downloaded once from the Hugging Face hub, checked, unpacked beside its cache, and read lazily. Their license is
    CC-BY-SA-4.0.

    Parameters
    ----------
    datasets
        Names of the data sets to read. None reads all.
    folder
        A copy placed by hand: the downloaded zip, or the folder it was unpacked to. None goes by the hub.
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
        The archive is damaged or hostile; images, masks and labels do not fit.
    FileNotFoundError
        ``folder`` does not exist.

    Warns
    -----
    UserWarning
        Names labels that are left out, as there is no such field of view, channel or cell.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.pan_m_gold_standard("mibi_breast")["mibi_breast"]  # doctest: +SKIP
    >>> adata = ns.predict(sdata, pixel_size=0.5)  # doctest: +SKIP
    >>> ns.metrics.marker_metrics(adata)  # doctest: +SKIP
    """
    from nimbus_sd.datasets._source import all_archives, find_source
    from nimbus_sd.labels import GOLD_CODES, find_labels, read_labels

    names = [datasets] if isinstance(datasets, str) else datasets
    sizes = pixel_size if isinstance(pixel_size, Mapping) else {}
    if folder is None:
        check_datasets(names, sizes)
    choose = partial(all_archives, repository=GOLD_STANDARD)
    source = find_source(GOLD_STANDARD, choose, folder, update=update, progress=progress)
    found = source.datasets()
    check_datasets(names, sizes, found)
    result = {}
    for name in found if names is None else names:
        tables = find_labels(source.folders_of(found[name]), name)
        if len(tables) > 1:
            raise ValueError(f"There are several tables of labels: {', '.join(map(str, tables))}. Remove all but one.")
        size = sizes.get(name) if isinstance(pixel_size, Mapping) else pixel_size
        layers = {keys.GOLD: read_labels(tables[0], name, GOLD_CODES)}
        result[name] = source.read(found[name], layers, pixel_size=size, progress=progress)
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
        Of the data set, such as ``"mibi_breast"``.
    folder
        A copy placed by hand: the downloaded zip (or the first of its parts), or the folder it was unpacked to. None
        goes by the hub.
    pixel_size
        um per pixel of the images. None takes it from the files where they say it.
    update
        Look up the latest version instead of using the one found at the first call.
    progress
        Show progress bars.

    Returns
    -------
    SpatialData
        As :func:`pan_m_gold_standard` describes it, with ``layers["silver"]`` in the table (0.5 = undetermined). A
        table of labels that is named as ``gold``, ``proofread`` or ``ground_truth`` becomes ``layers["gold"]``.

    Raises
    ------
    ConnectionError
        The data are not in the cache and the hub cannot be reached.
    KeyError
        There is no such data set.
    ValueError
        The archive is damaged or hostile; images, masks and labels do not fit.
    FileNotFoundError
        ``folder`` does not exist.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.pan_m("mibi_decidua")  # doctest: +SKIP
    """
    from nimbus_sd.datasets._source import archive_of, find_source
    from nimbus_sd.labels import GOLD_CODES, SILVER_CODES, find_labels, read_labels

    choose = partial(archive_of, name=name, repository=FULL)
    source = find_source(FULL, choose, folder, update=update, progress=progress)
    found = source.datasets()
    check_datasets([name], found=found)
    layers = {}
    for path in find_labels(source.folders_of(found[name]), name):
        gold = re.search(r"gold|proofread|ground_?truth", path.name, re.IGNORECASE)
        layer, codes = (keys.GOLD, GOLD_CODES) if gold else (keys.SILVER, SILVER_CODES)
        if layer in layers:
            raise ValueError(f"{path.parent} holds several tables of {layer} labels. Remove all but one.")
        layers[layer] = read_labels(path, name, codes)
    return source.read(found[name], layers, pixel_size=pixel_size, progress=progress)


def check_datasets(
    names: Iterable[str] | None, sizes: Iterable[str] = (), found: Iterable[str] = GOLD_DATASETS
) -> None:
    """Check that data sets exist: those wanted (None: all), and those whose pixel size is given.

    Raises
    ------
    KeyError
        One does not; it names those that do.
    """
    for given, where in ((names or (), ""), (sizes, " (named in `pixel_size`)")):
        if unknown := [name for name in given if name not in found]:
            raise KeyError(
                f"There is no data set {', '.join(map(repr, unknown))}{where}; there are {', '.join(sorted(found))}."
            )
