"""What the pixels of each cell say beyond their mean, and outlines of cells, region by region and window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from nimbus_sd.pixels import LARGEST, Histogram, Outlines, cell_medians, channels_in_work, interior
from nimbus_sd.spatial.region import Region, unique_images

_WINDOW = 2048
# A window's cells reach beyond it. What holds them is read at once unless a cell is larger than a window.
_BLOCK = 2 * _WINDOW
_GROUP_BYTES = 2**27

Window = tuple[slice, slice]


def count_windows(regions: Sequence[Region]) -> int:
    """Count the windows of regions in which pixel thresholds, outlines and features of all of them are read."""
    with_cells = sum(len(windows(region)) for region in regions)
    return sum(len(_all_windows(region)) for region in unique_images(regions)) + 2 * with_cells


def pixel_thresholds(regions: Sequence[Region], on_window: Callable[[], object]) -> NDArray[np.float64]:
    """Otsu's threshold of each channel over every pixel of all regions' images; a shared image counts once.

    Negative, NaN and infinite pixels count as 0; where all pixels are the same, nothing is above: infinity. Of values
    counted in bins, it is the largest value of the lower class's last bin. ``on_window`` is called once a window.
    """
    dtypes = [region.dtype for region in regions]
    thresholds = []
    for channels in channels_in_work(Histogram(*dtypes), len(regions[0].channels)):
        histograms = {channel: Histogram(*dtypes) for channel in channels}
        pixels = 0
        for region in unique_images(regions):
            for rows, cols in _all_windows(region):
                for group in _groups(channels, _area(rows, cols)):
                    for channel, image in zip(group, region.read_image(group, rows, cols), strict=True):
                        histograms[channel].add(image)
                pixels += _area(rows, cols)
                if channels.stop == len(region.channels):
                    on_window()
        thresholds += [_otsu(histogram, pixels) for histogram in histograms.values()]
    return np.array(thresholds)


def _otsu(histogram: Histogram, pixels: int) -> float:
    values, counts = histogram.bins()
    if zeros := pixels - histogram.total:
        values, counts = np.append(0.0, values), np.append(zeros, counts)
    if len(values) < 2:
        return np.inf
    # All of a bin belongs to the lower class, not its lower half alone.
    return histogram.end_of_bin(float(threshold_otsu(hist=(counts, values))))


def read_outlines(region: Region, on_window: Callable[[], object]) -> Outlines:
    """Find the region's cells and their contacts."""
    outlines = Outlines()
    for rows, cols in windows(region):
        labels = region.read_labels(slice(rows.start, rows.stop + 1), slice(cols.start, cols.stop + 1))
        outlines.add(labels, (rows.stop - rows.start, cols.stop - cols.start), (rows.start, cols.start))
        on_window()
    return outlines


def read_features(
    region: Region, ids: NDArray, boxes: NDArray, thresholds: NDArray, on_window: Callable[[], object]
) -> NDArray[np.float32]:
    """Measure the pixels of each cell, in the window in which its bounding box starts.

    ``ids`` (n,), ascending, and ``boxes`` (n, 4), as of `Outlines.boxes`, say which cells; ``thresholds`` (C,) are of
    the channels. Returns (3, n, C): median, mean of the pixels that no other label touches (NaN if there is none),
    share of the pixels above the threshold.
    """
    features = np.full((3, len(ids), len(region.channels)), np.nan, np.float32)
    for cells, around in _cells_by_window(region, boxes):
        if cells.size:
            blocks = list(_cut(*around, _BLOCK))
            parts = [_pixels_of(region, ids[cells], rows, cols) for rows, cols in blocks]
            cell, inside = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
            for group in _groups(range(len(region.channels)), max(len(cell), *(_area(*block) for block in blocks))):
                images = (region.read_image(group, rows, cols).reshape(len(group), -1) for rows, cols in blocks)
                read = [image[:, pixels] for image, (pixels, _, _) in zip(images, parts, strict=True)]
                with np.errstate(over="ignore"):
                    values = np.concatenate(read, axis=1).astype(np.float32)
                values[~(np.abs(values) < LARGEST)] = 0
                for i, channel in enumerate(group):
                    features[:, cells, channel] = _measured(values[i], thresholds[channel], cell, inside, len(cells))
        on_window()
    return features


