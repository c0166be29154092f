"""Images and labels of a SpatialData: as plain arrays, in pairs, and the errors for what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import dask.array as da
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree

from nimbus_sd.keys import NIMBUS
from nimbus_sd.spatial.rows import is_ours


def check_spatialdata(sdata: object) -> None:
    """Raise a TypeError, with what to do, if this is no SpatialData: mostly it is the table of one."""
    if not isinstance(sdata, SpatialData):
        raise TypeError(f"Expected a SpatialData, got {type(sdata).__name__}; pass the one that holds the images.")


def not_found(kind: str, missing: Iterable[str], existing: Iterable[str], where: str = "") -> KeyError:
    """Build the error for names that do not exist: what exists, and which of it is spelled most alike."""
    missing, existing = list(missing), list(existing)
    near = dict.fromkeys(match for name in missing for match in get_close_matches(name, existing))
    hint = f" Did you mean {_listed(near)}?" if near else ""
    return KeyError(f"No {kind} {_listed(missing)}{where}; there is: {_listed(existing) or 'none'}.{hint}")


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
        advice = "cast them, e.g. `Labels2DModel.parse(labels.astype('uint32'), ...)`"
        if element.dtype.kind == "b":
            advice = "label its connected components first, e.g. with `skimage.measure.label`"
        raise ValueError(f"Labels {key!r} are of type {element.dtype}; they must be integers: {advice}.")
    return da.asarray(element.data)


def _full_resolution(name: str, element: DataArray | DataTree, axes: tuple[str, ...]) -> DataArray:
    if isinstance(element, DataTree):
        (element,) = element["scale0"].data_vars.values()
    if set(element.dims) != set(axes):
        raise ValueError(f"{name}: the axes are {element.dims}; only 2-D elements ({', '.join(axes)}) are supported.")
    return element.transpose(*axes)


def plain_images(sdata: SpatialData) -> list[str]:
    """Name the images, leaving out the score maps that `predict` wrote beside them."""
    keys = {key for table in sdata.tables.values() for key, entry in table.uns.items() if is_ours(entry)} | {NIMBUS}
    maps = {f"{image}_{key}" for image in sdata.images for key in keys}
    return [image for image in sdata.images if image not in maps]


def pair_elements(
    sdata: SpatialData, image_key: str | Sequence[str] | None = None, labels_key: str | Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Pair images with labels, as `find_regions` describes it: in the order given, or by name of the labels."""
    check_spatialdata(sdata)
    if not sdata.images or not sdata.labels:
        raise ValueError(
            "One image and one labels element per region are needed, but this SpatialData has images "
            f"{_listed(sdata.images) or '(none)'} and labels {_listed(sdata.labels) or '(none)'}."
        )
    images, labels = _as_list(image_key), _as_list(labels_key)
    for keys, elements, kind in ((images, sdata.images, "image"), (labels, sdata.labels, "labels element")):
        if missing := [key for key in keys or [] if key not in elements]:
            raise not_found(kind, missing, elements)
    if images is None:
        labels = labels or sorted(sdata.labels)
        members = _by_system({key: sdata.images[key] for key in plain_images(sdata)})
        images = [_partner(f"labels {key!r}", sdata.labels[key], "image", members) for key in labels]
    elif labels is None:
        members = _by_system(sdata.labels)
        labels = [_partner(f"image {key!r}", sdata.images[key], "labels element", members) for key in images]
    if len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images and {len(labels)} labels elements were given: name an image for each of the labels."
        )
    if repeated := _duplicates(labels):
        raise ValueError(f"Labels {repeated} occur more than once: they can be part of one region only.")
    return list(zip(images, labels, strict=True))


def settle_channels(offered: Mapping[str, list[str]], channels: Sequence[str] | None) -> list[str]:
    """Return the channels to read of images that offer these: those asked for, or those that all images have."""
    if channels is None:
        first, names = next(iter(offered.items()))
        for image, others in offered.items():
            if set(others) != set(names):
                only = [sorted(set(a) - set(b)) for a, b in ((names, others), (others, names))]
                common = [name for name in names if all(name in theirs for theirs in offered.values())]
                raise ValueError(
                    f"The images have different channels: {only[0]} only in {first!r}, {only[1]} only in {image!r}. "
                    f"Pass `channels`; all images have {common}."
                )
        return list(names)
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
        raise ValueError(
            f"No {kind} shares a coordinate system with {subject}, which is in {_listed(systems)}; the {kind}s are in "
            f"{_listed(members) or '(none)'}. Set a transformation of both into one coordinate system."
        )
    raise ValueError(
        f"Which {kind} belongs to {subject} is not clear; these share a coordinate system with it: "
        f"{_listed(sorted(alone or set().union(*sharing)))}. Name the pairs with `image_key` and `labels_key` (lists)."
    )


def _as_list(key: str | Sequence[str] | None) -> list[str] | None:
    if key is None or isinstance(key, str):
        return None if key is None else [key]
    names = list(key) if isinstance(key, Iterable) else [key]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"`image_key` and `labels_key` are names, lists of them, or None; {key!r} was given.")
    if not names:
        raise ValueError("An empty list of elements was given; give at least one name, or None for all.")
    return names


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _duplicates(names: Sequence[str]) -> str:
    return _listed(sorted({name for name in names if names.count(name) > 1}))
