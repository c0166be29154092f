"""Masks: which file is whose, and labels as they are stored in TIFF, PNG and NPY files."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import dask.array as da
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nimbus_sd._geojson import ENDINGS
from nimbus_sd.io.tiff import ARRAYS, Tiff, before_ending, list_files, list_tiffs, open_tiff, stem
from nimbus_sd.spatial import sizes_fit

# The type of colour of a PNG file that has a palette.
_PALETTE = b"\x03"


def find_masks(masks: Path, fovs: Sequence[str], pattern: str | None = None) -> dict[str, Path]:
    """Find the mask of each field of view, as `read_fovs` describes it; a ValueError if it is not just one."""
    if masks.is_file():
        if len(fovs) > 1:
            raise ValueError(f"`masks` is one file, {masks}, for {len(fovs)} fields of view; pass a folder of masks.")
        return {fovs[0]: masks}
    arrays, candidates = list_files(masks, ARRAYS + ENDINGS), {}
    # Pictures of TIFF masks lie beside them in some folders.
    files = list_tiffs(masks) + arrays if pattern else list_tiffs(masks) or arrays
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
        raise ValueError(f"No mask for {', '.join(map(repr, without))}: no file of masks in {masks} {rule}.")
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


def read_mask(path: Path, plane: int | None = None) -> da.Array:
    """Read a mask, shape (H, W), with the labels of 24-bit RGB put together, and whole numbers in floats as such."""
    reader = {".png": _read_png, ".npy": _read_npy}.get(path.suffix.lower(), _read_tiff)
    planes, rgb = reader(path)
    if rgb and plane is None and len(planes) in (3, 4) and planes.dtype == np.uint8:
        # The fourth is opacity.
        return (planes[:3] * np.array([65536, 256, 1], np.uint32)[:, None, None]).sum(axis=0, dtype=np.uint32)
    if planes.shape[-1] < min(planes.shape[:-1]):
        # Planes behind the pixels; nothing is as narrow as a few of them.
        planes = da.moveaxis(planes, -1, 0)
    if (plane is None and len(planes) != 1) or planes.dtype.kind not in "iuf":
        what = f"Mask {path} is of shape {planes.shape} (c, y, x) and type {planes.dtype}"
        advice = f" Choose one of its planes with `mask_plane` (--mask-plane), 0 to {len(planes) - 1}."
        if planes.dtype == bool:
            advice = " Number its cells first, as `skimage.measure.label(mask)` does where they do not touch."
        rule = "it must hold one plane of integer labels, or be 24-bit RGB as written by QuPath"
        raise ValueError(f"{what}; {rule}.{advice if len(planes) > 1 or planes.dtype == bool else ''}")
    if plane is not None and not 0 <= plane < len(planes):
        raise ValueError(f"`mask_plane` is {plane}, but mask {path} has the planes 0 to {len(planes) - 1}.")
    labels = planes[plane or 0]
    return labels.map_blocks(_whole_numbers, path, dtype=np.int64) if labels.dtype.kind == "f" else labels


def _read_tiff(path: Path) -> tuple[da.Array, bool]:
    mask = open_tiff(path, planes_are_channels=True)
    return mask.pixels, mask.rgb


def _read_npy(path: Path) -> tuple[da.Array, bool]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        advice = "Of Cellpose's `_seg.npy`, save the masks alone"
        raise ValueError(f"Mask {path} cannot be read as an array of numbers: {error} {advice}.") from error
    sides = [n for n in array.shape if n > 1]
    if len(sides) not in (2, 3):
        raise ValueError(f"Mask {path} is of shape {array.shape}; it must have two axes (y, x), or planes of such.")
    return da.from_array(array.reshape([1] * (3 - len(sides)) + sides), (1, 2048, 2048)), False


def _read_png(path: Path) -> tuple[da.Array, bool]:
    content = path.read_bytes()
    if content[25:26] == _PALETTE:
        raise ValueError(f"Mask {path} is a PNG file with a palette, whose colours are no labels; save it as grey.")
    try:
        pixels = np.atleast_3d(imagecodecs.png_decode(content))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"Mask {path} cannot be read as a PNG file; is it complete? {error}") from error
    return da.from_array(np.moveaxis(pixels, -1, 0), (1, 2048, 2048)), pixels.shape[-1] in (3, 4)


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
