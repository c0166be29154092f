"""How two elements lie on each other, and how large an image's pixels are, from their transformations."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree

#: Matrix (y, x, 1) into each coordinate system; NaN where it is not affine.
Matrices = Mapping[str, NDArray[np.float64]]

# What counts as rounding: of a scale, relative; of a shift, in pixels of the labels (positions in um are
# often stored with few digits).
_SCALE_TOLERANCE = 1e-6
_TOLERANCE = np.array([[_SCALE_TOLERANCE, _SCALE_TOLERANCE, 1e-3]] * 2 + [[0, 0, 0]])
# Pixel size of a 20x objective, taken where neither the data nor the user says anything.
_DEFAULT_PIXEL_SIZE = 0.5
# What microscopes have, and more, in um: other numbers are in another unit.
_PLAUSIBLE = (0.001, 100.0)
# "micro" is spelled with the micro sign or with the Greek letter mu.
_MICROMETRE = re.compile(r"(?:.*_)?(?:[u\u00b5\u03bc]m|microns?|micromet(?:er|re)s?)", re.IGNORECASE | re.DOTALL)


def matrices(element: DataArray | DataTree) -> Matrices:
    """Look up where an element lies in each coordinate system."""
    placed = {}
    for system, transformation in get_transformation(element, get_all=True).items():
        placed[system] = np.full((3, 3), np.nan)
        with suppress(ValueError):
            placed[system] = np.asarray(transformation.to_affine_matrix(("y", "x"), ("y", "x")), np.float64)
    return placed


def relative_scale(image: Matrices, labels: Matrices) -> tuple[int, int] | str:
    """Find how many common pixels a pixel of the image and one of the labels cover, in each direction.

    Returns ``(image_repeat, labels_repeat)``, one of them 1; or what was found instead.
    """
    misfits = []
    for system in (system for system in labels if system in image):
        to_image, from_labels = image[system], labels[system]
        if not abs(np.linalg.det(to_image)) > 0 or np.isnan(from_labels).any():
            misfits.append(f"in {system!r}, a transformation that is not affine and invertible")
            continue
        matrix = np.linalg.solve(to_image, from_labels)
        ratio = matrix[0, 0]
        if ratio > 0 and (np.abs(matrix - np.diag([ratio, ratio, 1])) <= ratio * _TOLERANCE).all():
            size = max(ratio, 1 / ratio)
            if abs(size - round(size)) <= _SCALE_TOLERANCE * size:
                return (1, round(size)) if ratio >= 1 else (round(size), 1)
        (yy, yx, y), (xy, xx, x) = matrix[:2]
        misfits.append(f"in {system!r}, y' = {yy:.6g} y {yx:+.6g} x {y:+.6g}, x' = {xy:.6g} y {xx:+.6g} x {x:+.6g}")
    return "; ".join(misfits) or "no common coordinate system"


def sizes_fit(fine: tuple[int, ...], coarse: tuple[int, ...], repeat: int) -> bool:
    """Whether a coarse grid, each pixel repeated, is a fine one but for less than a coarse pixel."""
    return all(abs(f - c * repeat) < repeat for f, c in zip(fine, coarse, strict=True))


def is_micrometre(system: str) -> bool:
    """Whether a coordinate system is named as one in um: ``um``, ``microns``, ``fov1_um``, ..."""
    return _MICROMETRE.fullmatch(system) is not None


def own_pixel_size(key: str, placed: Matrices) -> float | None:
    """Read image ``key``'s um per pixel off its matrices into coordinate systems in um; None where there are none.

    Shift, rotation and reflection do not matter. Raises ValueError where pixels are not square, or systems disagree.
    """
    sizes: dict[str, float] = {}
    for system in filter(is_micrometre, placed):
        linear = placed[system][:2, :2]
        height, width = np.linalg.norm(linear, axis=0)
        if not (height > 0 and np.allclose(linear.T @ linear, np.eye(2) * height**2, rtol=0, atol=1e-3 * height**2)):
            raise ValueError(
                f"The pixels of image {key!r} are {height:.6g} x {width:.6g} um (y, x) or sheared in coordinate system "
                f"{system!r}; they must be square. Resample the image, or pass `pixel_size` in um."
            )
        sizes[system] = float(height)
    if sizes and max(sizes.values()) > min(sizes.values()) * 1.001:
        stated = ", ".join(f"{size:.6g} um in {system!r}" for system, size in sizes.items())
        raise ValueError(f"The pixel size of image {key!r} is not clear: {stated}. Pass `pixel_size` in um.")
    return next(iter(sizes.values()), None)


def pixel_sizes(
    images: Mapping[str, Matrices], pixel_size: float | Mapping[str, float] | None = None
) -> dict[str, float]:
    """Settle the um per pixel of every image: as the user says, else as the image says, else 0.5 with a warning.

    Raises ValueError where a size is no number above 0, or far from those of microscopes.
    """
    sizes, unknown = {}, []
    for key, placed in images.items():
        stated = pixel_size.get(key) if isinstance(pixel_size, Mapping) else pixel_size
        size = own_pixel_size(key, placed) if stated is None else _number(stated)
        if size is None:
            unknown.append(key)
            size = _DEFAULT_PIXEL_SIZE
        if not _PLAUSIBLE[0] <= size <= _PLAUSIBLE[1]:
            raise ValueError(
                f"{f'Image {key!r} says' if stated is None else '`pixel_size` is'} {size:g} um per pixel, which no "
                "microscope has; most images have 0.1 to 5 um. Pass `pixel_size` in um, not in nm, mm or m."
            )
        sizes[key] = size
        # Where the image's own size is not clear, `pixel_size` is what the error asks for.
        with suppress(ValueError):
            if stated is not None and (own := own_pixel_size(key, placed)) and abs(size - own) > 0.05 * own:
                _warn(f"`pixel_size` is {size:.6g} um, but image {key!r} says {own:.6g} um per pixel; that is ignored.")
    if unknown:
        _warn(
            f"The pixel size of {', '.join(map(repr, unknown))} is not known; {_DEFAULT_PIXEL_SIZE} um per pixel (20x) "
            "is assumed. Pass `pixel_size`: scores depend on it."
        )
    return sizes


def _number(pixel_size: float) -> float:
    size = math.nan
    with suppress(TypeError):
        size = float(pixel_size)
    if not 0 < size < math.inf or isinstance(pixel_size, bool):
        raise ValueError(f"`pixel_size` is {pixel_size!r}; it must be a number above 0, in um per image pixel.")
    return size


def _warn(message: str) -> None:
    """Warn on behalf of the caller of `find_regions`'s caller."""
    warnings.warn(message, UserWarning, stacklevel=5)
