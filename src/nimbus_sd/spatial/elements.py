"""Images, labels and shapes of a SpatialData: in pairs, how they lie on each other, how large pixels are."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import NamedTuple, TypeAlias

import dask.array as da
import numpy as np
from geopandas import GeoDataFrame
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree

from nimbus_sd._text import listed
from nimbus_sd.keys import NIMBUS

#: Names of elements as a user gives them; None: all, or to be found.
Names: TypeAlias = str | Sequence[str] | None
#: um per pixel as a user gives it: of all images, or of each; None: to be found.
PixelSize: TypeAlias = float | Mapping[str, float] | None
#: Matrix (y, x, 1) into each coordinate system; NaN where it is not affine.
Matrices: TypeAlias = Mapping[str, NDArray[np.float64]]

# What counts as rounding: of a scale, relative; of a shift, in pixels of the labels (um are stored with two digits).
_SCALE_TOLERANCE = 1e-6
_SHIFT_TOLERANCE = 0.05
# Pixel size of a 20x objective, taken where neither the data nor the user says anything.
_DEFAULT_PIXEL_SIZE = 0.5
# What microscopes have, and more, in um: other numbers are in another unit.
_PLAUSIBLE = (0.001, 100.0)
# "micro" is spelled with the micro sign or with the Greek letter mu.
_MICROMETRE = re.compile(r"(?:.*_)?(?:[u\u00b5\u03bc]m|microns?|micromet(?:er|re)s?)", re.IGNORECASE | re.DOTALL)


def check_spatialdata(sdata: object) -> None:
    """Raise a TypeError, with what to do, if this is no SpatialData: mostly it is the table of one."""
    if not isinstance(sdata, SpatialData):
        raise TypeError(f"Expected a SpatialData, got {type(sdata).__name__}; pass the one that holds the images.")


def not_found(kind: str, missing: Iterable[str], existing: Iterable[str], where: str = "") -> KeyError:
    """Build the error for names that do not exist: what exists, and which of it is spelled most alike."""
    missing, existing = list(missing), list(existing)
    near = dict.fromkeys(match for name in missing for match in get_close_matches(name, existing))
    hint = f" Did you mean {listed(near)}?" if near else ""
    return KeyError(f"No {kind} {listed(missing)}{where}; there is: {listed(existing, 100) or 'none'}.{hint}")


def image_element(sdata: SpatialData, key: str) -> tuple[da.Array, list[str]]:
    """Return an image's full-resolution pixels, shape (C, H, W), and its channel names."""
    element = _full_resolution(f"Image {key!r}", sdata.images[key], ("c", "y", "x"))
    if element.dtype.kind not in "buif":
        raise ValueError(f"Image {key!r} is of type {element.dtype}; it must be of integers or floats.")
    names = element.coords["c"].values.tolist() if "c" in element.coords else range(element.sizes["c"])
    channels = [str(name) for name in names]
    if repeated := _duplicates(channels):
        raise ValueError(f"Image {key!r} has several channels named {repeated}; see `SpatialData.set_channel_names`.")
    return da.asarray(element.data), channels


def labels_element(sdata: SpatialData, key: str) -> da.Array:
    """Return a labels element's full-resolution ids, shape (H, W). Coarser scales would lose cells."""
    element = _full_resolution(f"Labels {key!r}", sdata.labels[key], ("y", "x"))
    if element.dtype.kind not in "iu":
        advice = "label connected components (`skimage.measure.label`)" if element.dtype == bool else "cast them"
        raise ValueError(f"Labels {key!r} are of type {element.dtype}; they must be integers: {advice}.")
    return da.asarray(element.data)


def _full_resolution(name: str, element: DataArray | DataTree, axes: tuple[str, ...]) -> DataArray:
    if isinstance(element, DataTree):
        (element,) = element["scale0"].data_vars.values()
    if set(element.dims) != set(axes):
        raise ValueError(f"{name}: the axes are {element.dims}; only 2-D elements ({', '.join(axes)}) are supported.")
    return element.transpose(*axes)


def same_name(names: Iterable[str], name: str) -> str | None:
    """Find a name that is there in upper or lower case: both together could not be stored."""
    return next((other for other in names if other.lower() == name.lower()), None)


def is_ours(entry: object) -> bool:
    """Whether an entry of a table's ``uns`` says what else of the table we wrote."""
    return isinstance(entry, Mapping) and "wrote" in entry


def plain_images(sdata: SpatialData) -> list[str]:
    """Name the images, leaving out the score maps that `predict` wrote beside them."""
    keys = {key for table in sdata.tables.values() for key, entry in table.uns.items() if is_ours(entry)} | {NIMBUS}
    maps = {f"{image}_{key}" for image in sdata.images for key in keys}
    return [image for image in sdata.images if image not in maps]


