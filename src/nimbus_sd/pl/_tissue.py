"""Cells where they lie: which row of the table a pixel is of, borders, and crops around a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.pl._panels import Crop, check_crop
from nimbus_sd.spatial import rows_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from nimbus_sd.spatial import Region

_OUTLINE = "#e69f00"
# Pixels a side; figures have fewer.
_MOST = 2500


@dataclass(frozen=True)
class Cells:
    """The cells of a crop, every ``step``-th pixel of it in each direction.

    Attributes
    ----------
    labels
        Shape (h, w), 0 = no cell.
    rows
        Row of the table for each pixel, shape (h, w); -1 for labels without one, and for 0.
    borders
        Pixels that have another cell to the right or below in the full image, shape (h, w).
    step
        1 for crops of up to 2,500 pixels a side.
    """

    labels: NDArray[np.int64]
    rows: NDArray[np.intp]
    borders: NDArray[np.bool_]
    step: int

    def draw(self, ax: Axes, pixels: NDArray, **style: Any) -> AxesImage:
        """Draw an image (h, w) or (h, w, 4) where the crop is, in its pixels."""
        height, width = (self.step * size - 0.5 for size in self.labels.shape)
        extent = (-0.5, width, height, -0.5)
        return ax.imshow(pixels, extent=extent, interpolation="nearest", **style)

    def draw_borders(self, ax: Axes) -> None:
        """Draw the borders between cells, one pixel wide."""
        from matplotlib.colors import ListedColormap

        if self.borders.any():
            self.draw(ax, np.ma.masked_equal(self.borders, 0), cmap=ListedColormap(["black"]), alpha=0.7)


def read_cells(adata: AnnData, region: Region, crop: Crop) -> Cells:
    """Read the cells of a crop, block by block; of a large crop every k-th pixel, more than a figure can show."""
    check_crop(crop)
    rows, ids = rows_of(adata, region.labels_key)
    bounds = [one.indices(size) for one, size in zip(crop, region.shape, strict=True)]
    if any(step != 1 for *_, step in bounds):
        raise ValueError(f"`crop` is {crop!r}; its slices must be without steps.")
    (top, bottom), (left, right) = ((start, max(start, stop)) for start, stop, _ in bounds)
    step = max(1, -(-max(bottom - top, right - left) // _MOST))
    labels = np.zeros((-(-(bottom - top) // step), -(-(right - left) // step)), np.int64)
    borders = np.zeros(labels.shape, bool)
    block = step * (_MOST // step)
    for y in range(top, bottom, block):
        for x in range(left, right, block):
            # One more row and column, as borders are towards them.
            window = (slice(y, min(y + block + 1, bottom)), slice(x, min(x + block + 1, right)))
            full = region.read_labels(*window)
            at = tuple(slice((i - first) // step, (i - first + block) // step) for i, first in ((y, top), (x, left)))
            labels[at] = full[:block:step, :block:step]
            borders[at] = _borders(full)[:block:step, :block:step]
    present, where = np.unique(labels, return_inverse=True)
    found = np.append(rows, -1)[pd.Index(ids).get_indexer(pd.Index(present))]
    return Cells(labels, found[where].reshape(labels.shape), borders, step)


def cut_by_edge(adata: AnnData, region: Region) -> NDArray[np.intp]:
    """Find the rows of the table whose cells touch the edge of the region."""
    whole, first, last = slice(None), slice(0, 1), [slice(size - 1, size) for size in region.shape]
    edges = ((first, whole), (last[0], whole), (whole, first), (whole, last[1]))
    rows, ids = rows_of(adata, region.labels_key)
    return rows[np.isin(ids, np.concatenate([np.unique(region.read_labels(*edge)) for edge in edges]))]


def crop_around(
    region: Region, instance: int, centre: tuple[float, float], width: int
) -> tuple[Crop, NDArray[np.bool_]]:
    """Give the crop around a place and where in it the cell is.

    Parameters
    ----------
    region
        The region.
    instance
        The cell.
    centre
        Its y and x in pixels of the image.
    width
        Side in pixels of the common grid. Cells at the image's edge are off-centre rather than in a smaller crop.

    Raises
    ------
    ValueError
        If the cell is not there.
    """
    top, left = (
        max(0, min(int(at * region.image_repeat) - width // 2, size - width))
        for at, size in zip(centre, region.shape, strict=True)
    )
    crop = (slice(top, top + width), slice(left, left + width))
    inside = region.read_labels(*crop) == instance
    if not inside.any():
        raise ValueError(
            f"Cell {instance} of {region.labels_key!r} is not around its place in obsm[{keys.SPATIAL!r}], "
            f"{centre[1]:g}, {centre[0]:g}; it must be x and y in pixels of the image {region.image_key!r}."
        )
    return crop, inside


def draw_outline(ax: Axes, inside: NDArray[np.bool_], color: str = _OUTLINE) -> None:
    """Draw a cell's outline, in orange by default."""
    ax.contour(inside, [0.5], colors=[color], linewidths=1.2)


def _borders(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the pixels that have another cell to the right or below: borders one pixel wide."""
    found = np.zeros(labels.shape, bool)
    for here, there, at in (
        (labels[:, :-1], labels[:, 1:], found[:, :-1]),
        (labels[:-1], labels[1:], found[:-1]),
    ):
        at |= (here != there) & (here > 0) & (there > 0)
    return found
