"""Fields of view, as files of many channels or folders of one file for each, with their masks as SpatialData."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import BaseTransformation, Identity, Scale

from nimbus_sd.io.tiff import Tiff, before_ending, list_tiffs, open_tiff, stem
from nimbus_sd.spatial import is_micrometre, sizes_fit


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
        A folder that holds, for each field of view, either a folder with one TIFF file for each channel
        (``fov1/CD3.tiff``; the file's name is the channel's name), or a multi-channel TIFF or OME-TIFF file
        (``fov1.ome.tif``). Or one field of view: such a folder, or such a file.
    masks
        A folder of TIFF files, or one file for one field of view. In a folder, the mask of ``fov1`` is the file whose
        name contains ``fov1`` (and does not go on with another digit); of several, the one that is just ``fov1``, else
        the one that begins with ``fov1_``. Where there is none, a name such as ``fov1.tif_image`` counts up to the
        ``.tif``. Masks hold whole numbers as labels, 0 = no cell, or are 24-bit RGB as QuPath writes them (label =
        R * 65536 + G * 256 + B). None reads images only.
    pixel_size
        um per pixel of the images. None takes it from OME metadata, where there is any.
    channels
        Of multi-channel files, the names of all channels in the file's order (in place of those in OME metadata). Of
        folders, the channels to read, in this order; other files are left out. None takes all.
    mask_pattern
        File name of the masks, in which ``{fov}`` stands for the field of view, and ``*`` for anything:
        ``"{fov}_whole_cell.tiff"``. None goes by the rule above.

    Returns
    -------
    SpatialData
        For each field of view, an image ``<fov>`` and labels ``<fov>_labels``, both in a coordinate system ``<fov>`` in
        pixels of the image, and, where the pixel size is known, in ``<fov>_um``. A mask may be finer or coarser than
        its image by a whole factor. In names, any character but letters, digits, ``_``, ``-`` and ``.`` becomes ``_``.

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
    fovs = {fov: _read_image(path, channels) for fov, path in find_fovs(Path(images)).items()}
    first = next(iter(fovs))
    for fov, image in fovs.items():
        if differing := sorted({*(image.channels or ())} ^ {*(fovs[first].channels or ())}):
            advice = "Pass the common ones as `channels`, if these are folders of channels, or read them one by one."
            where = f"Fields of view {first!r} and {fov!r} have different channels"
            raise ValueError(f"{where}: {differing} are in one only. {advice}")
    names = element_names(fovs)
    mask_files = {} if masks is None else find_masks(Path(masks), list(fovs), mask_pattern)

    sdata = SpatialData()
    for fov, image in fovs.items():
        name, size = names[fov], _pixel_size(image, pixel_size)
        placed = _transformations(name, 1.0, size)
        sdata.images[name] = Image2DModel.parse(
            image.pixels, dims=("c", "y", "x"), c_coords=image.channels, transformations=placed
        )
        if fov in mask_files:
            mask = read_mask(mask_files[fov])
            placed = _transformations(name, relative_scale(image, mask, mask_files[fov]), size)
            sdata.labels[f"{name}_labels"] = Labels2DModel.parse(mask, dims=("y", "x"), transformations=placed)
    return sdata


def find_fovs(path: Path) -> dict[str, Path]:
    """Find the fields of view: for each, a folder of channels or a file."""
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
    single = [len(open_tiff(file, planes_are_channels=True).pixels) == 1 for file in files]
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
        for element in (name, f"{name}_labels"):
            # SpatialData takes no names that differ in case only.
            if (first := taken.setdefault(element.lower(), fov)) != fov:
                rule = "case does not count, and what is no letter, digit, '_', '-' or '.' becomes '_'"
                both = f"Fields of view {first!r} and {fov!r} would both have an element {element!r}"
                raise ValueError(f"{both} ({rule}). Rename one.")
    return names


def find_masks(masks: Path, fovs: Sequence[str], pattern: str | None = None) -> dict[str, Path]:
    """Find the mask of each field of view, as `read_fovs` describes it; a ValueError if it is not just one."""
    if masks.is_file():
        if len(fovs) > 1:
            raise ValueError(f"`masks` is one file, {masks}, for {len(fovs)} fields of view; pass a folder of masks.")
        return {fovs[0]: masks}
    files, candidates = list_tiffs(masks), {}
    for fov in fovs:
        if pattern is None:
            candidates[fov] = _containing(files, fov, fovs)
            candidates[fov] = candidates[fov] or _containing(files, before_ending(fov), [*map(before_ending, fovs)])
        elif "{fov}" in pattern:
            wanted = pattern.replace("{fov}", glob.escape(fov))
            candidates[fov] = [file for file in files if fnmatchcase(file.name, wanted)]
        else:
            raise ValueError(f"`mask_pattern` is {pattern!r}; it must contain '{{fov}}', the field of view's name.")
    if without := [fov for fov in fovs if not candidates[fov]]:
        rule = "contains their name" if pattern is None else f"matches {pattern!r}"
        raise ValueError(f"No mask for {', '.join(map(repr, without))}: no TIFF file in {masks} {rule}.")
    hint = "Say which by `mask_pattern`, such as '{fov}_whole_cell.tiff'."
    owners: dict[Path, str] = {}
    for fov, (mask, *others) in candidates.items():
        if others:
            raise ValueError(f"Several masks for {fov!r}: {mask.name}, {', '.join(x.name for x in others)}. {hint}")
        if (owner := owners.setdefault(mask, fov)) != fov:
            raise ValueError(f"{mask.name} would be the mask of {owner!r} and of {fov!r}. {hint}")
    return {fov: mask for mask, fov in owners.items()}


def _containing(files: Sequence[Path], fov: str, fovs: Sequence[str]) -> list[Path]:
    """List the files whose name contains the field of view's, best kind of match only."""
    # fov1 is not in fov10, and what contains fov1_edge, too, is the mask of that.
    before, after = (r"(?<!\d)" if fov[0].isdigit() else ""), (r"(?!\d)" if fov[-1].isdigit() else "")
    longer = [other for other in fovs if fov in other and fov != other]
    names = {
        file: name
        for file in files
        if re.search(before + re.escape(fov) + after, name := stem(file)) and not any(other in name for other in longer)
    }
    exact = [file for file, name in names.items() if name == fov]
    prefixed = [file for file, name in names.items() if name.startswith(f"{fov}_")]
    return exact or prefixed or list(names)


