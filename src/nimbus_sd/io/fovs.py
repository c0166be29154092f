"""Fields of view, as files of many channels or folders of one file for each, with their masks as SpatialData."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import BaseTransformation, Identity, Scale

from nimbus_sd.io.masks import find_masks, read_mask, relative_scale
from nimbus_sd.io.tiff import Tiff, list_tiffs, open_tiff, stem
from nimbus_sd.spatial import is_micrometre


def read_fovs(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    pixel_size: float | None = None,
    channels: Sequence[str] | None = None,
    mask_pattern: str | None = None,
) -> SpatialData:
    """Read fields of view and their cell masks from TIFF files, lazily.

    Parameters
    ----------
    images
        One of

        - a folder with a folder for each field of view, which holds one TIFF file for each channel
          (``fov1/CD3.tiff``; the file's name is the channel's name);
        - a folder with a multi-channel TIFF or OME-TIFF file for each field of view (``fov1.ome.tif``);
        - one field of view: such a folder, or such a file.
    masks
        A folder of TIFF files, or one file for one field of view. In a folder, the mask of ``fov1`` is the
        file whose name contains ``fov1`` (and does not go on with another digit); of several, the one that is
        just ``fov1``, else the one that begins with ``fov1_``. Where there is none, a name such as
        ``fov1.tif_image`` counts up to the ``.tif``. Masks hold whole numbers as labels, 0 = no cell, or are
        24-bit RGB as QuPath writes them (label = R * 65536 + G * 256 + B). None reads images only.
    pixel_size
        um per pixel of the images. None takes it from OME metadata, where there is any.
    channels
        Of multi-channel files, the names of all channels in the file's order (in place of those in OME
        metadata). Of folders, the channels to read, in this order; other files are left out. None takes all.
    mask_pattern
        File name of the masks, in which ``{fov}`` stands for the field of view, and ``*`` for anything:
        ``"{fov}_whole_cell.tiff"``. None goes by the rule above.

    Returns
    -------
    SpatialData
        For each field of view, an image ``<fov>`` and labels ``<fov>_labels``, both in a coordinate system
        ``<fov>`` in pixels of the image, and, where the pixel size is known, in ``<fov>_um``. A mask may be
        finer or coarser than its image by a whole factor. In names, all but letters, digits, ``_``, ``-`` and
        ``.`` is replaced by ``_``.

    Raises
    ------
    ValueError
        A file is damaged; masks are missing or not clear; files of a field of view do not fit; channels differ
        between fields of view; pixels are not square; names clash.

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
    image_path, mask_path = _path(images, "images"), None if masks is None else _path(masks, "masks")
    fovs = {fov: _read_image(path, channels) for fov, path in find_fovs(image_path).items()}
    _check_channels(fovs)
    names = element_names(fovs)
    mask_files = {} if mask_path is None else find_masks(mask_path, list(fovs), mask_pattern)

    sdata = SpatialData()
    for fov, image in fovs.items():
        name, size = names[fov], _pixel_size(image, pixel_size)
        sdata.images[name] = Image2DModel.parse(
            image.pixels,
            dims=("c", "y", "x"),
            c_coords=image.channels,
            transformations=_transformations(name, 1.0, size),
        )
        if fov in mask_files:
            mask = read_mask(mask_files[fov])
            transformations = _transformations(name, relative_scale(image, mask, mask_files[fov]), size)
            sdata.labels[f"{name}_labels"] = Labels2DModel.parse(mask, dims=("y", "x"), transformations=transformations)
    return sdata


def find_fovs(path: Path) -> dict[str, Path]:
    """Find the fields of view: for each, a folder of channels or a file."""
    if path.is_file():
        return {stem(path): path}
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and list_tiffs(folder))
    files = list_tiffs(path)
    if folders and files:
        raise ValueError(
            f"{path} holds folders with TIFF files ({folders[0].name}, ...) and TIFF files ({files[0].name}, ...); "
            "fields of view must be of one kind."
        )
    if folders:
        return {folder.name: folder for folder in folders}
    if not files:
        raise FileNotFoundError(f"{path} holds no TIFF files, and no folders with TIFF files in them.")
    single = [len(open_tiff(file, planes_are_channels=True).pixels) == 1 for file in files]
    if all(single):
        return {path.name: path}
    if any(single):
        raise ValueError(
            f"{path} holds files of one channel ({files[single.index(True)].name}, ...) and of several "
            f"({files[single.index(False)].name}, ...): either each is a field of view, or each is a channel."
        )
    return _by_stem(files)