def cell_elements(sdata: SpatialData) -> dict[str, DataArray | DataTree | GeoDataFrame]:
    """Collect the elements that can say where cells are: labels first, then shapes."""
    return {**sdata.labels, **sdata.shapes}


def pair_elements(sdata: SpatialData, image_key: Names = None, labels_key: Names = None) -> list[tuple[str, str]]:
    """Pair images with labels, as `find_regions` describes it: in the order given, or by name of the labels."""
    check_spatialdata(sdata)
    images, labels = _as_list(image_key), _as_list(labels_key)
    if not sdata.images or not (sdata.labels if labels is None else cell_elements(sdata)):
        existing = f"images {listed(sdata.images) or '(none)'} and labels {listed(sdata.labels) or '(none)'}"
        if shapes := listed(sdata.shapes):
            hint = f"Cells that are shapes ({shapes}) are scored with `shapes_key` (`--shapes` on the command line)."
        else:
            hint = 'Find the cells first: see "Cells: masks, polygons, or neither" in the documentation.'
        raise ValueError(f"One image and one labels element per region are needed, but there are {existing}. {hint}")
    for keys, elements, kind in (
        (images, sdata.images, "image"),
        (labels, cell_elements(sdata), "labels or shapes" if sdata.shapes else "labels element"),
    ):
        if missing := [key for key in keys or [] if key not in elements]:
            raise not_found(kind, missing, elements)
    if images is None:
        labels = labels or sorted(sdata.labels)
        members = _by_system({key: sdata.images[key] for key in plain_images(sdata)})
        images = [_partner(f"labels {key!r}", cell_elements(sdata)[key], "image", members) for key in labels]
    elif labels is None:
        members = _by_system(sdata.labels)
        labels = [_partner(f"image {key!r}", sdata.images[key], "labels element", members) for key in images]
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels elements were given; name as many of both.")
    if repeated := _duplicates(labels):
        raise ValueError(f"Labels {repeated} occur more than once: they can be part of one region only.")
    return list(zip(images, labels, strict=True))


def settle_channels(offered: Mapping[str, list[str]], channels: Names) -> list[str]:
    """Return the channels to read of images that offer these: those asked for, or those that all images have."""
    if channels is None:
        first = next(iter(offered.values()))
        common = [name for name in first if all(name in names for names in offered.values())]
        for image, names in offered.items():
            if more := sorted(set(names) - set(common)):
                raise ValueError(f"Other images lack {more} of {image!r}. Pass `channels`; all images have {common}.")
        return common
    channels = [channels] if isinstance(channels, str) else [str(name) for name in channels]
    if not channels:
        raise ValueError("`channels` is empty; name at least one, or pass None for all.")
    if repeated := _duplicates(channels):
        raise ValueError(f"`channels` names {repeated} more than once.")
    for image, names in offered.items():
        if missing := [name for name in channels if name not in names]:
            raise not_found("channel", missing, names, f" in image {image!r}")
    return channels


def _by_system(elements: Mapping[str, object]) -> dict[str, list[str]]:
    """List the elements of each coordinate system."""
    members: dict[str, list[str]] = {}
    for key, element in elements.items():
        for system in get_transformation(element, get_all=True):
            members.setdefault(system, []).append(key)
    return members


def _partner(subject: str, element: object, kind: str, members: Mapping[str, list[str]]) -> str:
    """Find the one element of a kind that is alone of it in a coordinate system of this element."""
    systems = get_transformation(element, get_all=True)
    sharing = [members[system] for system in systems if system in members]
    alone = {keys[0] for keys in sharing if len(keys) == 1}
    if len(alone) == 1:
        return alone.pop()
    if not sharing:
        where = f"which is in {listed(systems)}; the {kind}s are in {listed(members) or '(none)'}"
        raise ValueError(f"No {kind} shares a coordinate system with {subject}, {where}. Set one for both.")
    candidates = listed(sorted(alone or set().union(*sharing)))
    raise ValueError(
        f"Which {kind} belongs to {subject} is not clear: {candidates}. Name the pairs in `image_key` and `labels_key`."
    )


def _as_list(key: Names) -> list[str] | None:
    if key is None:
        return None
    names = list(key) if isinstance(key, Iterable) and not isinstance(key, str) else [key]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"`image_key` and `labels_key` are names, lists of them, or None; {key!r} was given.")
    if not names:
        raise ValueError("An empty list of elements was given; name at least one, or pass None for all.")
    return names


def _duplicates(names: Sequence[str]) -> str:
    return listed(sorted({name for name in names if names.count(name) > 1}))


def matrices(element: DataArray | DataTree | GeoDataFrame) -> Matrices:
    """Look up where an element lies in each coordinate system."""
    placed = {}
    for system, transformation in get_transformation(element, get_all=True).items():
        placed[system] = np.full((3, 3), np.nan)
        with suppress(ValueError):
            placed[system] = np.asarray(transformation.to_affine_matrix(("y", "x"), ("y", "x")), np.float64)
    return placed


