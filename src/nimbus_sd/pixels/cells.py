"""Cells from the pixels of labels: numbers, medians, outlines, and sums tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SIGN = np.uint32(1 << 31)
# Columns that are added up at a time: a cache line of float64.
_COLUMNS = 8
# Bytes of a block of rows, once there are as many. glibc keeps arrays of up to 32 MiB from the system after they are
# freed, which would add up.
_BLOCK = 2**26


def numbered(labels: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Give labels (p,), none of them negative, numbers from 0 on, as ``numpy.unique`` but mostly without sorting.

    Returns the distinct labels, ascending, (n,), and where each label is among them, (p,).
    """
    top = int(labels.max()) if labels.size else 0
    # A table of all labels up to the largest, unless they are far apart.
    if top > 4 * labels.size:
        ids, number = np.unique(labels, return_inverse=True)
        return ids, number.astype(np.int64, copy=False)
    occurs = np.zeros(top + 1, bool)
    occurs[labels] = True
    number = np.cumsum(occurs, dtype=np.int64) - 1
    return np.flatnonzero(occurs).astype(labels.dtype, copy=False), number[labels]


def cell_medians(cell: NDArray[np.integer], values: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Median of the values of each of n cells, as by ``numpy.median``; NaN for a cell without a value.

    ``cell`` (p,) is the cell of each value, 0 to n - 1; ``values`` (p,) are finite.
    """
    # Cell and value in one integer, so that one plain sort orders both. The bits of floats are in the order of their
    # values once negative ones are turned around.
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    keys = (cell.astype(np.uint64) << np.uint64(32)) | np.where(bits & _SIGN, ~bits, bits | _SIGN)
    keys.sort()
    count = np.bincount(cell, minlength=n)
    stop, occupied = np.cumsum(count), count > 0
    start, count = (stop - count)[occupied], count[occupied]
    bits = keys[np.stack([start + (count - 1) // 2, start + count // 2])].astype(np.uint32)
    middle = np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float32).astype(np.float64)
    medians = np.full(n, np.nan, np.float32)
    medians[occupied] = (middle[0] + middle[1]) / 2
    return medians


class Outlines:
    """Bounding boxes and contacts of cells, to which windows are added in any order.

    A contact is a pixel edge between two pixels of different labels (4-neighbourhood). The edges of the region itself
    are none, since what lies beyond them is not known.
    """

    def __init__(self) -> None:
        self._boxes = [np.zeros((5, 0), np.int64)]
        self._contacts = [np.zeros((3, 0), np.int64)]

    def add(self, labels: NDArray[np.int64], shape: tuple[int, int], origin: tuple[int, int]) -> None:
        """Add a window; windows cover the region once.

        ``labels`` (y, x) hold one row and one column more than the window's ``shape`` where the region goes on there;
        ``origin`` is the row and column of the first pixel in the region.
        """
        height, width = shape
        window = labels[:height, :width]
        ids, number = numbered(window.ravel())
        objects = ndimage.find_objects(number.reshape(window.shape) + 1)
        corners = [(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in objects]
        boxes = np.array(corners, np.int64).reshape(-1, 4) + np.array(origin * 2)
        self._boxes.append(np.concatenate([ids[:, None], boxes], axis=1)[ids > 0].T)

        neighbours = (labels[:-1, :width], labels[1:, :width]), (labels[:height, :-1], labels[:height, 1:])
        edges = np.concatenate([np.stack(pair)[:, pair[0] != pair[1]] for pair in neighbours], axis=1)
        ids, code = np.unique(edges, return_inverse=True)
        code = np.sort(code.reshape(edges.shape), axis=0)
        pairs, counts = np.unique(code[0] * len(ids) + code[1], return_counts=True)
        smaller, larger = np.divmod(pairs, max(1, len(ids)))
        self._contacts.append(np.stack([ids[smaller], ids[larger], counts]))

    def boxes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids (n,), ascending, and bounding boxes (n, 4): top, left, bottom, right, the last two exclusive."""
        boxes = np.concatenate(self._boxes, axis=1)
        boxes = boxes[:, np.argsort(boxes[0], kind="stable")]
        ids, starts = np.unique(boxes[0], return_index=True)
        low, high = np.minimum.reduceat(boxes[1:3], starts, axis=1), np.maximum.reduceat(boxes[3:], starts, axis=1)
        return ids, np.concatenate([low, high]).T

    def contacts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs of labels, the smaller first (0: background), and their edges; a pair may come repeatedly."""
        first, second, length = np.concatenate(self._contacts, axis=1)
        return first, second, length


@dataclass(frozen=True)
class Footprint:
    """The cells of a tile's core: which image pixels, and how much of which model pixels, are theirs.

    Attributes
    ----------
    ids, geometry
        Labels in the core, ascending, (n,); number of image pixels and sums of their centres' y and x, (n, 3).
    pixels, pixel_cell
        Flat image pixels of the core that belong to a cell, and the cell's position in ``ids``.
    model_pixels, model_cell, model_weight
        Flat model pixels of the core, whose they are, and how many image pixels of the cell fall into each. Weighted
        sums are what averaging a score map enlarged by nearest neighbour would give.
    """

    ids: NDArray
    geometry: NDArray[np.float64]
    pixels: NDArray[np.int64]
    pixel_cell: NDArray[np.int64]
    model_pixels: NDArray[np.int64]
    model_cell: NDArray[np.int64]
    model_weight: NDArray[np.float64]

    @classmethod
    def of(
        cls, labels: NDArray, rows: NDArray, cols: NDArray, width: int, origin: tuple[int, int] = (0, 0)
    ) -> Footprint:
        """Find the cells of a core from the labels of its image pixels, shape (y, x).

        ``rows`` and ``cols`` are the model row of each image row and the model column of each image column, counted
        from the core's corner; ``width`` is the core's in model pixels; ``origin`` its first image row and column.
        """
        pixels = np.flatnonzero(labels)
        ids, pixel_cell = numbered(labels.ravel()[pixels])
        y, x = np.divmod(pixels, labels.shape[1])
        columns = (np.ones(len(pixels)), y + origin[0] + 0.5, x + origin[1] + 0.5)
        geometry = np.stack([_sums(pixel_cell, column, len(ids)) for column in columns], axis=1)
        model = rows[y] * width + cols[x]
        if all((np.diff(index) > 0).all() for index in (rows, cols)):
            # No model pixel has two image pixels.
            return cls(ids, geometry, pixels, pixel_cell, model, pixel_cell, np.ones(len(pixels)))
        span = int(model.max()) + 1 if model.size else 1
        pairs, counts = np.unique(pixel_cell * span + model, return_counts=True)
        model_cell, model_pixels = np.divmod(pairs, span)
        return cls(ids, geometry, pixels, pixel_cell, model_pixels, model_cell, counts.astype(np.float64))

    def sum_image(self, channel: NDArray) -> NDArray[np.float64]:
        """Sum of the core's image (y, x) over each cell."""
        return _sums(self.pixel_cell, channel.ravel()[self.pixels], len(self.ids))

    def sum_map(self, scores: NDArray) -> NDArray[np.float64]:
        """Sum of the core's score map (model y, x) over each cell's image pixels."""
        return _sums(self.model_cell, scores.ravel()[self.model_pixels] * self.model_weight, len(self.ids))


def _sums(cell: NDArray[np.int64], values: NDArray, n: int) -> NDArray[np.float64]:
    return np.bincount(cell, values, minlength=n).astype(np.float64, copy=False)


class CellSums:
    """Sums over the cells of a region in ``n_channels`` channels, added up tile by tile."""

    def __init__(self, n_channels: int) -> None:
        self._n_channels = n_channels
        self._ids = [np.zeros(0, np.int64)]
        self._rows: list[NDArray[np.float64]] = []
        self._free = np.zeros((0, 3 + 2 * n_channels))
        self._n_rows = 0

    def add(self, ids: NDArray[np.int64], geometry: NDArray, expression: NDArray, scores: NDArray) -> None:
        """Copy the sums of a tile's core: ``ids``, each once, and ``geometry`` of its footprint, the others (n, c)."""
        n, width = len(ids), self._free.shape[1]
        if len(self._free) < n:
            self._free = np.empty((max(n, min(self._n_rows, _BLOCK // (8 * width))), width))
        rows, self._free = self._free[:n], self._free[n:]
        np.concatenate([geometry, expression, scores], axis=1, out=rows)
        self._rows.append(rows)
        self._n_rows += n
        self._ids.append(ids.copy())

    def result(self) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
        """Return ids (n,), areas in pixels (n,), centroids (n, 2) as y, x, mean intensity and mean score (n, c).

        Tiles are added up in float64, in the order in which they were given.
        """
        ids, cell = np.unique(np.concatenate(self._ids), return_inverse=True)
        geometry = self._total(0, 3, cell, len(ids))
        area = geometry[:, :1]
        means = np.empty((2, len(ids), self._n_channels), np.float32)
        # Some columns at a time: of millions of cells, a copy in float64 takes gigabytes.
        for part, first in product(range(2), range(0, self._n_channels, _COLUMNS)):
            last, start = min(first + _COLUMNS, self._n_channels), 3 + part * self._n_channels
            total = self._total(start + first, start + last, cell, len(ids))
            means[part, :, first:last] = np.divide(total, area, out=total)
        return ids, area[:, 0].astype(np.int64), geometry[:, 1:] / area, means[0], means[1]

    def _total(self, first: int, last: int, cell: NDArray[np.intp], n: int) -> NDArray[np.float64]:
        """Add up columns of the rows of all tiles; ``cell`` is where each row belongs."""
        total, start = np.zeros((n, last - first)), 0
        for rows in self._rows:
            # A cell is in a tile once.
            total[cell[start : start + len(rows)]] += rows[:, first:last]
            start += len(rows)
        return total
