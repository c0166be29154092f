"""Tiles of images and cells at powers of two, contrast, and crops: what the page shows of a slide, and no more read."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from spatialdata import SpatialData
from xarray import DataArray, DataTree

from nimbus_sd.spatial import Region

#: Pixels a side of a tile.
TILE: Final = 512
# Up to this level a tile is read from the full resolution at once; coarser ones are made of finer ones.
_DIRECT = 3
# Where cells have a smaller radius in pixels of a tile, they are drawn as discs, and no labels are read.
_SMALLEST = 1.5
_CACHE = 256 << 20
_SAMPLES, _SAMPLE = 24, 256
_CROP = 96


class Tiles:
    """Reads tiles of the regions of a review, from several threads.

    Parameters
    ----------
    sdata, regions
        The data, and the regions that are shown, with all channels.
    numbers
        For each region the labels of its cells as `Region.read_labels` gives them, and the rows of the table.
    xy, radius
        Position and radius of each row's cell, in pixels of its region.
    """

    def __init__(
        self,
        sdata: SpatialData,
        regions: Sequence[Region],
        numbers: Sequence[tuple[NDArray[np.int64], NDArray[np.intp]]],
        xy: NDArray[np.float32],
        radius: NDArray[np.float32],
    ) -> None:
        self.regions, self._xy, self._radius = regions, xy, radius
        self._pyramids = [_pyramid(sdata, region) for region in regions]
        self._numbers, self._rows = [], []
        for labels, rows in numbers:
            order = np.argsort(labels)
            self._numbers.append(labels[order])
            self._rows.append(rows[order])
        self._contrasts: dict[int, dict[str, float]] = {}
        self._cache: OrderedDict[tuple[int, ...], NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def levels(self, region: int) -> int:
        """Return the number of levels; at the last one a region is one tile."""
        return max(1, int(np.ceil(np.log2(max(self.regions[region].shape) / TILE))) + 1)

    def home(self, region: int) -> list[float] | None:
        """Return where to look first, x, y and width, where the whole would take long: a slide without a pyramid."""
        rows = self._rows[region]
        if self._pyramids[region] or not len(rows) or max(self.regions[region].shape) <= TILE << _DIRECT:
            return None
        middle = np.nanmedian(self._xy[rows], axis=0)
        x, y = self._xy[rows[np.nanargmin(np.abs(self._xy[rows] - middle).sum(axis=1))]].tolist()
        return [x, y, float(TILE << 2)]

    def contrast(self, channel: int) -> dict[str, float]:
        """Return where black, white, and the end of the scale are in the image's unit, the same in all regions."""
        if channel not in self._contrasts:
            drawn = self._sample(channel)
            low, high, most = np.quantile(drawn, [0.1, 0.998, 0.9999]).tolist() if drawn.size else (0.0, 0.0, 0.0)
            high = high if high > low else float(drawn.max(initial=low))
            high = high if high > low else low + 1
            self._contrasts[channel] = {"top": max(1.5 * most, 1.2 * high), "low": max(low, 0.0), "high": high}
        return self._contrasts[channel]

    def _sample(self, channel: int) -> NDArray:
        """Read windows around cells drawn at random, regions in turn."""
        rng, drawn = np.random.default_rng(0), []
        for number in range(_SAMPLES if len(self.regions) < _SAMPLES else len(self.regions)):
            at = number % len(self.regions)
            region, rows = self.regions[at], self._rows[at]
            centre = self._xy[rng.choice(rows)] if len(rows) else (region.shape[1] / 2, region.shape[0] / 2)
            drawn.append(region.read_image([channel], *self._window(at, centre, _SAMPLE)).ravel())
        values = np.concatenate(drawn)
        return values[np.isfinite(values)]

    def _window(self, region: int, centre: Sequence[float] | NDArray, side: int) -> tuple[slice, slice]:
        """Return a window of this side about a position (x, y), moved into the region."""
        spans = []
        for middle, extent in zip((centre[1], centre[0]), self.regions[region].shape, strict=True):
            start = max(0, min(int(middle) - side // 2, extent - side))
            spans.append(slice(start, min(start + side, extent)))
        return spans[0], spans[1]

    def image_tile(self, region: int, channel: int, level: int, row: int, col: int) -> NDArray[np.uint8]:
        """Return a tile of a channel, as the root of its share of the contrast's top, 0 to 255."""
        self._check(region, level, row, col)
        values = self._means(region, channel, level, row, col) / self.contrast(channel)["top"]
        return (255 * np.sqrt(np.clip(np.nan_to_num(values, nan=0.0), 0, 1)) + 0.5).astype(np.uint8)

    def cell_tile(self, region: int, level: int, row: int, col: int) -> NDArray[np.uint32]:
        """Return each pixel's row of the table plus one, 0 where there is no cell."""
        rows, cols = self._check(region, level, row, col)
        radius = self._radius[self._rows[region]]
        if level > _DIRECT or (radius.size and np.nanmedian(radius) < _SMALLEST * 2**level):
            return self._discs(region, level, rows, cols)
        step, found = 2**level, self._numbers[region]
        labels = self.regions[region].read_labels(rows, cols)[::step, ::step]
        if not len(found):
            return np.zeros(labels.shape, np.uint32)
        place = np.minimum(np.searchsorted(found, labels), len(found) - 1)
        return np.where((found[place] == labels) & (labels > 0), self._rows[region][place] + 1, 0).astype(np.uint32)

    def crop(self, row: int, region: int, channels: Sequence[int], um: float) -> bytes:
        """Return a PNG of a cell and what is around it: up to three channels as red, green and blue, one as grey."""
        if not 1 <= len(channels) <= 3 or not 5 <= um <= 500:
            raise ValueError("A crop shows one to three channels and 5 to 500 um.")
        place = self.regions[region]
        window = self._window(region, self._xy[row], max(8, round(um / place.pixel_size)))
        picture = np.zeros((3, _CROP, _CROP), np.uint8)
        for at, channel in enumerate(channels):
            contrast, pixels = self.contrast(channel), place.read_image([channel], *window)[0]
            share = (pixels.astype(np.float32) - contrast["low"]) / (contrast["high"] - contrast["low"])
            grey = Image.fromarray((255 * np.clip(np.nan_to_num(share, nan=0.0), 0, 1)).astype(np.uint8))
            shown = np.asarray(grey.resize((_CROP, _CROP), Image.Resampling.BILINEAR))
            picture[at if len(channels) > 1 else slice(None)] = shown
        (number,) = self._numbers[region][self._rows[region] == row][:1]
        inside = np.asarray(Image.fromarray(place.read_labels(*window) == number).resize((_CROP, _CROP)))
        padded = np.pad(inside, 1, mode="edge")
        kept = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        picture[:, inside & ~kept] = 255
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(file, "PNG")
        return file.getvalue()

    def _check(self, region: int, level: int, row: int, col: int) -> tuple[slice, slice]:
        """Return the window of a tile; an IndexError if there is no such tile."""
        if not 0 <= region < len(self.regions) or not 0 <= level < self.levels(region):
            raise IndexError(f"There is no region {region} with a level {level}.")
        side, (height, width) = TILE << level, self.regions[region].shape
        if not (0 <= row * side < height and 0 <= col * side < width):
            raise IndexError(f"There is no tile {row}, {col} at level {level} of region {region}.")
        return slice(row * side, min((row + 1) * side, height)), slice(col * side, min((col + 1) * side, width))

    def _means(self, region: int, channel: int, level: int, row: int, col: int) -> NDArray[np.float32]:
        """Return the means of a channel over the pixels of a tile; coarse ones are kept, up to a number of bytes."""
        rows, cols = self._check(region, level, row, col)
        coarse, key = level > _DIRECT, (region, channel, level, row, col)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        place = self.regions[region]
        if fit := [factor for factor in self._pyramids[region] if factor <= 2**level]:
            factor = max(fit)
            down, across = (slice(axis.start // factor, -(-axis.stop // factor)) for axis in (rows, cols))
            pixels = self._pyramids[region][factor].sel(c=place.channels[channel])[down, across]
            means = _mean(np.asarray(pixels.data.compute(scheduler="synchronous")), 2**level // factor)
        elif not coarse:
            means = _mean(place.read_image([channel], rows, cols)[0], 2**level)
        else:
            means = np.zeros([-(-(axis.stop - axis.start) // 2**level) for axis in (rows, cols)], np.float32)
            half = TILE // 2
            for y, x in product(range(0, means.shape[0], half), range(0, means.shape[1], half)):
                finer = 2 * row + y // half, 2 * col + x // half
                means[y : y + half, x : x + half] = _mean(self._means(region, channel, level - 1, *finer), 2)
        if coarse:
            with self._lock:
                self._cache[key] = means
                while sum(kept.nbytes for kept in self._cache.values()) > _CACHE:
                    self._cache.popitem(last=False)
        return means

    def _discs(self, region: int, level: int, rows: slice, cols: slice) -> NDArray[np.uint32]:
        """Draw cells as discs about their centres, so that no label of a slide is read."""
        shape = [-(-(axis.stop - axis.start) // 2**level) for axis in (rows, cols)]
        drawn, of_region = np.zeros(shape, np.uint32), self._rows[region]
        x, y = ((self._xy[of_region, axis] - start.start) / 2**level for axis, start in ((0, cols), (1, rows)))
        radius = self._radius[of_region] / 2**level
        near = (x > -radius) & (y > -radius) & (x < shape[1] + radius) & (y < shape[0] + radius)
        x, y, radius, cells = np.floor(x[near]), np.floor(y[near]), radius[near], of_region[near] + 1
        reach = int(min(np.max(radius, initial=0), 16))
        offsets = sorted(product(range(-reach, reach + 1), repeat=2), key=lambda off: -np.hypot(off[0], off[1]))
        # The nearest centre is drawn last.
        for down, across in offsets:
            inside = np.hypot(down, across) <= np.maximum(radius, 0)
            at_y, at_x = (y[inside] + down).astype(int), (x[inside] + across).astype(int)
            kept = (at_y >= 0) & (at_x >= 0) & (at_y < shape[0]) & (at_x < shape[1])
            drawn[at_y[kept], at_x[kept]] = cells[inside][kept]
        return drawn


def _pyramid(sdata: SpatialData, region: Region) -> dict[int, DataArray]:
    """Find the levels of an image that are coarser than the region's grid by powers of two, by that factor."""
    element, levels = sdata.images[region.image_key], {}
    for scale in element.children.values() if isinstance(element, DataTree) else ():
        (pixels,) = scale.ds.data_vars.values()
        factor = round(region.image_shape[0] / pixels.sizes["y"])
        whole = all(
            n // factor <= pixels.sizes[a] <= -(-n // factor) for a, n in zip("yx", region.image_shape, strict=True)
        )
        total = factor * region.image_repeat
        if factor > 1 and whole and total & (total - 1) == 0:
            names = [str(name) for name in pixels.coords["c"].values]
            levels[total] = pixels.transpose("c", "y", "x").assign_coords(c=names)
    return levels


def _mean(pixels: NDArray, step: int) -> NDArray[np.float32]:
    """Take means over squares of this side; those at the far edges may be smaller."""
    if step == 1:
        return pixels.astype(np.float32)
    for axis in (0, 1):
        starts = np.arange(0, pixels.shape[axis], step)
        sums = np.add.reduceat(pixels, starts, axis=axis, dtype=np.float32)
        counts = np.diff(np.append(starts, pixels.shape[axis])).astype(np.float32)
        pixels = sums / (counts[:, None] if axis == 0 else counts)
    return np.asarray(pixels, np.float32)
