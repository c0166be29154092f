"""Measurements of each cell beyond its mean intensity: its pixels, and the boundaries that it shares."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from tqdm.auto import tqdm

from nimbus_sd import keys

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from nimbus_sd.pixels import Outlines

logger = logging.getLogger("nimbus_sd")

_LAYERS = (keys.MEDIAN, keys.ERODED, keys.POSITIVE_PIXELS)
_PLACES = (
    *(f"layers/{key}" for key in _LAYERS),
    f"obs/{keys.PERIMETER}",
    f"obsp/{keys.BOUNDARY}",
    f"var/{keys.PIXEL_THRESHOLD}",
)


def cell_features(
    sdata: SpatialData,
    image_key: str | Sequence[str] | None = None,
    labels_key: str | Sequence[str] | None = None,
    *,
    table_key: str = "table",
    channels: Sequence[str] | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
    progress: bool = True,
) -> AnnData:
    """Measure the pixels of each cell and the boundaries that cells share, beyond what ``predict`` measures.

    These are baselines to compare scores with, and what :func:`nimbus_sd.metrics.confounders` needs for spill-over.
    Images are read window by window. The table is changed once everything is computed; nothing on disk changes.
    Results of an earlier call are replaced.

    Parameters
    ----------
    sdata
        Images (c, y, x) and labels (y, x) as for :func:`nimbus_sd.predict`, and its table.
    image_key, labels_key
        Names of an image and its cell labels, or lists of equal length. None for both takes the labels elements
        that the table has cells of, each with the one image that shares a coordinate system with it.
    table_key
        The table, joined on region and instance id. Cells without a row count as background of their neighbours.
    channels
        Names of the channels to measure. None takes those that are columns of the table.
    pixel_size
        um per image pixel, or a mapping from image to it; stored for radii in um. None finds it as ``predict`` does.
    progress
        Show a progress bar.

    Returns
    -------
    AnnData
        ``sdata.tables[table_key]``, in which is set, NaN for cells and channels not measured:

        - ``layers["median_expression"]``: median of the cell's pixels, float32
        - ``layers["eroded_expression"]``: mean of the cell's pixels that touch no other label (4-neighbourhood), so
          without its inner boundary, float32; NaN for cells that have none
        - ``layers["positive_pixels"]``: share of the cell's pixels above ``var["pixel_threshold"]``, float32
        - ``var["pixel_threshold"]``: Otsu's threshold of the channel, over every pixel of all the images together
          (of integers up to 16 bit exactly, else from bins of 6e-5 of the value); infinite where all pixels are the
          same
        - ``obsp["boundary"]``: symmetric CSR, float32: length of the boundary that two cells share, in pixel edges
          (4-neighbourhood) of image or labels, whichever is finer
        - ``obs["perimeter"]``: the cell's pixel edges to other cells or background, without the image's border, float64
        - ``uns["cell_features"]``: pixel sizes, version

        Pixels that are NaN or infinite count as 0 everywhere, negative ones for the threshold.

    Raises
    ------
    ValueError
        The table does not say which cells its rows are, is about other regions or channels, or has something else
        under one of these names; image and labels do not fit.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.tl.cell_features(sdata, channels=["CD3"], progress=False)
    >>> bool(adata.obsp["boundary"].max() < adata.obs["perimeter"].max())
    True
    """
    from nimbus_sd.spatial import (
        WRITING,
        count_windows,
        existing_table,
        matched,
        pixel_thresholds,
        read_features,
        read_outlines,
        regions_of_table,
    )

    table = existing_table(sdata, table_key, _PLACES)
    regions = regions_of_table(sdata, table_key, image_key, labels_key, channels, pixel_size)
    columns = table.var_names.get_indexer(regions[0].channels)

    layers = np.full((len(_LAYERS), *table.shape), np.nan, np.float32)
    perimeter = np.full(table.n_obs, np.nan)
    thresholds = np.full(table.n_vars, np.nan)
    contacts = []
    with tqdm(total=count_windows(regions), desc="Cell features", unit="window", disable=not progress) as bar:
        thresholds[columns] = pixel_thresholds(regions, bar.update)
        for region in regions:
            outlines = read_outlines(region, bar.update)
            ids, boxes = outlines.boxes()
            rows, source = matched(table, region.labels_key, ids)
            measured = read_features(region, ids[source], boxes[source], thresholds[columns], bar.update)
            layers[:, rows[:, None], columns] = measured
            perimeter[rows], (length, first, second) = _boundaries(outlines, ids[source])
            contacts.append((length, rows[first], rows[second]))
    boundary = _symmetric(contacts, table.n_obs)

    with WRITING:
        if sdata.tables.get(table_key) is not table:
            raise RuntimeError(f"Another thread replaced table {table_key!r} meanwhile; nothing was added. Call again.")
        for key, values in zip(_LAYERS, layers, strict=True):
            table.layers[key] = values
        table.obs[keys.PERIMETER] = perimeter
        table.obsp[keys.BOUNDARY] = boundary
        table.var[keys.PIXEL_THRESHOLD] = thresholds
        table.uns[keys.CELL_FEATURES] = {
            "pixel_size": {region.labels_key: region.pixel_size * region.image_repeat for region in regions},
            "version": version("nimbus-sd"),
            "wrote": sorted(_PLACES),
        }
    logger.info("added features of %d cells in %d channels", int(np.isfinite(perimeter).sum()), len(columns))
    return table


def _boundaries(outlines: Outlines, ids: NDArray[np.int64]) -> tuple[NDArray[np.float64], tuple[NDArray, ...]]:
    """Perimeters of cells, and lengths that pairs of them share, the pairs by their positions in the ids."""
    *pair, length = outlines.contacts()
    first, second = (pd.Index(ids).get_indexer(pd.Index(cell)) for cell in pair)
    perimeter = sum(np.bincount(cell[cell >= 0], length[cell >= 0], len(ids)) for cell in (first, second))
    both = (first >= 0) & (second >= 0)
    return np.asarray(perimeter, np.float64), (length[both], first[both], second[both])


def _symmetric(contacts: Sequence[tuple[NDArray, ...]], n: int) -> sparse.csr_matrix:
    """Join the regions' contacts, each pair in both directions."""
    length, first, second = (np.concatenate(part) for part in zip(*contacts, strict=True))
    pairs = (np.concatenate([first, second]), np.concatenate([second, first]))
    return sparse.csr_matrix((np.tile(length, 2).astype(np.float32), pairs), shape=(n, n))
