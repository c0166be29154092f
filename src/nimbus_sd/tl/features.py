"""Measurements of each cell beyond its mean intensity: its pixels, and the boundaries that it shares."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm.auto import tqdm

from nimbus_sd import keys

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger("nimbus_sd")

_LAYERS = (keys.MEDIAN, keys.ERODED, keys.POSITIVE_PIXELS)
_OTHERS = (f"obs/{keys.PERIMETER}", f"obsp/{keys.BOUNDARY}", f"var/{keys.PIXEL_THRESHOLD}")
_PLACES = (*(f"layers/{key}" for key in _LAYERS), *_OTHERS)


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
    The table is changed once everything is computed; nothing on disk changes.

    Parameters
    ----------
    sdata
        Images (c, y, x) and labels (y, x) as for :func:`nimbus_sd.predict`, and its table.
    image_key, labels_key
        Names of an image and its cell labels, or lists of equal length. None takes the labels that the table has
        cells of, each with the one image in its coordinate system.
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
        - ``layers["eroded_expression"]``: mean of the cell's pixels that touch no other label (4-neighbourhood),
          float32; NaN for cells that have none
        - ``layers["positive_pixels"]``: share of the cell's pixels above ``var["pixel_threshold"]``, float32
        - ``var["pixel_threshold"]``: Otsu's threshold of the channel, over all pixels of all images (exact for up to
          16 bit, else from bins of 6e-5 of the value); infinite where all pixels are the same
        - ``obsp["boundary"]``: symmetric CSR, float32: length of the boundary that two cells share, in pixel edges
          (4-neighbourhood) of image or labels, whichever is finer
        - ``obs["perimeter"]``: the cell's pixel edges to other cells or background, without the image's border, float64
        - ``uns["cell_features"]``: pixel sizes, version

        Pixels that are NaN or infinite count as 0 everywhere, negative ones for the threshold.

    Raises
    ------
    ValueError
        If table, image and labels do not fit, or the table has something else under one of these names.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.tl.cell_features(sdata, channels=["CD3"], progress=False)
    >>> bool(adata.obsp["boundary"].max() < adata.obs["perimeter"].max())
    True
    """
    from nimbus_sd import spatial

    table = spatial.existing_table(sdata, table_key, _PLACES)
    regions = spatial.regions_of_table(sdata, table_key, image_key, labels_key, channels, pixel_size)
    columns = table.var_names.get_indexer(regions[0].channels)

    layers = np.full((len(_LAYERS), *table.shape), np.nan, np.float32)
    perimeter = np.full(table.n_obs, np.nan)
    thresholds = np.full(table.n_vars, np.nan)
    contacts = []
    windows = spatial.count_windows(regions)
    with tqdm(total=windows, desc="Cell features", unit="window", disable=not progress) as bar:
        thresholds[columns] = spatial.pixel_thresholds(regions, bar.update)
        for region in regions:
            outlines = spatial.read_outlines(region, bar.update)
            ids, boxes = outlines.boxes()
            rows, source = spatial.matched(table, region, ids)
            ids, boxes = ids[source], boxes[source]
            measured = spatial.read_features(region, ids, boxes, thresholds[columns], bar.update)
            layers[:, rows[:, None], columns] = measured
            *cells, length = outlines.contacts()
            pair = np.stack([pd.Index(ids).get_indexer(pd.Index(cell)) for cell in cells])
            perimeter[rows] = sum(np.bincount(cell[cell >= 0], length[cell >= 0], len(ids)) for cell in pair)
            both = (pair >= 0).all(axis=0)
            contacts.append((length[both], *rows[pair[:, both]]))
    length, first, second = (np.concatenate(part) for part in zip(*contacts, strict=True))
    directions = np.concatenate([first, second]), np.concatenate([second, first])
    boundary = sparse.csr_matrix((np.tile(length, 2).astype(np.float32), directions), shape=(table.n_obs, table.n_obs))

    with spatial.WRITING:
        if sdata.tables.get(table_key) is not table:
            raise RuntimeError(f"Another thread replaced table {table_key!r} meanwhile; nothing was added. Call again.")
        for key, values in zip(_LAYERS, layers, strict=True):
            table.layers[key] = values
        table.obs[keys.PERIMETER] = perimeter
        table.obsp[keys.BOUNDARY] = boundary
        table.var[keys.PIXEL_THRESHOLD] = thresholds
        table.uns[keys.CELL_FEATURES] = {
            "pixel_size": {region.labels_key: region.pixel_size * region.image_repeat for region in regions},
            "image": {region.labels_key: region.image_key for region in regions},
            "grow": {region.labels_key: region.grow for region in regions},
            "version": version("nimbus-sd"),
            "wrote": sorted(_PLACES),
        }
    logger.info("added features of %d cells in %d channels", int(np.isfinite(perimeter).sum()), len(columns))
    return table
