"""Image and labels elements as plain dask arrays with names, and how two of them lie on each other."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree

_AXES = ("y", "x")
# What counts as rounding: of a scale, relative; of a shift, in pixels of the labels (positions in um are
# often stored with few digits).
_SCALE_TOLERANCE = 1e-6
_TOLERANCE = np.array([[_SCALE_TOLERANCE, _SCALE_TOLERANCE, 1e-3]] * 2 + [[0, 0, 0]])


def check_spatialdata(sdata: object) -> None:
    """Say what was given in place of a SpatialData.

    Raises
    ------
    TypeError
        It is something else, such as its table.
    """
    if not isinstance(sdata, SpatialData):
        raise TypeError(
            f"Expected a SpatialData, got {type(sdata).__name__}; pass the SpatialData that holds the images, the "
            "labels and their table."
        )


def not_found(kind: str, missing: Iterable[str], existing: Iterable[str], where: str = "") -> KeyError:
    """Build the error for names that do not exist: what exists, and which of it is spelled most alike."""
    missing, existing = list(missing), list(existing)
    near = dict.fromkeys(match for name in missing for match in get_close_matches(name, existing))
    hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
    known = ", ".join(map(repr, existing)) or "none"
    return KeyError(f"No {kind} {', '.join(map(repr, missing))}{where}; there is: {known}.{hint}")


def image_element(sdata: SpatialData, key: str) -> tuple[da.Array, list[str]]:
    """Give an image's full-resolution pixels, shape (C, H, W), and its channel names.

    Raises
    ------
    ValueError
        The image is three-dimensional, its pixels are no numbers, or two channels have one name.
    """
    element = _full_resolution(sdata.images[key])
    if set(element.dims) != {"c", *_AXES}:
        raise ValueError(f"Image {key!r} has the axes {element.dims}; only 2-D images (c, y, x) are supported.")
    element = element.transpose("c", *_AXES)
    if element.dtype.kind not in "buif":
        raise ValueError(f"Image {key!r} is of type {element.dtype}; it must be of integers or floats.")
    names = element.coords["c"].values.tolist() if "c" in element.coords else range(element.sizes["c"])
    channels = [str(name) for name in names]
    if twice := sorted({name for name in channels if channels.count(name) > 1}):
        raise ValueError(
            f"Image {key!r} has several channels named {', '.join(map(repr, twice))}; rename them "
            "(`SpatialData.set_channel_names`), so that every channel has a name of its own."
        )
    return da.asarray(element.data), channels


def labels_element(sdata: SpatialData, key: str) -> da.Array:
    """Give a labels element's full-resolution ids, shape (H, W). Coarser scales would lose cells.

    Raises
    ------
    ValueError
        The labels are three-dimensional or not integers.
    """
    element = _full_resolution(sdata.labels[key])
    if set(element.dims) != set(_AXES):
        raise ValueError(f"Labels {key!r} have the axes {element.dims}; only 2-D labels (y, x) are supported.")
    if element.dtype.kind not in "iu":
        advice = (
            "label its connected components first, e.g. with `skimage.measure.label`"
            if element.dtype.kind == "b"
            else "cast them, e.g. `Labels2DModel.parse(labels.astype('uint32'), ...)`"
        )
        raise ValueError(f"Labels {key!r} are of type {element.dtype}; they must be integers: {advice}.")
    pixels: da.Array = da.asarray(element.transpose(*_AXES).data)
    return pixels


def _full_resolution(element: DataArray | DataTree) -> DataArray:
    if isinstance(element, DataArray):
        return element
    (pixels,) = element["scale0"].data_vars.values()
    return pixels


def matrices(element: DataArray | DataTree) -> dict[str, NDArray[np.float64] | None]:
    """Give the matrix (y, x, 1) of an element into each coordinate system; None where it is not affine."""
    transformations = get_transformation(element, get_all=True)
    return {system: _matrix(transformation) for system, transformation in transformations.items()}


def _matrix(transformation: Any) -> NDArray[np.float64] | None:
    try:
        return np.asarray(transformation.to_affine_matrix(_AXES, _AXES), np.float64)
    except ValueError:
        return None


def relative_scale(
    image: dict[str, NDArray[np.float64] | None], labels: dict[str, NDArray[np.float64] | None]
) -> tuple[int, int] | str:
    """Say how many common pixels a pixel of the image and one of the labels cover, in each direction.

    Parameters
    ----------
    image, labels
        Matrices of both elements, as given by `matrices`.

    Returns
    -------
    tuple or str
        ``(image_repeat, labels_repeat)``, one of them 1; or what was found instead.
    """
    found = []
    for system in labels:
        if system not in image:
            continue
        to_image, from_labels = image[system], labels[system]
        if to_image is None or from_labels is None or abs(np.linalg.det(to_image)) == 0:
            found.append(f"in {system!r}, a transformation that is not affine and invertible")
            continue
        matrix = np.linalg.solve(to_image, from_labels)
        ratio = matrix[0, 0]
        if ratio > 0 and (np.abs(matrix - np.diag([ratio, ratio, 1])) <= ratio * _TOLERANCE).all():
            size = max(ratio, 1 / ratio)
            if abs(size - round(size)) <= _SCALE_TOLERANCE * size:
                return (1, round(size)) if ratio >= 1 else (round(size), 1)
        (yy, yx, y), (xy, xx, x) = matrix[:2]
        found.append(f"in {system!r}, y' = {yy:.6g} y {yx:+.6g} x {y:+.6g}, x' = {xy:.6g} y {xx:+.6g} x {x:+.6g}")
    return "; ".join(found) or "no common coordinate system"


def sizes_fit(fine: tuple[int, ...], coarse: tuple[int, ...], repeat: int) -> bool:
    """Say whether a coarse grid, each pixel repeated, is a fine one but for less than a coarse pixel."""
    return all(abs(f - c * repeat) < repeat for f, c in zip(fine, coarse, strict=True))
