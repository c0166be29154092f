"""A region: an image, the cells in it, and how large its pixels are; and how to find those of a SpatialData."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.transformations import BaseTransformation, Scale, get_transformation
from spatialdata.transformations import Sequence as Chain

from nimbus_sd.spatial import elements
from nimbus_sd.spatial.elements import Names, PixelSize
from nimbus_sd.spatial.reading import read_window

_LARGEST_ID = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Region:
    """One image and one labels element on a common pixel grid, the finer of the two.

    Attributes
    ----------
    image_key, labels_key
        Names of the elements.
    channels
        The channels asked for; channel ``i`` of `read_image` is ``channels[i]``.
    shape
        Height and width of the common grid in pixels.
    pixel_size
        um per pixel of the common grid.
    image_repeat, labels_repeat
        Pixels of the common grid that a pixel of the element covers, in each direction. At least one of them is 1.
    image_transformations
        The image's transformations, from its own pixels into each coordinate system.
    """

    image_key: str
    labels_key: str
    channels: list[str]
    shape: tuple[int, int]
    pixel_size: float
    image_repeat: int
    labels_repeat: int
    image_transformations: dict[str, BaseTransformation] = field(repr=False)
    _image: da.Array = field(repr=False)
    _labels: da.Array = field(repr=False)
    _channel_index: tuple[int, ...] = field(repr=False)

    @property
    def dtype(self) -> np.dtype:
        """Type of the image's numbers as `read_image` gives them."""
        return np.dtype(np.uint8) if self._image.dtype.kind == "b" else self._image.dtype.newbyteorder("=")

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image in its own pixels."""
        height, width = self._image.shape[1:]
        return height, width

    @property
    def transformations(self) -> dict[str, BaseTransformation]:
        """Transformations from pixels of the common grid into each coordinate system of the image."""
        if self.image_repeat == 1:
            return dict(self.image_transformations)
        to_image = Scale([1 / self.image_repeat] * 2, axes=("y", "x"))
        return {system: Chain([to_image, place]) for system, place in self.image_transformations.items()}

    def with_all_channels(self) -> Region:
        """Return the region with the image's other channels after those asked for, named by their positions."""
        others = [i for i in range(self._image.shape[0]) if i not in self._channel_index]
        index = (*self._channel_index, *others)
        return replace(self, channels=[*self.channels, *map(str, others)], _channel_index=index)

    def read_image(self, channels: Sequence[int], rows: slice, cols: slice) -> NDArray:
        """Read a window of some channels, and no more of the element than that takes.

        ``channels`` are positions in `channels`, in any order; ``rows`` and ``cols`` pixels of the common grid. Returns
        (C, h, w), C-contiguous, in the image's own dtype and the machine's byte order (bool as uint8). Raises OSError
        where pixels cannot be read, such as those of a damaged chunk.
        """
        index = [self._channel_index[channel] for channel in channels]
        ordered = sorted(set(index))

        def describe() -> str:
            damaged = [channel for channel in channels if self._is_damaged(channel, rows, cols)] or channels
            names = ", ".join(repr(self.channels[channel]) for channel in damaged)
            return f"Image {self.image_key!r}, channel(s) {names},"

        window = read_window(self._image, self.image_repeat, self.shape, (rows, cols), describe, ordered)
        window = window if index == ordered else window[[ordered.index(i) for i in index]]
        return np.ascontiguousarray(window, self.dtype)

    def _is_damaged(self, channel: int, rows: slice, cols: slice) -> bool:
        index = [self._channel_index[channel]]
        try:
            read_window(self._image, self.image_repeat, self.shape, (rows, cols), str, index)
        except OSError:
            return True
        return False

    def read_labels(self, rows: slice, cols: slice) -> NDArray[np.int64]:
        """Read a window of the labels, in pixels of the common grid: ids, shape (h, w), 0 = no cell.

        Raises OSError as `read_image`, and ValueError where an id is negative or does not fit into 64 bit with sign,
        which is what a table can hold.
        """
        name = f"Labels {self.labels_key!r}"
        window = read_window(self._labels, self.labels_repeat, self.shape, (rows, cols), lambda: name)
        if window.size and (window.min() < 0 or window.max() > _LARGEST_ID):
            content = f"{name} hold ids from {window.min()} to {window.max()}"
            raise ValueError(f"{content}; ids must lie between 0 (no cell) and {_LARGEST_ID}. Renumber them.")
        return np.ascontiguousarray(window, np.int64)