def read_mask(path: Path) -> da.Array:
    """Read a mask, shape (H, W), with the labels of 24-bit RGB put together, and whole numbers in floats as such."""
    mask = open_tiff(path)
    planes, kind = mask.pixels, mask.pixels.dtype.kind
    if mask.rgb and len(planes) == 3 and planes.dtype == np.uint8:
        return (planes * np.array([65536, 256, 1], np.uint32)[:, None, None]).sum(axis=0, dtype=np.uint32)
    if len(planes) != 1 or kind not in "iuf":
        what = f"Mask {path} is of shape {planes.shape} (c, y, x) and type {planes.dtype}"
        raise ValueError(f"{what}; it must hold one plane of integer labels, or be 24-bit RGB as written by QuPath.")
    return planes[0].map_blocks(_whole_numbers, path, dtype=np.int64) if kind == "f" else planes[0]


def _whole_numbers(labels: NDArray, path: Path) -> NDArray[np.int64]:
    # Floats hold all whole numbers up to a limit: 2**24 for 32 bits.
    if not np.all((labels == np.rint(labels)) & (np.abs(labels) <= 2 ** (np.finfo(labels.dtype).nmant + 1))):
        raise ValueError(f"Mask {path} holds {labels.dtype} that are no labels: not whole numbers, or too large.")
    return labels.astype(np.int64)


def relative_scale(image: Tiff, mask: da.Array, path: Path) -> float:
    """Say how many pixels of the image one of the mask covers, in each direction."""
    size, mask_size = image.pixels.shape[1:], mask.shape
    ratio: float = size[0] / mask_size[0]
    coarse, fine = max(1, round(ratio)), max(1, round(1 / ratio))
    if sizes_fit(size, mask_size, coarse):
        return float(coarse)
    if sizes_fit(mask_size, size, fine):
        return 1 / fine
    both = f"Image {image.path} is {size[0]} x {size[1]} pixels (y, x), its mask {path} {mask_size[0]} x {mask_size[1]}"
    raise ValueError(f"{both}; one must be a whole multiple of the other.")


def _read_image(path: Path, channels: Sequence[str] | None) -> Tiff:
    """Read a field of view, a file or a folder, with the names of its channels."""
    if path.is_dir():
        folder, files = path, _by_stem(list_tiffs(path))
        path, *others = files.values()
        if others or len(open_tiff(path, planes_are_channels=True).pixels) == 1:
            return _read_channels(folder, files, channels)
    image = open_tiff(path, planes_are_channels=channels is not None)
    default = image.channels or range(len(image.pixels))
    names = [str(name) for name in (default if channels is None else channels)]
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
