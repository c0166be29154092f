"""From a SpatialData to its regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spatialdata import SpatialData
from spatialdata.transformations import get_transformation

from nimbus_sd.spatial.elements import (
    check_spatialdata,
    image_element,
    labels_element,
    matrices,
    not_found,
    relative_scale,
    sizes_fit,
)
from nimbus_sd.spatial.pairs import pair_elements
from nimbus_sd.spatial.region import Region
from nimbus_sd.spatial.units import pixel_sizes

__all__ = ["Region", "find_regions"]


def find_regions(
    sdata: SpatialData,
    image_key: str | Sequence[str] | None = None,
    labels_key: str | Sequence[str] | None = None,
    *,
    channels: Sequence[str] | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
) -> list[Region]:
    """Find what there is to score: pairs of image and labels that lie on each other pixel by pixel.

    Parameters
    ----------
    sdata
        Images and labels, in memory or on disk. Of multiscale elements the full resolution is used.
    image_key, labels_key
        Names of elements, or lists of equal length. Where one is None, it is found through the coordinate
        systems: the partner is the only one of its kind in a coordinate system of the other. None for both
        takes every labels element, in order of their names.
    channels
        Channels to read, in this order, which all images must have. None takes all channels of the first
        image, and the other images must have the same ones.
    pixel_size
        um per pixel of the images, one number for all or one per image. None takes it from a coordinate
        system named ``um``, ``microns``, ... or ``<anything>_um``; where there is none, 0.5 is assumed with a
        warning.

    Returns
    -------
    list of Region

    Raises
    ------
    TypeError
        Something else than a SpatialData was given, such as its table.
    KeyError
        An element or a channel does not exist.
    ValueError
        Pairs are not clear; an element is not 2-D; channels differ between images or are named twice; labels
        are not integers; image and labels do not lie on each other up to a whole factor; pixels are not
        square.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import Image2DModel, Labels2DModel
    >>> image = Image2DModel.parse(np.ones((2, 60, 80), np.float32), c_coords=["CD3", "CD8"])
    >>> labels = Labels2DModel.parse(np.ones((60, 80), np.int32))
    >>> sdata = SpatialData(images={"image": image}, labels={"cells": labels})
    >>> (region,) = find_regions(sdata, channels=["CD8"], pixel_size=0.5)
    >>> region.shape, region.channels, region.pixel_size
    ((60, 80), ['CD8'], 0.5)
    >>> region.read_image([0], slice(10, 20), slice(0, 30)).shape
    (1, 10, 30)
    """
    check_spatialdata(sdata)
    pairs = pair_elements(sdata, image_key, labels_key)
    images = {image: image_element(sdata, image) for image, _ in pairs}
    channels = _channels({image: names for image, (_, names) in images.items()}, channels)
    placed = {image: matrices(sdata.images[image]) for image in images}
    if isinstance(pixel_size, Mapping) and (unknown := [key for key in pixel_size if key not in sdata.images]):
        raise not_found("image", unknown, sdata.images, " (named in `pixel_size`)")
    sizes = pixel_sizes(placed, pixel_size)

    regions = []
    for image, labels in pairs:
        pixels, names = images[image]
        cells = labels_element(sdata, labels)
        repeats = relative_scale(placed[image], matrices(sdata.labels[labels]))
        if isinstance(repeats, str):
            raise ValueError(
                f"Image {image!r} and labels {labels!r} must lie on each other, shifted by nothing and "
                f"scaled by a whole factor at most; from labels to image, this was found: {repeats}. "
                "Resample one of them, or correct its transformation."
            )
        image_repeat, labels_repeat = repeats
        fine, coarse = (pixels.shape[1:], cells.shape) if image_repeat == 1 else (cells.shape, pixels.shape[1:])
        if not sizes_fit(fine, coarse, max(repeats)):
            raise ValueError(
                f"Image {image!r} is {pixels.shape[1]} x {pixels.shape[2]} pixels (y, x) and labels "
                f"{labels!r} are {cells.shape[0]} x {cells.shape[1]}; one pixel of the "
                f"{'labels' if image_repeat == 1 else 'image'} covers {max(repeats)} x {max(repeats)} of "
                "the other, so that these sizes do not fit."
            )
        regions.append(
            Region(
                image_key=image,
                labels_key=labels,
                channels=channels,
                shape=(fine[0], fine[1]),
                pixel_size=sizes[image] / image_repeat,
                image_repeat=image_repeat,
                labels_repeat=labels_repeat,
                image_transformations=dict(get_transformation(sdata.images[image], get_all=True)),
                _image=pixels,
                _labels=cells,
                _channel_index=tuple(names.index(channel) for channel in channels),
            )
        )
    return regions


def _channels(offered: Mapping[str, list[str]], wanted: Sequence[str] | None) -> list[str]:
    """Settle the channels to read: those wanted, or those that all images have."""
    if wanted is None:
        first, names = next(iter(offered.items()))
        for image, others in offered.items():
            if set(others) != set(names):
                only = [sorted(set(a) - set(b)) for a, b in ((names, others), (others, names))]
                common = [name for name in names if all(name in theirs for theirs in offered.values())]
                raise ValueError(
                    f"The images have different channels: {only[0]} only in {first!r}, {only[1]} only in "
                    f"{image!r}. Pass `channels`; all images have {common}."
                )
        return list(names)
    channels = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
    if not channels:
        raise ValueError("`channels` is empty; name at least one, or pass None for all.")
    if twice := sorted({name for name in channels if channels.count(name) > 1}):
        raise ValueError(f"`channels` names {', '.join(map(repr, twice))} more than once.")
    for image, names in offered.items():
        if missing := [name for name in channels if name not in names]:
            raise not_found("channel", missing, names, f" in image {image!r}")
    return channels