class Placement(NamedTuple):
    """How labels lie on an image: on a common grid of pixels, that of the finer one, which starts where the image does.

    ``image_repeat`` and ``labels_repeat`` are the pixels of the grid that one of the element covers, in each direction,
    one of them 1; ``labels_origin`` is where the labels start, in rows and columns of the grid.
    """

    image_repeat: int
    labels_repeat: int
    labels_origin: tuple[int, int]


def onto_image(image: Matrices, element: Matrices, what: str) -> dict[str, NDArray[np.float64]]:
    """Return the matrices from an element's (y, x, 1) to the image's in each common system, or raise a ValueError."""
    systems = [system for system in element if system in image]
    found = {
        system: np.linalg.solve(image[system], element[system]).astype(np.float64)
        for system in systems
        if abs(np.linalg.det(image[system])) > 0 and abs(np.linalg.det(element[system])) > 0
    }
    if not found:
        bad = f"only {listed(systems)}, with a transformation that is not affine and invertible" if systems else "none"
        raise ValueError(f"{what} must lie on each other in a common coordinate system, but there is {bad}.")
    return found


def place_labels(matrices: Mapping[str, NDArray[np.float64]], what: str) -> Placement:
    """Find how labels lie on the image by whole pixels and a whole factor, without a shift if so in any system."""
    fits, misfits = [], []
    for system, matrix in matrices.items():
        ratio = matrix[0, 0]
        if ratio > 0 and (np.abs(matrix[:2, :2] - np.diag([ratio, ratio])) <= ratio * _SCALE_TOLERANCE).all():
            size = max(ratio, 1 / ratio)
            image_repeat, labels_repeat = (1, round(size)) if ratio >= 1 else (round(size), 1)
            shift = matrix[:2, 2] * image_repeat
            origin = np.rint(shift)
            whole = np.abs(shift - origin) <= _SHIFT_TOLERANCE * labels_repeat
            if abs(size - round(size)) <= _SCALE_TOLERANCE * size and whole.all():
                fits.append(Placement(image_repeat, labels_repeat, (int(origin[0]), int(origin[1]))))
        (yy, yx, y), (xy, xx, x) = matrix[:2]
        misfits.append(f"in {system!r}, y' = {yy:.6g} y {yx:+.6g} x {y:+.6g}, x' = {xy:.6g} y {xx:+.6g} x {x:+.6g}")
    if fits:
        return min(fits, key=lambda place: place.labels_origin != (0, 0))
    rule = "must lie on each other, scaled by a whole factor and moved by whole pixels at most"
    found = f"from labels to image there is: {'; '.join(misfits)}"
    raise ValueError(f"{what} {rule}, but {found}. Resample or place one anew.")


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
            shape = f"{height:.6g} x {width:.6g} um (y, x) or sheared in coordinate system {system!r}"
            raise ValueError(
                f"Pixels of image {key!r} are {shape}; they must be square. Resample or pass `pixel_size`."
            )
        sizes[system] = float(height)
    if sizes and max(sizes.values()) > min(sizes.values()) * 1.001:
        stated = ", ".join(f"{size:.6g} um in {system!r}" for system, size in sizes.items())
        raise ValueError(f"The pixel size of image {key!r} is not clear: {stated}. Pass `pixel_size` in um.")
    return next(iter(sizes.values()), None)


def pixel_sizes(images: Mapping[str, Matrices], pixel_size: PixelSize = None) -> dict[str, float]:
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
            claim = f"{f'Image {key!r} says' if stated is None else '`pixel_size` is'} {size:g} um per pixel"
            raise ValueError(f"{claim}, which no microscope has. Pass `pixel_size` in um, not in nm, mm or m.")
        sizes[key] = size
        # Where the image's own size is not clear, `pixel_size` is what the error asks for.
        with suppress(ValueError):
            if stated is not None and (own := own_pixel_size(key, placed)) and abs(size - own) > 0.05 * own:
                warn(f"`pixel_size` is {size:.6g} um, but image {key!r} says {own:.6g} um per pixel; that is ignored.")
    if unknown:
        default = f"{_DEFAULT_PIXEL_SIZE} um per pixel (20x) is assumed"
        warn(f"The pixel size of {listed(unknown)} is not known; {default}. Pass `pixel_size`: scores depend on it.")
    return sizes


def _number(pixel_size: float) -> float:
    size = math.nan
    with suppress(TypeError, ValueError):
        size = float(pixel_size)
    if not 0 < size < math.inf or isinstance(pixel_size, bool):
        raise ValueError(f"`pixel_size` is {pixel_size!r}; it must be a number above 0, in um per image pixel.")
    return size


def warn(message: str) -> None:
    """Warn on behalf of the caller of `find_regions`'s caller, from a function that `find_regions` calls."""
    warnings.warn(message, UserWarning, stacklevel=5)
