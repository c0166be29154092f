"""The size of an image's pixels, in um."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

#: Pixel size of a 20x objective, taken where neither the data nor the user says anything.
DEFAULT_PIXEL_SIZE = 0.5

# What microscopes have, and more, in um: other numbers are in another unit.
_PLAUSIBLE = (0.001, 100.0)

# "micro" is spelled with the micro sign or with the Greek letter mu.
_MICROMETRE = re.compile(r"(?:.*_)?(?:[u\u00b5\u03bc]m|microns?|micromet(?:er|re)s?)", re.IGNORECASE | re.DOTALL)


def is_micrometre(system: str) -> bool:
    """Say whether a coordinate system is named as one in um: ``um``, ``microns``, ``fov1_um``, ...

    Examples
    --------
    >>> is_micrometre("fov1_um"), is_micrometre("album")
    (True, False)
    """
    return _MICROMETRE.fullmatch(system) is not None


def own_pixel_size(key: str, matrices: Mapping[str, NDArray[np.float64] | None]) -> float | None:
    """Read an image's pixel size off its transformation into a coordinate system in um.

    Parameters
    ----------
    key
        Name of the image, for errors.
    matrices
        Its matrices (y, x, 1), as given by `elements.matrices`. Shift, rotation and reflection do not matter.

    Returns
    -------
    float or None
        um per pixel; None where no coordinate system is in um.

    Raises
    ------
    ValueError
        Pixels are not square, or two coordinate systems disagree.
    """
    sizes: dict[str, float] = {}
    for system, matrix in matrices.items():
        if not is_micrometre(system):
            continue
        linear = np.eye(2) * np.nan if matrix is None else matrix[:2, :2]
        height, width = np.linalg.norm(linear, axis=0)
        if not (height > 0 and np.allclose(linear.T @ linear, np.eye(2) * height**2, rtol=0, atol=1e-3 * height**2)):
            raise ValueError(
                f"The pixels of image {key!r} are {height:.6g} x {width:.6g} um (y, x) or sheared in "
                f"coordinate system {system!r}; they must be square. Resample the image, or pass "
                "`pixel_size` in um."
            )
        sizes[system] = float(height)
    if sizes and max(sizes.values()) > min(sizes.values()) * 1.001:
        found = ", ".join(f"{size:.6g} um in {system!r}" for system, size in sizes.items())
        raise ValueError(f"The pixel size of image {key!r} is not clear: {found}. Pass `pixel_size` in um.")
    return next(iter(sizes.values()), None)


def pixel_sizes(
    matrices: Mapping[str, Mapping[str, NDArray[np.float64] | None]],
    pixel_size: float | Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Settle the pixel size of every image: as the user says, else as the image says, else 0.5 um.

    The last comes with a warning that lists the images.

    Parameters
    ----------
    matrices
        The matrices of each image, as given by `elements.matrices`.
    pixel_size
        um per image pixel, one for all or one per image.

    Returns
    -------
    dict
        um per pixel of each image.

    Raises
    ------
    ValueError
        A size is no number above 0, or far from those of microscopes.
    """
    sizes, guessed = {}, []
    for key, own_matrices in matrices.items():
        stated = pixel_size.get(key) if isinstance(pixel_size, Mapping) else pixel_size
        if stated is not None:
            sizes[key] = _checked(stated)
            _compare(key, sizes[key], own_matrices)
        elif (own := own_pixel_size(key, own_matrices)) is not None:
            sizes[key] = _plausible(own, f"Image {key!r} says {own:g} um per pixel")
        else:
            sizes[key] = DEFAULT_PIXEL_SIZE
            guessed.append(key)
    if guessed:
        warnings.warn(
            f"The pixel size of {', '.join(map(repr, guessed))} is not known; {DEFAULT_PIXEL_SIZE} um per "
            "pixel (20x) is assumed. Pass `pixel_size`: scores depend on it.",
            UserWarning,
            stacklevel=4,
        )
    return sizes


def _checked(pixel_size: float) -> float:
    try:
        size = float(pixel_size)
    except TypeError:
        size = math.nan
    if not (math.isfinite(size) and size > 0) or isinstance(pixel_size, bool):
        raise ValueError(f"`pixel_size` is {pixel_size!r}; it must be a number above 0, in um per image pixel.")
    return _plausible(size, f"`pixel_size` is {size:g} um per pixel")


def _plausible(size: float, stated: str) -> float:
    if not _PLAUSIBLE[0] <= size <= _PLAUSIBLE[1]:
        raise ValueError(
            f"{stated}, which no microscope has; most images have 0.1 to 5 um. Pass `pixel_size` in um, not in nm, mm "
            "or m."
        )
    return size


def _compare(key: str, stated: float, matrices: Mapping[str, NDArray[np.float64] | None]) -> None:
    try:
        own = own_pixel_size(key, matrices)
    except ValueError:
        # The element's unit is no help; this is what the user was asked to pass `pixel_size` for.
        return
    if own is not None and abs(stated - own) > 0.05 * own:
        warnings.warn(
            f"`pixel_size` is {stated:.6g} um, but image {key!r} says {own:.6g} um per pixel; {stated:.6g} is used.",
            UserWarning,
            stacklevel=5,
        )
