"""What the pixels of each cell say beyond their mean, region by region and window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from nimbus_sd.pixels import DROPPED_BITS, LARGEST, Histogram, Outlines, cell_medians, channels_in_work, interior
from nimbus_sd.spatial.region import Region

_WINDOW = 2048
# A window's cells reach beyond it. What holds them is read at once unless a cell is larger than a window.
_BLOCK = 2 * _WINDOW
_GROUP_BYTES = 2**27

Window = tuple[slice, slice]


def windows(region: Region) -> list[Window]:
    """Cut a region into windows, row by row, which cover each pixel of the common grid once."""
    return list(_cut(slice(0, region.shape[0]), slice(0, region.shape[1]), _WINDOW))


def pixel_thresholds(regions: Sequence[Region], on_window: Callable[[], object]) -> NDArray[np.float64]:
    """Otsu's threshold of each channel over every pixel of all regions' images; a shared image counts once.

    Pixels that are negative, NaN or infinite count as 0. Where all pixels are the same, nothing is above: infinity. Of
    values counted in bins, it is the largest value of the lower class's last bin.
    ``on_window`` is called once a window, when all its channels have been counted.
    """
    dtypes = [region.dtype for region in regions]
    work = channels_in_work(Histogram(*dtypes), len(regions[0].channels))
    return np.concatenate([_thresholds(regions, channels, dtypes, on_window) for channels in work])


def _thresholds(
    regions: Sequence[Region], channels: range, dtypes: Sequence[np.dtype], on_window: Callable[[], object]
) -> NDArray[np.float64]:
    histograms = [Histogram(*dtypes) for _ in channels]
    pixels = 0
    for region in one_per_image(regions):
        for rows, cols in windows(region):
            area = (rows.stop - rows.start) * (cols.stop - cols.start)
            for group in _groups(len(channels), area):
                wanted = [channels[i] for i in group]
                for i, channel in zip(group, region.read_image(wanted, rows, cols), strict=True):
                    histograms[i].add(channel)
            pixels += area
            if channels.stop == len(region.channels):
                on_window()
    return np.array([_otsu(histogram, pixels) for histogram in histograms])


def one_per_image(regions: Sequence[Region]) -> list[Region]:
    """Keep the first region of each image."""
    return list({region.image_key: region for region in reversed(regions)}.values())[::-1]


def _otsu(histogram: Histogram, pixels: int) -> float:
    values, counts = histogram.bins()
    if zeros := pixels - histogram.total:
        values, counts = np.append(0.0, values), np.append(zeros, counts)
    if len(values) < 2:
        return np.inf
    cut = float(threshold_otsu(hist=(counts, values)))
    return cut if histogram.exact or cut == 0 else _end_of_bin(cut)


def _end_of_bin(middle: float) -> float:
    """Return the largest float32 in the bin: all of the bin belongs to the lower class, not its lower half alone."""
    bits = np.float32(middle).view(np.uint32)
    return float((bits | np.uint32((1 << DROPPED_BITS) - 1)).view(np.float32))


def read_outlines(region: Region, on_window: Callable[[], object]) -> Outlines:
    """Find the region's cells and their contacts."""
    outlines = Outlines()
    for rows, cols in windows(region):
        labels = region.read_labels(slice(rows.start, rows.stop + 1), slice(cols.start, cols.stop + 1))
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        outlines.add(labels, shape, (rows.start, cols.start))
        on_window()
    return outlines


def read_features(
    region: Region,
    ids: NDArray[np.int64],
    boxes: NDArray[np.int64],
    thresholds: NDArray[np.float64],
    on_window: Callable[[], object],
) -> NDArray[np.float32]:
    """Measure the pixels of each cell, in the window in which its bounding box starts.

    Parameters
    ----------
    region
        Image and labels.
    ids, boxes
        The n cells to measure, ids ascending, and their bounding boxes, as given by `Outlines.boxes`.
    thresholds
        Of the region's C channels.
    on_window
        Called after each window.

    Returns
    -------
    numpy.ndarray
        Shape (3, n, C): median, mean of the pixels that no other label touches (NaN if there is none), share of the
        pixels above the threshold.
    """
    n_channels = len(region.channels)
    features = np.full((3, len(ids), n_channels), np.nan, np.float32)
    for rows, cols in windows(region):
        here = (boxes[:, 0] >= rows.start) & (boxes[:, 0] < rows.stop)
        here &= (boxes[:, 1] >= cols.start) & (boxes[:, 1] < cols.stop)
        cells = np.flatnonzero(here)
        if cells.size:
            pixels = _CellPixels.read(region, ids[cells], _around(boxes[cells]))
            for group in _groups(n_channels, pixels.largest):
                for i, values in zip(group, pixels.values(region, group), strict=True):
                    features[:, cells, i] = pixels.features(values, thresholds[i])
        on_window()
    return features


