"""A region: an image, the cells in it, and how large its pixels are; and how to find those of a SpatialData."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice, product
from numbers import Real

import dask.array as da
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.segmentation import expand_labels
from spatialdata import SpatialData
from spatialdata.transformations import BaseTransformation, Scale, get_transformation
from spatialdata.transformations import Sequence as Chain

from nimbus_sd._text import listed
from nimbus_sd.spatial import elements
from nimbus_sd.spatial.elements import Names, PixelSize, Placement
from nimbus_sd.spatial.reading import read_window
from nimbus_sd.spatial.shapes import draw_labels, instance_ids

_LARGEST_ID = np.iinfo(np.int64).max
# Where to look for cells to check; a slide has thousands.
_WINDOWS = 100


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
    labels_origin
        Row and column of the common grid where the labels start. Around them there is no cell.
    grow
        By how many um the cells are grown, as far as there is room between them.
    instances
        What a table calls the cells 1, 2, ...; None where it calls them so, too, since they come from labels.
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
    labels_origin: tuple[int, int]
    grow: float
    instances: pd.Index | None = field(repr=False)
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

    def reaches(self, rows: slice, cols: slice) -> bool:
        """Whether the labels, or the cells that they grow to, reach into a window of the common grid."""
        margin = self.grow / self.pixel_size
        spans = zip((rows, cols), self._extent, strict=True)
        return all(axis.start < stop + margin and start - margin < axis.stop for axis, (start, stop) in spans)

    @property
    def covered(self) -> tuple[slice, slice]:
        """The window of the image in which the labels lie, all of it if they cover it."""
        full = [(0, n) for n in self.shape]
        spans = [(max(0, a), min(n, b)) for (a, b), n in zip(self._extent, self.shape, strict=True)]
        whole = all(n - (b - a) < self.labels_repeat for (a, b), n in zip(spans, self.shape, strict=True))
        rows, cols = (slice(*span) for span in (full if whole else spans))
        return rows, cols

    def sample(self, side: int, enough: int = 30) -> tuple[slice, slice]:
        """Return a window of at most this side with so many cells, or else the most: if it has them, in the middle."""
        spans = [(axis.start, axis.stop) for axis in self.covered]
        rows, cols = (slice(max(a, (a + b - side) // 2), min(b, (a + b + side) // 2)) for a, b in spans)
        down, across = ([slice(i, min(i + side, b)) for i in range(a, b, side)] for a, b in spans)
        best, most = (rows, cols), -1
        for window in (best, *islice(product(down, across), _WINDOWS)):
            labels = self._read_labels(*window)
            if (found := len(np.unique(labels)) - 1 if labels.any() else 0) > most:
                best, most = window, found
            if most >= enough:
                break
        return best

    def overlaps(self, other: Region) -> bool:
        """Whether the labels of two regions cover a common part of one image."""
        spans = [(a / self.image_repeat, b / self.image_repeat) for a, b in self._extent]
        others = [(a / other.image_repeat, b / other.image_repeat) for a, b in other._extent]
        meet = all(a[0] < b[1] and b[0] < a[1] for a, b in zip(spans, others, strict=True))
        return meet and self.image_key == other.image_key

    @property
    def _extent(self) -> list[tuple[int, int]]:
        """Where the labels begin and end, in rows and columns of the common grid."""
        spans = zip(self.labels_origin, self._labels.shape, strict=True)
        return [(start, start + n * self.labels_repeat) for start, n in spans]

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
        if self.grow:
            # Whose a pixel becomes depends on no cell that is further away.
            margin = math.ceil(self.grow / self.pixel_size)
            spans = [axis.indices(extent)[:2] for axis, extent in zip((rows, cols), self.shape, strict=True)]
            around = [slice(max(0, start - margin), stop + margin) for start, stop in spans]
            labels = expand_labels(self._read_labels(*around), self.grow / self.pixel_size)
            inner = (slice(a - b.start, z - b.start) for (a, z), b in zip(spans, around, strict=True))
            return np.ascontiguousarray(labels[tuple(inner)])
        return self._read_labels(rows, cols)

    def _read_labels(self, rows: slice, cols: slice) -> NDArray[np.int64]:
        name = f"Labels {self.labels_key!r}"
        place = self.labels_repeat, self.shape, (rows, cols), lambda: name
        window = read_window(self._labels, *place, origin=self.labels_origin)
        if window.size and (window.min() < 0 or window.max() > _LARGEST_ID):
            content = f"{name} hold ids from {window.min()} to {window.max()}"
            raise ValueError(f"{content}; ids must lie between 0 (no cell) and {_LARGEST_ID}. Renumber them.")
        return np.ascontiguousarray(window, np.int64)

    def cell_ids(self, numbers: NDArray[np.integer]) -> NDArray:
        """Return what a table calls these cells, given as `read_labels` gives them."""
        return np.asarray(numbers, np.int64) if self.instances is None else self.instances.to_numpy()[numbers - 1]


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
    grow: float | Mapping[str, float] = 0.0,
) -> list[Region]:
    """Find what there is to score: pairs of image and labels that lie on each other pixel by pixel.

    Parameters
    ----------
    sdata
        Images and labels, in memory or on disk. Of multiscale elements the full resolution is used.
    image_key, labels_key
        Names of images, and of labels or shapes, or lists of equal length. Where one is None, it is found through the
        coordinate systems: the partner is the only one of its kind in a coordinate system of the other. None for both
        takes every labels element, in order of their names.
    channels
        Channels to read, in this order, which all images must have. None takes all channels of the first image, and
        the other images must have the same ones.
    pixel_size
        um per pixel of the images, one number for all or one per image. None takes it from a coordinate system named
        ``um``, ``microns``, ... or ``<anything>_um``; where there is none, 0.5 is assumed with a warning.
    grow
        By how many um the cells are grown, one number for all or one per labels element.

    Raises
    ------
    KeyError
        An element or a channel does not exist.
    ValueError
        Pairs, channels or pixel sizes are not clear, or an image and its labels do not lie on each other up to a
        whole factor and a shift by whole pixels.

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
        size = pixels.shape[1], pixels.shape[2]
        element, what = elements.cell_elements(sdata)[labels], f"Image {image!r} and labels {labels!r}"
        lies = elements.onto_image(placed[image], elements.matrices(element), what)
        if labels in sdata.labels:
            cells, instances, place = elements.labels_element(sdata, labels), None, elements.place_labels(lies, what)
            shape = _common_grid(size, cells.shape, place, image, labels)
        else:
            cells, origin = draw_labels(element, next(iter(lies.values())), size)
            instances, place, shape = instance_ids(element, labels), elements.Placement(1, 1, origin), size
            if not cells.size:
                raise ValueError(f"Shapes {labels!r} do not lie on image {image!r}. Place one anew.")
        regions.append(
            Region(
                image_key=image,
                labels_key=labels,
                channels=channels,
                shape=shape,
                pixel_size=sizes[image] / place.image_repeat,
                **place._asdict(),
                grow=check_distance(grow.get(labels, 0.0) if isinstance(grow, Mapping) else grow),
                instances=instances,
                image_transformations=dict(get_transformation(sdata.images[image], get_all=True)),
                _image=pixels,
                _labels=cells,
                _channel_index=tuple(names.index(channel) for channel in channels),
            )
        )
    if labels_key is None:
        _check_rivals(regions)
    return regions