def _pixels_of(region: Region, ids: NDArray[np.int64], rows: slice, cols: slice) -> tuple[NDArray, NDArray, NDArray]:
    """Find the pixels of cells in a block: where they are in it, whose, and whether no other label touches them."""
    # One pixel more on all sides, so that cells touching across the block's edge have their boundary there.
    top, left = max(0, rows.start - 1), max(0, cols.start - 1)
    labels = region.read_labels(slice(top, rows.stop + 1), slice(left, cols.stop + 1))
    block = (slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left))
    in_block = labels[block].ravel()
    cell = np.minimum(np.searchsorted(ids, in_block), len(ids) - 1)
    pixels = np.flatnonzero(ids[cell] == in_block)
    return pixels, cell[pixels], interior(labels)[block].ravel()[pixels]


def _measured(
    values: NDArray[np.float32], threshold: float, cell: NDArray[np.intp], inside: NDArray[np.bool_], n: int
) -> NDArray[np.float64]:
    """Measure one channel of n cells, shape (3, n), from their pixels (p,): values, whose, and if in the interior."""
    inner = cell[inside]
    with np.errstate(invalid="ignore"):
        eroded = np.bincount(inner, values[inside], n) / np.bincount(inner, minlength=n)
    share = np.bincount(cell[values > threshold], minlength=n) / np.bincount(cell, minlength=n)
    return np.stack([cell_medians(cell, values, n), eroded, share])


def read_polygons(region: Region, ids: NDArray[np.int64]) -> Iterator[tuple[int, shapely.Geometry]]:
    """Yield the id and outline of each of these cells that the region has, window by window.

    An outline is a polygon (several where pixels do not hang together) in pixels of the image, x before y; the image's
    upper left corner is (0, 0).
    """
    all_ids, boxes = read_outlines(region, lambda: None).boxes()
    wanted = np.isin(all_ids, ids)
    ids, boxes = all_ids[wanted], boxes[wanted]
    for cells, (rows, cols) in _cells_by_window(region, boxes):
        labels = region.read_labels(rows, cols)
        for cell, (top, left, bottom, right) in zip(ids[cells], boxes[cells], strict=True):
            box = labels[top - rows.start : bottom - rows.start, left - cols.start : right - cols.start]
            yield int(cell), _outline(box == cell, (top, left), region.image_repeat)


def _outline(mask: NDArray[np.bool_], origin: tuple[int, int], repeat: int) -> shapely.Geometry:
    """Join the runs of pixels of each row; ``repeat`` pixels of the mask are one of the image."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(steps == 1)
    stop = np.nonzero(steps == -1)[1]
    y, x = origin
    runs = shapely.box(*(side / repeat for side in (start + x, row + y, stop + x, row + y + 1)))
    # Corners that lie on a straight line are left out.
    return shapely.simplify(shapely.union_all(runs), 0)


def _cells_by_window(region: Region, boxes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.intp], Window]]:
    """Yield the cells whose bounding box starts in each window, and the window around them, empty without a cell."""
    for rows, cols in windows(region):
        here = (boxes[:, 0] >= rows.start) & (boxes[:, 0] < rows.stop)
        cells = np.flatnonzero(here & (boxes[:, 1] >= cols.start) & (boxes[:, 1] < cols.stop))
        top, left = boxes[cells, :2].min(axis=0, initial=2**62).tolist()
        bottom, right = boxes[cells, 2:].max(axis=0, initial=0).tolist()
        yield cells, (slice(top, bottom), slice(left, right))


def _all_windows(region: Region) -> list[Window]:
    """Cut a region into windows, row by row, which cover each pixel of the common grid once."""
    return list(_cut(slice(0, region.shape[0]), slice(0, region.shape[1]), _WINDOW))


def windows(region: Region) -> list[Window]:
    """Return the windows that labels reach into."""
    return [window for window in _all_windows(region) if region.reaches(*window)]


def _cut(rows: slice, cols: slice, side: int) -> Iterator[Window]:
    for top in range(rows.start, rows.stop, side):
        for left in range(cols.start, cols.stop, side):
            yield slice(top, min(top + side, rows.stop)), slice(left, min(left + side, cols.stop))


def _area(rows: slice, cols: slice) -> int:
    return (rows.stop - rows.start) * (cols.stop - cols.start)


def _groups(channels: range, pixels: int) -> Iterator[range]:
    """Channels to read together."""
    size = max(1, _GROUP_BYTES // (4 * pixels))
    return (channels[start : start + size] for start in range(0, len(channels), size))