@dataclass(frozen=True)
class _CellPixels:
    """All pixels of some cells, block by block.

    Parameters
    ----------
    n
        Number of cells.
    blocks
        Windows, each with the flat positions of the pixels in it.
    cell
        The cell of each pixel, shape (p,).
    inside
        Whether no other label touches the pixel, shape (p,).
    """

    n: int
    blocks: list[tuple[Window, NDArray[np.intp]]]
    cell: NDArray[np.intp]
    inside: NDArray[np.bool_]

    @classmethod
    def read(cls, region: Region, ids: NDArray[np.int64], window: Window) -> _CellPixels:
        """Find the pixels of cells (ids ascending) in a window that holds all of them."""
        blocks, cells, insides = [], [], []
        for rows, cols in _cut(*window, _BLOCK):
            # One pixel more on all sides, so that cells touching across a block's edge have their boundary there.
            top, left = max(0, rows.start - 1), max(0, cols.start - 1)
            labels = region.read_labels(slice(top, rows.stop + 1), slice(left, cols.stop + 1))
            block = (slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left))
            own, inner = labels[block].ravel(), interior(labels)[block].ravel()
            cell = np.minimum(np.searchsorted(ids, own), len(ids) - 1)
            pixels = np.flatnonzero(ids[cell] == own)
            blocks.append(((rows, cols), pixels))
            cells.append(cell[pixels])
            insides.append(inner[pixels])
        return cls(len(ids), blocks, np.concatenate(cells), np.concatenate(insides))

    @property
    def largest(self) -> int:
        """Number of pixels, of these cells or of the largest block, whichever is more."""
        areas = [(rows.stop - rows.start) * (cols.stop - cols.start) for (rows, cols), _ in self.blocks]
        return max(len(self.cell), *areas)

    def values(self, region: Region, channels: Sequence[int]) -> NDArray[np.float32]:
        """Read the pixels of some channels, shape (c, p); what is NaN or beyond ``LARGEST`` is 0."""
        parts = []
        for (rows, cols), pixels in self.blocks:
            image = region.read_image(channels, rows, cols).reshape(len(channels), -1)
            parts.append(image[:, pixels])
        with np.errstate(over="ignore"):
            values = np.concatenate(parts, axis=1).astype(np.float32)
        values[~(np.abs(values) < LARGEST)] = 0
        return values

    def features(self, values: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
        """Measure one channel, shape (3, n)."""
        inner, bright = self.cell[self.inside], self.cell[values > threshold]
        with np.errstate(invalid="ignore"):
            eroded = np.bincount(inner, values[self.inside], self.n) / np.bincount(inner, minlength=self.n)
        share = np.bincount(bright, minlength=self.n) / np.bincount(self.cell, minlength=self.n)
        return np.stack([cell_medians(self.cell, values, self.n), eroded, share])


def _around(boxes: NDArray[np.int64]) -> Window:
    """Bound bounding boxes."""
    top, left = boxes[:, :2].min(axis=0).tolist()
    bottom, right = boxes[:, 2:].max(axis=0).tolist()
    return slice(top, bottom), slice(left, right)


def _cut(rows: slice, cols: slice, side: int) -> Iterator[Window]:
    for top in range(rows.start, rows.stop, side):
        for left in range(cols.start, cols.stop, side):
            yield slice(top, min(top + side, rows.stop)), slice(left, min(left + side, cols.stop))


def _groups(n_channels: int, pixels: int) -> list[list[int]]:
    """Channels to read together."""
    size = max(1, _GROUP_BYTES // (4 * pixels))
    return [list(range(start, min(start + size, n_channels))) for start in range(0, n_channels, size)]
