"""Per-cell sums of images and score maps, tile by tile, without ever scaling a map up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.pixels.numbering import numbered


@dataclass(frozen=True)
class Footprint:
    """The cells of a tile's core: which image pixels, and how much of which model pixels, are theirs.

    Made once per tile and used for every channel.

    Parameters
    ----------
    ids
        Labels in the core, ascending, shape (n,).
    geometry
        Shape (n, 3): number of image pixels, and sums of their centres' y and x in the region.
    pixels
        Flat image pixels of the core that belong to a cell, and ``pixel_cell``: the cell's position in ``ids``.
    model_pixels
        Flat model pixels of the core; ``model_cell`` and ``model_weight``: whose, and how many image pixels of the
        cell fall into it. Their sum is what averaging a score map enlarged by nearest neighbour would give.
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
        cls,
        labels: NDArray,
        rows: NDArray[np.int64],
        cols: NDArray[np.int64],
        width: int,
        origin: tuple[int, int] = (0, 0),
    ) -> Footprint:
        """Find the cells of a core.

        Parameters
        ----------
        labels
            Labels of the core's image pixels, shape (y, x).
        rows, cols
            Model row of each image row and model column of each image column, counted from the core's corner.
        width
            Width of the core in model pixels.
        origin
            Image row and column of the core's first pixel.
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
        weights = scores.ravel()[self.model_pixels] * self.model_weight
        return _sums(self.model_cell, weights, len(self.ids))


def _sums(cell: NDArray[np.int64], values: NDArray, n: int) -> NDArray[np.float64]:
    return np.bincount(cell, values, minlength=n).astype(np.float64, copy=False)


# Columns that are added up at a time: a cache line of float64.
_COLUMNS = 8
# Bytes of a block of rows, once there are as many. glibc keeps arrays of up to 32 MiB from the system after they are
# freed, which would add up.
_BLOCK = 2**26


class CellSums:
    """Sums over the cells of a region, added up tile by tile.

    Parameters
    ----------
    n_channels
        Number of channels.
    """

    def __init__(self, n_channels: int) -> None:
        self._n_channels = n_channels
        self._ids: list[NDArray] = []
        self._rows: list[NDArray[np.float64]] = []
        self._free = np.zeros((0, 3 + 2 * n_channels))
        self._n_rows = 0

    def add(
        self,
        ids: NDArray,
        geometry: NDArray[np.float64],
        expression: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Copy the sums of a tile's core: ``ids``, each once, and ``geometry`` of its footprint, the others (n, c)."""
        n, width = len(ids), self._free.shape[1]
        if len(self._free) < n:
            self._free = np.empty((max(n, min(self._n_rows, _BLOCK // (8 * width))), width))
        rows, self._free = self._free[:n], self._free[n:]
        np.concatenate([geometry, expression, scores], axis=1, out=rows)
        self._rows.append(rows)
        self._n_rows += n
        self._ids.append(ids.copy())

    def result(
        self,
    ) -> tuple[NDArray, NDArray[np.int64], NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Return ids (n,), areas in pixels (n,), centroids (n, 2) as y, x, mean intensity and mean score (n, c).

        Tiles are added up in float64, in the order in which they were given.
        """
        if not self._ids:
            empty = np.zeros((0, self._n_channels), np.float32)
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2)), empty, empty
        ids, cell = np.unique(np.concatenate(self._ids), return_inverse=True)
        geometry = self._total(slice(0, 3), cell, len(ids))
        area = geometry[:, :1]
        split = 3 + self._n_channels
        expression, scores = (self._means(range(start, start + self._n_channels), cell, area) for start in (3, split))
        return ids, area[:, 0].astype(np.int64), geometry[:, 1:] / area, expression, scores

    def _means(self, columns: range, cell: NDArray[np.intp], area: NDArray[np.float64]) -> NDArray[np.float32]:
        """Divide totals by areas, some columns at a time: of millions of cells, a copy in float64 takes gigabytes."""
        means = np.empty((len(area), len(columns)), np.float32)
        for first in range(0, len(columns), _COLUMNS):
            some = columns[first : first + _COLUMNS]
            total = self._total(slice(some.start, some.stop), cell, len(area))
            np.divide(total, area, out=total)
            means[:, first : first + _COLUMNS] = total
        return means

    def _total(self, columns: slice, cell: NDArray[np.intp], n: int) -> NDArray[np.float64]:
        """Add up the rows of all tiles; ``cell`` is where each of them belongs."""
        total, start = np.zeros((n, columns.stop - columns.start)), 0
        for rows in self._rows:
            # A cell is in a tile once.
            total[cell[start : start + len(rows)]] += rows[:, columns]
            start += len(rows)
        return total
