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

_HINT = "Say which by `mask_pattern`, such as '{fov}_whole_cell.tiff'."


def find_masks(masks: Path, fovs: Sequence[str], pattern: str | None = None) -> dict[str, Path]:
    """Find the mask of each field of view, as `read_fovs` describes it; a ValueError if it is not just one."""
    if masks.is_file():
        if len(fovs) > 1:
            raise ValueError(f"`masks` is one file, {masks}, for {len(fovs)} fields of view; pass a folder of masks.")
        return {fovs[0]: masks}
    if pattern is not None and "{fov}" not in pattern:
        raise ValueError(f"`mask_pattern` is {pattern!r}; it must contain '{{fov}}', the field of view's name.")

    files = list_tiffs(masks)
    candidates = {
        fov: _by_name(files, fov, fovs) if pattern is None else _matching(files, fov, pattern) for fov in fovs
    }
    if without := [fov for fov in fovs if not candidates[fov]]:
        rule = "contains their name" if pattern is None else f"matches {pattern!r}"
        raise ValueError(f"No mask for {', '.join(map(repr, without))}: no TIFF file in {masks} {rule}.")
    owners: dict[Path, str] = {}
    for fov, (mask, *others) in candidates.items():
        if others:
            raise ValueError(f"Several masks for {fov!r}: {mask.name}, {', '.join(x.name for x in others)}. {_HINT}")
        if (owner := owners.setdefault(mask, fov)) != fov:
            raise ValueError(f"{mask.name} would be the mask of {owner!r} and of {fov!r}. {_HINT}")
    return {fov: mask for mask, fov in owners.items()}


def _matching(files: Sequence[Path], fov: str, pattern: str) -> list[Path]:
    escaped = re.sub(r"([\[?*])", r"[\1]", fov)
    return [file for file in files if fnmatchcase(file.name, pattern.replace("{fov}", escaped))]


def _by_name(files: Sequence[Path], fov: str, fovs: Sequence[str]) -> list[Path]:
    """List the files whose name contains the field of view's, or that up to a TIFF's ending within it."""
    return _containing(files, fov, fovs) or _containing(files, before_ending(fov), list(map(before_ending, fovs)))


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
    n_planes, kind = len(mask.pixels), mask.pixels.dtype.kind
    if mask.rgb and n_planes == 3 and mask.pixels.dtype == np.uint8:
        weights = np.array([65536, 256, 1], np.uint32)[:, None, None]
        return (mask.pixels * weights).sum(axis=0, dtype=np.uint32)
    if n_planes != 1 or kind not in "iuf":
        raise ValueError(
            f"Mask {path} is of shape {mask.pixels.shape} (c, y, x) and type {mask.pixels.dtype}; it must hold one "
            "plane of integer labels, or be 24-bit RGB as written by QuPath."
        )
    return mask.pixels[0].map_blocks(_whole_numbers, path, dtype=np.int64) if kind == "f" else mask.pixels[0]


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