def _common_grid(
    size: tuple[int, int], labels_size: tuple[int, ...], place: Placement, image: str, labels: str
) -> tuple[int, int]:
    """Find the shape of the common grid; warns of labels that reach beyond the image, or seem to lack a part."""
    image_repeat, labels_repeat, origin = place
    fine, coarse = (size, labels_size) if image_repeat == 1 else (labels_size, size)
    if origin == (0, 0) and elements.sizes_fit(fine, coarse, max(image_repeat, labels_repeat)):
        return fine[0], fine[1]
    grid = size[0] * image_repeat, size[1] * image_repeat
    spans = [(start, start + n * labels_repeat) for start, n in zip(origin, labels_size, strict=True)]
    (top, bottom), (left, right) = [(f"{a / image_repeat:g}", f"{b / image_repeat:g}") for a, b in spans]
    where = f"Labels {labels!r} cover rows {top} to {bottom} and columns {left} to {right} of image {image!r}"
    where = f"{where}, which has {size[0]} x {size[1]} pixels (y, x)"
    if any(start >= n or end <= 0 for (start, end), n in zip(spans, grid, strict=True)):
        raise ValueError(f"{where}: they lie beside it. Place one anew.")
    if origin == (0, 0):
        elements.warn(f"{where}; only what is on both is used. If they are of all of it, set a `Scale` for one.")
    elif any(start < 0 or end > n for (start, end), n in zip(spans, grid, strict=True)):
        elements.warn(f"{where}; what lies beyond its edge is left out.")
    return grid


def _check_rivals(regions: Sequence[Region]) -> None:
    """Warn of labels that lie over each other on one image, if nobody asked for both."""
    rivals = [pair for pair in combinations(regions, 2) if pair[0].overlaps(pair[1])]
    for image in dict.fromkeys(first.image_key for first, _ in rivals):
        names = listed(dict.fromkeys(r.labels_key for pair in rivals for r in pair if r.image_key == image))
        elements.warn(f"Image {image!r} has several labels, {names}, and all are used. Pass `labels_key` for one.")


def check_distance(grow: float) -> float:
    """Return a distance to grow by, or raise a ValueError if it is none."""
    if not isinstance(grow, Real) or isinstance(grow, bool) or not 0 <= grow < math.inf:
        raise ValueError(f"`grow` is {grow!r}; it must be a number of um, 0 or more.")
    return float(grow)
