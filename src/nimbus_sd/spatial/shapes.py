"""Shapes (polygons and circles) as labels, drawn when a window of them is read."""

from __future__ import annotations

import math

import dask.array as da
import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame
from numpy.typing import NDArray

_CHUNK = 2048


def draw_labels(
    shapes: GeoDataFrame, matrix: NDArray[np.float64], size: tuple[int, int]
) -> tuple[da.Array, tuple[int, int]]:
    """Draw shapes as labels on the part of an image, of this size, that they lie on; also returns where that starts.

    Labels are int64, 0 = no cell, ``i`` = the shape in row ``i - 1``. A pixel belongs to the shape that holds its
    centre, and where several do, to the first of them. ``matrix`` leads from (y, x, 1) of the shapes to pixels of the
    image.
    """
    drawn = _Drawing(shapes, matrix, size)
    rows, cols = drawn.part()
    labels = da.from_array(drawn, _CHUNK, name=False, asarray=False, fancy=False)
    return labels[rows, cols], (rows.start, cols.start)


class _Drawing:
    """Labels of shapes as an array of which windows can be read, by any thread or process."""

    ndim, dtype = 2, np.dtype(np.int64)

    def __init__(self, shapes: GeoDataFrame, matrix: NDArray[np.float64], size: tuple[int, int]) -> None:
        self.shape, self._to_shapes = size, np.linalg.inv(matrix)
        self.geometry = shapes.geometry.to_numpy()
        points = shapely.get_type_id(self.geometry) == shapely.GeometryType.POINT
        #: Of circles, whose geometry is their centre; NaN for polygons.
        self.radius = np.where(points, shapes.get("radius", 0.0), np.nan)
        left, top, right, bottom = shapely.bounds(self.geometry).T + np.nan_to_num(self.radius) * [[-1], [-1], [1], [1]]
        # The image of a bounding box lies within that of its corners; empty shapes, whose box is NaN, have no pixel.
        corners = np.stack([[y, x, np.ones(len(y))] for y in (top, bottom) for x in (left, right)])
        rows, cols = np.moveaxis(np.einsum("ij,kjn->kin", matrix[:2], corners), 1, 0)
        self._first, self._last = (
            np.nan_to_num(np.stack([reduce(axis, axis=0) for axis in (rows, cols)]), nan=-1.0)
            for reduce in (np.min, np.max)
        )

    def part(self) -> tuple[slice, slice]:
        """Return the part of the image that shapes lie on."""
        on_image = ((self._last > 0) & (self._first < np.array(self.shape)[:, None])).all(axis=0)
        if not on_image.any():
            return slice(0, 0), slice(0, 0)
        spans = zip(self._first[:, on_image], self._last[:, on_image], self.shape, strict=True)
        rows, cols = (slice(max(0, int(a.min())), min(n, math.ceil(b.max()))) for a, b, n in spans)
        return rows, cols

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.int64]:
        spans = [axis.indices(extent)[:2] for axis, extent in zip(window, self.shape, strict=True)]
        start, stop = np.array(spans).T
        labels = np.zeros(np.maximum(stop - start, 0), np.int64)
        near = ((self._last > start[:, None]) & (self._first < stop[:, None])).all(axis=0)
        # The first shape last, so that it lies over the others.
        for row in np.flatnonzero(near)[::-1]:
            low = np.maximum(np.floor(self._first[:, row]).astype(np.int64), start)
            high = np.minimum(np.ceil(self._last[:, row]).astype(np.int64), stop)
            centres = np.mgrid[low[0] : high[0], low[1] : high[1]] + 0.5
            box = labels[tuple(slice(*span) for span in zip(low - start, high - start, strict=True))]
            box[self._holds(row, *centres)] = row + 1
        return labels

    def _holds(self, row: int, y: NDArray, x: NDArray) -> NDArray[np.bool_]:
        """Whether a shape holds points of the image."""
        (yy, yx, y0), (xy, xx, x0) = self._to_shapes[:2]
        y, x = yy * y + yx * x + y0, xy * y + xx * x + x0
        shape = self.geometry[row]
        if not np.isnan(self.radius[row]):
            return np.hypot(x - shape.x, y - shape.y) <= self.radius[row]
        return shapely.intersects_xy(shape, x, y)


def instance_ids(shapes: GeoDataFrame, key: str) -> pd.Index:
    """Return what a table calls each shape: its index, as whole numbers or text."""
    if not shapes.index.is_unique:
        twice = shapes.index[shapes.index.duplicated()][0]
        raise ValueError(f"Shapes {key!r} have several rows {str(twice)!r}; give each an index of its own.")
    # Larger numbers than a table can hold are text, too.
    whole = shapes.index.dtype.kind in "iu" and (shapes.index <= np.iinfo(np.int64).max).all()
    return shapes.index.astype(np.int64 if whole else str)