def element_names(fovs: Iterable[str]) -> dict[str, str]:
    """Make names of elements from the names of fields of view, which are those of folders and files."""
    names = {fov: "".join(c if c.isalnum() or c in "_-." else "_" for c in fov).lstrip("_") for fov in fovs}
    taken: dict[str, str] = {}
    for fov, name in names.items():
        if not name or is_micrometre(name):
            raise ValueError(f"A field of view cannot be named {fov!r}, which is like a unit, or empty. Rename it.")
        for element in (name, f"{name}_labels"):
            # SpatialData takes no names that differ in case only.
            if (first := taken.setdefault(element.lower(), fov)) != fov:
                raise ValueError(
                    f"Fields of view {first!r} and {fov!r} would both have an element {element!r} (other than letters, "
                    "digits, '_', '-' and '.' becomes '_', and case does not count). Rename one."
                )
    return names


def _path(given: str | Path, argument: str) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"`{argument}` is a {type(given).__name__}; it must be one path, of a folder or a single file.")
    if not Path(given).exists():
        raise FileNotFoundError(f"{given} does not exist.")
    return Path(given)


def _read_image(path: Path, channels: Sequence[str] | None) -> Tiff:
    """Read a field of view, a file or a folder, with the names of its channels."""
    if path.is_dir():
        files = _by_stem(list_tiffs(path))
        path, *others = files.values()
        if others or len(open_tiff(path, planes_are_channels=True).pixels) == 1:
            return _read_channels(path.parent, files, channels)
    image = open_tiff(path, planes_are_channels=channels is not None)
    names = image.channels or [str(index) for index in range(len(image.pixels))]
    if channels is not None:
        names = [str(name) for name in channels]
        if len(names) != len(image.pixels):
            raise ValueError(f"`channels` has {len(names)} names, but {path} has {len(image.pixels)} channels.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} has several channels named {twice}; name all its channels with `channels`.")
    return replace(image, channels=names)


def _read_channels(folder: Path, files: dict[str, Path], channels: Sequence[str] | None) -> Tiff:
    """Read single-channel files as one image."""
    names = [str(name) for name in channels or files]
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"{folder} holds no channels {missing}; there is: {list(files)}.")
    planes = [open_tiff(files[name]) for name in names]
    for plane in planes:
        if plane.pixels.shape != (1, *planes[0].pixels.shape[1:]):
            raise ValueError(
                f"{plane.path} is of shape {plane.pixels.shape} (c, y, x) and {planes[0].path} of "
                f"{planes[0].pixels.shape}; files of one field of view must hold one channel each, of one size."
            )
    return replace(planes[0], path=folder, pixels=da.concatenate([plane.pixels for plane in planes]), channels=names)


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        if named.setdefault(stem(file), file) != file:
            raise ValueError(f"{named[stem(file)]} and {file.name} beside it are of one name; remove one of them.")
    return named


def _check_channels(fovs: dict[str, Tiff]) -> None:
    first, image = next(iter(fovs.items()))
    for fov, other in fovs.items():
        if differing := sorted(set(other.channels or ()) ^ set(image.channels or ())):
            raise ValueError(
                f"Fields of view {first!r} and {fov!r} have different channels: {differing} are in one only. Pass the "
                "common ones as `channels`, if these are folders of channels, or read them one by one."
            )


def _pixel_size(image: Tiff, pixel_size: float | None) -> float | None:
    if pixel_size is not None:
        if not 0 < pixel_size < np.inf:
            raise ValueError(f"`pixel_size` is {pixel_size!r}; it must be a number above 0, in um per image pixel.")
        return float(pixel_size)
    if image.pixel_size is None:
        return None
    height, width = image.pixel_size
    if abs(height - width) > 1e-3 * width:
        raise ValueError(
            f"The pixels of {image.path} are {height:.6g} x {width:.6g} um (y, x) by its metadata; they must be "
            "square. If the metadata is wrong, pass `pixel_size`."
        )
    return width


def _transformations(name: str, scale: float, pixel_size: float | None) -> dict[str, BaseTransformation]:
    factors = {name: scale} | ({f"{name}_um": scale * pixel_size} if pixel_size else {})
    return {key: Identity() if x == 1 else Scale([x, x], axes=("y", "x")) for key, x in factors.items()}
