"""Outlines of cells as polygons, exactly along the pixels of their labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from nimbus_sd.spatial.features import read_outlines, windows
from nimbus_sd.spatial.region import Region

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


def read_polygons(region: Region, ids: NDArray[np.int64]) -> Iterator[tuple[int, BaseGeometry]]:
    """Yield the outline of each of these cells that the region has, window by window.

    Parameters
    ----------
    region
        Image and labels.
    ids
        The cells.

    Yields
    ------
    tuple
        A cell's id, and its pixels as a polygon (several where they do not hang together) in pixels of the image, x
        before y; the image's upper left corner is (0, 0).
    """
    found, boxes = read_outlines(region, lambda: None).boxes()
    wanted = np.isin(found, ids)
    found, boxes = found[wanted], boxes[wanted]
    for rows, cols in windows(region):
        here = (boxes[:, 0] >= rows.start) & (boxes[:, 0] < rows.stop)
        here &= (boxes[:, 1] >= cols.start) & (boxes[:, 1] < cols.stop)
        if not here.any():
            continue
        top, left = boxes[here, :2].min(axis=0)
        bottom, right = boxes[here, 2:].max(axis=0)
        labels = region.read_labels(slice(int(top), int(bottom)), slice(int(left), int(right)))
        for cell, (y0, x0, y1, x1) in zip(found[here], boxes[here], strict=True):
            mask = labels[y0 - top : y1 - top, x0 - left : x1 - left] == cell
            yield int(cell), _outline(mask, (y0, x0), region.image_repeat)


def _outline(mask: NDArray[np.bool_], origin: tuple[int, int], repeat: int) -> BaseGeometry:
    """Join the runs of pixels of each row; ``repeat`` pixels of the mask are one of the image."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(steps == 1)
    _, stop = np.nonzero(steps == -1)
    y, x = origin
    runs = shapely.box(*(side / repeat for side in (start + x, row + y, stop + x, row + y + 1)))
    # Corners that lie on a straight line are left out.
    return shapely.simplify(shapely.union_all(runs), 0)
