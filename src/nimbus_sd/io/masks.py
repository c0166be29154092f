"""Cell masks of fields of view: which file, how it is read, and how it lies on its image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from nimbus_sd.io.tiff import Tiff, before_ending, list_tiffs, open_tiff, stem
from nimbus_sd.spatial import sizes_fit


def find_masks(masks: Path, fovs: Sequence[str], pattern: str | None = None) -> dict[str, Path]:
    """Find the mask of each field of view, as `read_fovs` describes it.

    Raises
    ------
    ValueError
        A field of view has no mask, or several, or shares one.
    """
    if masks.is_file():
        if len(fovs) > 1:
            raise ValueError(
                f"`masks` is one file, {masks}, for {len(fovs)} fields of view; pass a folder with one file for each."
            )
        return {fovs[0]: masks}
    if pattern is not None and "{fov}" not in pattern:
        raise ValueError(f"`mask_pattern` is {pattern!r}; it must contain '{{fov}}', the field of view's name.")

    files = list_tiffs(masks)
    found = {fov: _by_name(files, fov, fovs) if pattern is None else _matching(files, fov, pattern) for fov in fovs}
    if without := [fov for fov in fovs if not found[fov]]:
        rule = "contains their name" if pattern is None else f"matches {pattern!r}"
        raise ValueError(f"No mask for {', '.join(map(repr, without))}: no TIFF file in {masks} {rule}.")
    for fov, candidates in found.items():
        if len(candidates) > 1:
            raise ValueError(
                f"Several masks for {fov!r}: {', '.join(file.name for file in candidates)}. Say which by "
                f"`mask_pattern`, such as '{{fov}}_whole_cell.tiff'."
            )
    masks_of = {fov: candidates[0] for fov, candidates in found.items()}
    owners = {file: fov for fov, file in masks_of.items()}
    if shared := [fov for fov, file in masks_of.items() if owners[file] != fov]:
        file = masks_of[shared[0]]
        raise ValueError(
            f"{file.name} would be the mask of {shared[0]!r} and of {owners[file]!r}. Say which by "
            f"`mask_pattern`, such as '{{fov}}_whole_cell.tiff'."
        )
    return masks_of


def read_mask(path: Path) -> da.Array:
    """Read a mask, shape (H, W), with the labels of 24-bit RGB put together, and whole numbers in floats as such."""
    mask = open_tiff(path)
    if mask.rgb and len(mask.pixels) == 3 and mask.pixels.dtype == np.uint8:
        weights = np.array([65536, 256, 1], np.uint32)[:, None, None]
        labels: da.Array = (mask.pixels * weights).sum(axis=0, dtype=np.uint32)
        return labels
    if len(mask.pixels) == 1 and mask.pixels.dtype.kind == "f":
        whole: da.Array = mask.pixels[0].map_blocks(_whole_numbers, path, dtype=np.int64)
        return whole
    if len(mask.pixels) != 1 or mask.pixels.dtype.kind not in "iu":
        raise ValueError(
            f"Mask {path} is of shape {mask.pixels.shape} (c, y, x) and type {mask.pixels.dtype}; it must "
            "hold one plane of integer labels, or be 24-bit RGB as written by QuPath."
        )
    plane: da.Array = mask.pixels[0]
    return plane


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
    raise ValueError(
        f"Image {image.path} is {size[0]} x {size[1]} pixels (y, x), and its mask {path} {mask_size[0]} x "
        f"{mask_size[1]}; one must be a whole multiple of the other."
    )


def _matching(files: Sequence[Path], fov: str, pattern: str) -> list[Path]:
    escaped = re.sub(r"([\[?*])", r"[\1]", fov)
    return [file for file in files if fnmatchcase(file.name, pattern.replace("{fov}", escaped))]


def _by_name(files: Sequence[Path], fov: str, fovs: Sequence[str]) -> list[Path]:
    """List the files whose name contains the field of view's, or that up to a TIFF's ending within it."""
    short = [before_ending(other) for other in fovs]
    return _candidates(files, fov, fovs) or _candidates(files, short[list(fovs).index(fov)], short)


def _candidates(files: Sequence[Path], fov: str, fovs: Sequence[str]) -> list[Path]:
    """List the files whose name contains the field of view's, best kind of match only."""
    # fov1 is not in fov10, and what contains fov1_edge, too, is the mask of that.
    whole = re.compile(
        (r"(?<!\d)" if fov[0].isdigit() else "") + re.escape(fov) + (r"(?!\d)" if fov[-1].isdigit() else "")
    )
    longer = [other for other in fovs if fov in other and fov != other]
    names = {file: stem(file) for file in files}
    containing = [file for file, name in names.items() if whole.search(name) and not any(o in name for o in longer)]
    exact = [file for file in containing if names[file] == fov]
    prefixed = [file for file in containing if names[file].startswith(f"{fov}_")]
    return exact or prefixed or containing
