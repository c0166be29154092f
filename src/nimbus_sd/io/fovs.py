"""Fields of view, as files of many channels or folders of one file for each, with their masks as SpatialData."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
from anndata.utils import make_index_unique
from pandas import Index
from skimage.segmentation import expand_labels
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel
from spatialdata.transformations import BaseTransformation, Identity, Scale

from nimbus_sd._geojson import ENDINGS
from nimbus_sd.io.marker_csv import read_names
from nimbus_sd.io.masks import find_masks, read_mask, relative_scale
from nimbus_sd.io.polygons import read_polygons
from nimbus_sd.io.tiff import Tiff, list_tiffs, open_tiff, stem
from nimbus_sd.keys import PIXEL_SIZE_SOURCE
from nimbus_sd.spatial import check_distance, is_micrometre


def read_fovs(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    pixel_size: float | None = None,
    channels: Sequence[str] | str | Path | None = None,
    make_unique: bool = False,
    series: str | int | None = None,
    mask_pattern: str | None = None,
    mask_plane: int | None = None,
    grow: float = 0.0,
) -> SpatialData:
    """Read fields of view and their cells: lazily from TIFF files, masks also from PNG, NPY and GeoJSON files.

    Parameters
    ----------
    images
        A folder that holds, for each field of view, either a folder with one TIFF file for each channel
        (``fov1/CD3.tiff``; the file's name is the channel's name), or a multi-channel TIFF, OME-TIFF or QPTIFF file
        (``fov1.ome.tif``). Or one field of view: such a folder, or such a file. Several files that are one image by
        their OME-XML are read as one, named after the first. Axes of length 1 do not count.
    masks
        A folder of TIFF files (or, if it holds none, of PNG, NPY or GeoJSON files), or one file for one field of view.
        In a folder, the mask of ``fov1`` is the file whose name contains ``fov1`` (and does not go on with another
        digit); of several, the one that is just ``fov1``, else the one that begins with ``fov1_``. Where there is none,
        a name such as ``fov1.tif_image`` counts up to the ``.tif``. Masks hold whole numbers as labels, 0 = no cell, or
        are 24-bit RGB as QuPath writes them (label = R * 65536 + G * 256 + B). GeoJSON (also ``.gz``, ``.zip``) holds
        cells as polygons in pixels of the image; QuPath's annotations are left out. None reads images only.
    pixel_size
        um per pixel of the images. None takes it from the file: from OME-XML, ImageJ's unit, or the tags of resolution,
        in this order. A resolution of picture programs, such as 72 or 300 dpi, is no pixel size.
    channels
        Of multi-channel files, the names of all channels in the file's order. Of folders, the channels to read, in this
        order; other files are left out. Or the path of a CSV file of names: with a column ``marker_name`` as MCMICRO's
        ``markers.csv``, or with one column. None takes all, and names in files from OME-XML, ImageJ's labels, QPTIFF's
        biomarkers or the names of pages; a channel without a name is named by its number, from 0.
    make_unique
        Tell channels of one name apart by a number: ``DAPI``, ``DAPI-1``. False makes them an error.
    series
        Name or number (from 0) of the image to read, where a file holds several. None takes the largest that is not in
        colour, so no thumbnail; several of its size are an error that lists them.
    mask_pattern
        File name of the masks, in which ``{fov}`` stands for the field of view, and ``*`` for anything:
        ``"{fov}_whole_cell.tiff"``. None goes by the rule above.
    mask_plane
        Number (from 0) of the plane to read of masks that have several, such as whole cells and nuclei.
    grow
        Distance in um by which cells of masks grow, without overlapping; the pixel size must be known. For polygons use
        ``grow`` of :func:`nimbus_sd.predict`, which grows any cells and notes it in the table.

    Returns
    -------
    SpatialData
        For each field of view, an image ``<fov>`` and labels ``<fov>_labels``, both in a coordinate system ``<fov>`` in
        pixels of the image, and, where the pixel size is known, in ``<fov>_um``. A mask may be finer or coarser than
        its image by a whole factor. Of polygons, shapes ``<fov>_cells``, for ``shapes_key`` of
        :func:`nimbus_sd.predict`, with QuPath's ids as index and classes as ``class``. In names, any character but
        letters, digits, ``_``, ``-`` and ``.`` becomes ``_``. ``attrs["pixel_size_source"]`` says of each image where
        its pixel size came from: ``"argument"``, ``"OME-XML"``, ``"ImageJ"``, ``"QPTIFF"``, ``"resolution tag"``, or
        ``"unknown"``; ``attrs["grow"]`` by how much masks were grown.

    Raises
    ------
    ValueError
        A file is damaged, a mask is missing or not clear, or files, channels, pixels or names do not fit each other.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for fov in ("fov1", "fov2"):
    ...     for channel in ("CD3", "CD8"):
    ...         (folder / "images" / fov).mkdir(parents=True, exist_ok=True)
    ...         tifffile.imwrite(folder / "images" / fov / f"{channel}.tiff", np.ones((64, 64), np.float32))
    ...     (folder / "masks").mkdir(exist_ok=True)
    ...     tifffile.imwrite(folder / "masks" / f"{fov}_whole_cell.tiff", np.ones((64, 64), np.int32))
    >>> sdata = read_fovs(folder / "images", folder / "masks", pixel_size=0.5)
    >>> list(sdata.images), list(sdata.labels)
    (['fov1', 'fov2'], ['fov1_labels', 'fov2_labels'])
    """
    for path, argument in ((images, "images"), *([] if masks is None else [(masks, "masks")])):
        if not isinstance(path, str | os.PathLike):
            given = f"`{argument}` is a {type(path).__name__}"
            raise TypeError(f"{given}; it must be one path, of a folder or a single file.")
        if not Path(path).exists():
            raise FileNotFoundError(f"{path} does not exist.")
    if isinstance(channels, str | os.PathLike):
        channels = Path(channels)
    elif channels is not None:
        channels = [str(name) for name in channels]
    paths = find_fovs(Path(images), series).items()
    fovs = {fov: _read_image(path, channels, series, make_unique) for fov, path in paths}
    first = next(iter(fovs))
    for fov, image in fovs.items():
        if differing := sorted({*(image.channels or ())} ^ {*(fovs[first].channels or ())}):
            advice = "Pass the common ones as `channels`, if these are folders of channels, or read them one by one."
            where = f"Fields of view {first!r} and {fov!r} have different channels"
            raise ValueError(f"{where}: {differing} are in one only. {advice}")
    names = element_names(fovs)
    mask_files = {} if masks is None else find_masks(Path(masks), list(fovs), mask_pattern)

    sdata = SpatialData()
    sources = sdata.attrs[PIXEL_SIZE_SOURCE] = {}
    for fov, image in fovs.items():
        name, size = names[fov], _pixel_size(image, pixel_size)
        sources[name] = "argument" if pixel_size is not None else image.size_source or "unknown"
        placed = _transformations(name, 1.0, size)
        sdata.images[name] = Image2DModel.parse(
            image.pixels, dims=("c", "y", "x"), c_coords=image.channels, transformations=placed
        )
        if fov in mask_files and mask_files[fov].name.lower().endswith(ENDINGS):
            if grow:
                raise ValueError(f"{mask_files[fov]} holds polygons; grow these by `grow` of `predict` (--grow).")
            sdata.shapes[f"{name}_cells"] = ShapesModel.parse(read_polygons(mask_files[fov]), transformations=placed)
        elif fov in mask_files:
            mask = read_mask(mask_files[fov], mask_plane)
            scale = relative_scale(image, mask, mask_files[fov])
            if grow:
                mask = _grown(mask, grow, size and size * scale, name)
                sdata.attrs["grow"] = grow
            placed = _transformations(name, scale, size)
            sdata.labels[f"{name}_labels"] = Labels2DModel.parse(mask, dims=("y", "x"), transformations=placed)
    return sdata


def _grown(mask: da.Array, grow: float, pixel_size: float | None, name: str) -> da.Array:
    """Grow the cells of a mask by so many um; whose a pixel becomes depends on no cell that is further away."""
    if pixel_size is None:
        raise ValueError(f"The pixel size of {name!r} is not known, so its mask cannot grow by um; pass `pixel_size`.")
    distance = check_distance(grow) / pixel_size
    depth = math.ceil(distance)
    return mask.map_overlap(expand_labels, depth, "none", distance=distance, dtype=mask.dtype)


def find_fovs(path: Path, series: str | int | None = None) -> dict[str, Path]:
    """Find the fields of view: for each, a folder of channels or a file, of several that are one image the first."""
    if path.is_file():
        return {stem(path): path}
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and list_tiffs(folder))
    files = list_tiffs(path)
    if folders and files:
        both = f"folders with TIFF files ({folders[0].name}, ...) and TIFF files ({files[0].name}, ...)"
        raise ValueError(f"{path} holds {both}; fields of view must be of one kind.")
    if folders:
        return {folder.name: folder for folder in folders}
    if not files:
        raise FileNotFoundError(f"{path} holds no TIFF files, and no folders with TIFF files in them.")
    with warnings.catch_warnings():
        # They come again when the pixels are read.
        warnings.simplefilter("ignore")
        opened = _whole_images(open_tiff(file, planes_are_channels=True, series=series) for file in files)
    files, single = [image.path for image in opened], [len(image.pixels) == 1 for image in opened]
    if all(single):
        return {path.name: path}
    if any(single):
        of_one, of_several = files[single.index(True)].name, files[single.index(False)].name
        both = f"files of one channel ({of_one}, ...) and of several ({of_several}, ...)"
        raise ValueError(f"{path} holds {both}: either each is a field of view, or each is a channel.")
    return _by_stem(files)


def element_names(fovs: Iterable[str]) -> dict[str, str]:
    """Make names of elements from the names of fields of view, which are those of folders and files."""
    names = {fov: "".join(c if c.isalnum() or c in "_-." else "_" for c in fov).lstrip("_") for fov in fovs}
    taken: dict[str, str] = {}
    for fov, name in names.items():
        if not name or is_micrometre(name):
            raise ValueError(f"A field of view cannot be named {fov!r}, which is like a unit, or empty. Rename it.")
        for element in (name, f"{name}_labels", f"{name}_cells"):
            # SpatialData takes no names that differ in case only.
            if (first := taken.setdefault(element.lower(), fov)) != fov:
                rule = "case does not count, and what is no letter, digit, '_', '-' or '.' becomes '_'"
                both = f"Fields of view {first!r} and {fov!r} would both have an element {element!r}"
                raise ValueError(f"{both} ({rule}). Rename one.")
    return names


def _whole_images(images: Iterable[Tiff]) -> list[Tiff]:
    """Leave out files that hold a part of an image that another one has opened."""
    whole: dict[Path, Tiff] = {}
    for image in sorted(images, key=lambda image: -len(image.files)):
        files = [file.resolve() for file in image.files]
        if not any(file in whole for file in files):
            whole |= dict.fromkeys(files, image)
    return sorted({image.path: image for image in whole.values()}.values(), key=lambda image: image.path)


def _read_image(
    path: Path, channels: list[str] | Path | None, series: str | int | None = None, make_unique: bool = False
) -> Tiff:
    """Read a field of view, a file or a folder, with the names of its channels."""
    if path.is_dir():
        folder, files = path, _by_stem(list_tiffs(path))
        first = open_tiff(next(iter(files.values())), planes_are_channels=True, series=series)
        parts = {file.resolve() for file in first.files}
        if len(first.pixels) == 1 or any(file.resolve() not in parts for file in files.values()):
            channels = read_names(channels) if isinstance(channels, Path) else channels
            return _read_channels(folder, files, channels, series)
        path = first.path
    image = open_tiff(path, planes_are_channels=channels is not None, series=series)
    if isinstance(channels, Path):
        channels = read_names(channels, len(image.pixels))
    found = image.channels or [str(number) for number in range(len(image.pixels))]
    names = found if channels is None else channels
    if len(names) != len(image.pixels):
        raise ValueError(f"`channels` has {len(names)} names, but {path} has {len(image.pixels)} channels.")
    if make_unique:
        names = make_index_unique(Index(names)).tolist()
    if twice := sorted({name for name in names if names.count(name) > 1}):
        advice = "name all its channels with `channels`, or pass `make_unique=True` (--make-unique)"
        raise ValueError(f"{path} has several channels named {twice}; {advice}.")
    return replace(image, channels=names)


def _read_channels(folder: Path, files: dict[str, Path], channels: list[str] | None, series: str | int | None) -> Tiff:
    """Read single-channel files as one image."""
    names = channels or list(files)
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"{folder} holds no channels {missing}; there is: {list(files)}.")
    planes = [open_tiff(files[name], series=series) for name in names]
    first = planes[0]
    for plane in planes:
        if plane.pixels.shape != (1, *first.pixels.shape[1:]):
            shapes = f"shape {plane.pixels.shape} (c, y, x) and {first.path} of {first.pixels.shape}"
            rule = "files of one field of view must hold one channel each, of one size"
            raise ValueError(f"{plane.path} is of {shapes}; {rule}.")
    return replace(first, path=folder, pixels=da.concatenate([plane.pixels for plane in planes]), channels=names)


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        if named.setdefault(stem(file), file) != file:
            raise ValueError(f"{named[stem(file)]} and {file.name} beside it are of one name; remove one of them.")
    return named


def _pixel_size(image: Tiff, pixel_size: float | None) -> float | None:
    if pixel_size is not None:
        if not 0 < pixel_size < np.inf:
            raise ValueError(f"`pixel_size` is {pixel_size!r}; it must be a number above 0, in um per image pixel.")
        return float(pixel_size)
    if image.pixel_size is None:
        return None
    height, width = image.pixel_size
    if abs(height - width) > 1e-3 * width:
        what = f"The pixels of {image.path} are {height:.6g} x {width:.6g} um (y, x) by its metadata"
        raise ValueError(f"{what}; they must be square. If the metadata is wrong, pass `pixel_size`.")
    return width


def _transformations(name: str, scale: float, pixel_size: float | None) -> dict[str, BaseTransformation]:
    factors = {name: scale} | ({f"{name}_um": scale * pixel_size} if pixel_size else {})
    return {key: Identity() if x == 1 else Scale([x, x], axes=("y", "x")) for key, x in factors.items()}
