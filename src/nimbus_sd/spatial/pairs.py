"""Which image belongs to which labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from spatialdata.transformations import get_transformation

from nimbus_sd.keys import NIMBUS
from nimbus_sd.spatial.elements import not_found
from nimbus_sd.spatial.provenance import is_ours

if TYPE_CHECKING:
    from spatialdata import SpatialData


def pair_elements(
    sdata: SpatialData,
    image_key: str | Sequence[str] | None = None,
    labels_key: str | Sequence[str] | None = None,
) -> list[tuple[str, str]]:
    """Pair images with labels, as `find_regions` describes it.

    Returns
    -------
    list of tuple
        ``(image, labels)``, in the order given, or by name of the labels where neither was given.
    """
    if not sdata.images or not sdata.labels:
        raise ValueError(
            "One image and one labels element per region are needed, but this SpatialData has "
            f"images {_names(sdata.images)} and labels {_names(sdata.labels)}."
        )
    images, labels = _as_list(image_key), _as_list(labels_key)
    if missing := [key for key in images or [] if key not in sdata.images]:
        raise not_found("image", missing, sdata.images)
    if missing := [key for key in labels or [] if key not in sdata.labels]:
        raise not_found("labels element", missing, sdata.labels)

    if images is None:
        labels = sorted(sdata.labels) if labels is None else labels
        partners = _systems(sdata.images, plain_images(sdata))
        images = [_partner(f"labels {key!r}", sdata.labels[key], "image", partners) for key in labels]
    elif labels is None:
        partners = _systems(sdata.labels, sdata.labels)
        labels = [_partner(f"image {key!r}", sdata.images[key], "labels element", partners) for key in images]

    if len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images and {len(labels)} labels elements were given: give one image for each "
            "labels element, in the same order (an image may be named several times)."
        )
    if twice := sorted({key for key in labels if labels.count(key) > 1}):
        raise ValueError(f"Labels {_names(twice)} occur more than once: they can be part of one region only.")
    return list(zip(images, labels, strict=True))


def plain_images(sdata: SpatialData) -> list[str]:
    """Name the images, leaving out the score maps that `predict` wrote beside them."""
    keys = {NIMBUS}
    for table in sdata.tables.values():
        keys |= {key for key, entry in table.uns.items() if is_ours(entry)}
    maps = {f"{image}_{key}" for image in sdata.images for key in keys}
    return [image for image in sdata.images if image not in maps]


def _systems(elements: Mapping[str, object], keys: Iterable[str]) -> dict[str, list[str]]:
    """List the elements of each coordinate system."""
    systems: dict[str, list[str]] = {}
    for key in keys:
        for system in get_transformation(elements[key], get_all=True):
            systems.setdefault(system, []).append(key)
    return systems


def _partner(subject: str, element: object, other: str, partners: Mapping[str, list[str]]) -> str:
    """Find the one element that is alone of its kind in a coordinate system of this element."""
    systems = get_transformation(element, get_all=True)
    sharing = [partners[system] for system in systems if system in partners]
    alone = {keys[0] for keys in sharing if len(keys) == 1}
    if len(alone) == 1:
        return alone.pop()
    if not sharing:
        raise ValueError(
            f"No {other} shares a coordinate system with {subject}, which is in {_names(systems)}; the "
            f"{other}s are in {_names(partners)}. Set a transformation of both into one coordinate system."
        )
    candidates = alone or {key for keys in sharing for key in keys}
    raise ValueError(
        f"Which {other} belongs to {subject} is not clear; these share a coordinate system with it: "
        f"{_names(sorted(candidates))}. Name the pairs with `image_key` and `labels_key` (lists of equal "
        "length)."
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


def _names(keys: Iterable[str]) -> str:
    return ", ".join(map(repr, keys)) or "(none)"
