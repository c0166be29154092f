"""Cells where they lie: which row of the table a pixel is of, borders, and crops around a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.pl._panels import Crop, check_crop
from nimbus_sd.spatial.rows import rows_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from nimbus_sd.spatial import Region

_OUTLINE = "#e69f00"


def read_rows(adata: AnnData, region: Region, crop: Crop) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Read the labels of a crop and the row of the table for each pixel; -1 for labels without one, and for 0."""
    check_crop(crop)
    rows, ids = rows_of(adata, region.labels_key)
    labels = region.read_labels(*crop)
    present, where = np.unique(labels, return_inverse=True)
    found = np.append(rows, -1)[pd.Index(ids).get_indexer(pd.Index(present))]
    return labels, found[where].reshape(labels.shape)


def draw_borders(ax: Axes, labels: NDArray[np.int64]) -> None:
    """Draw the borders between cells, one pixel wide."""
    from matplotlib.colors import ListedColormap

    borders = np.ma.masked_equal(_borders(labels), 0)
    if borders.count():
        ax.imshow(borders, cmap=ListedColormap(["black"]), alpha=0.7, interpolation="nearest")


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