def unique_images(regions: Sequence[Region]) -> list[Region]:
    """Keep the first region of each image."""
    return list({region.image_key: region for region in reversed(regions)}.values())[::-1]


def find_regions(
    sdata: SpatialData,
    image_key: Names = None,
    labels_key: Names = None,
    *,
    channels: Names = None,
    pixel_size: PixelSize = None,
) -> list[Region]:
    """Find what there is to score: pairs of image and labels that lie on each other pixel by pixel.

    Parameters
    ----------
    sdata
        Images and labels, in memory or on disk. Of multiscale elements the full resolution is used.
    image_key, labels_key
        Names of elements, or lists of equal length. Where one is None, it is found through the coordinate systems: the
        partner is the only one of its kind in a coordinate system of the other. None for both takes every labels
        element, in order of their names.
    channels
        Channels to read, in this order, which all images must have. None takes all channels of the first image, and
        the other images must have the same ones.
    pixel_size
        um per pixel of the images, one number for all or one per image. None takes it from a coordinate system named
        ``um``, ``microns``, ... or ``<anything>_um``; where there is none, 0.5 is assumed with a warning.

    Raises
    ------
    KeyError
        An element or a channel does not exist.
    ValueError
        Pairs, channels or pixel sizes are not clear, or an image and its labels do not lie on each other up to a
        whole factor.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import Image2DModel, Labels2DModel
    >>> image = Image2DModel.parse(np.ones((2, 60, 80), np.float32), c_coords=["CD3", "CD8"])
    >>> labels = Labels2DModel.parse(np.ones((60, 80), np.int32))
    >>> sdata = SpatialData(images={"image": image}, labels={"cells": labels})
    >>> (region,) = find_regions(sdata, channels=["CD8"], pixel_size=0.5)
    >>> region.shape, region.channels, region.read_image([0], slice(10, 20), slice(0, 30)).shape
    ((60, 80), ['CD8'], (1, 10, 30))
    """
    pairs = elements.pair_elements(sdata, image_key, labels_key)
    images = {image: elements.image_element(sdata, image) for image, _ in pairs}
    channels = elements.settle_channels({image: names for image, (_, names) in images.items()}, channels)
    placed = {image: elements.matrices(sdata.images[image]) for image in images}
    if isinstance(pixel_size, Mapping) and (unknown := [key for key in pixel_size if key not in sdata.images]):
        raise elements.not_found("image", unknown, sdata.images, " (named in `pixel_size`)")
    sizes = elements.pixel_sizes(placed, pixel_size)

    regions = []
    for image, labels in pairs:
        pixels, names = images[image]
        cells = elements.labels_element(sdata, labels)
        repeats = elements.relative_scale(placed[image], elements.matrices(sdata.labels[labels]))
        if isinstance(repeats, str):
            pair = f"Image {image!r} and labels {labels!r} must lie on each other, scaled by a whole factor at most"
            raise ValueError(f"{pair}, but from labels to image there is: {repeats}. Resample or place one anew.")
        (_, *size), step = pixels.shape, max(repeats)
        fine, coarse, kind = (size, cells.shape, "labels") if repeats[0] == 1 else (cells.shape, size, "image")
        if not elements.sizes_fit(fine, coarse, step):
            raise ValueError(
                f"Image {image!r} is {size[0]} x {size[1]} pixels (y, x) and labels {labels!r} are {cells.shape[0]} x "
                f"{cells.shape[1]}, which do not fit: one pixel of the {kind} covers {step} x {step} of the other."
            )
        places = dict(get_transformation(sdata.images[image], get_all=True))
        index = tuple(names.index(channel) for channel in channels)
        grid = (fine[0], fine[1]), sizes[image] / repeats[0], *repeats
        regions.append(Region(image, labels, channels, *grid, places, pixels, cells, index))
    return regions
