"""Score maps as images that are computed when somebody reads them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale
from spatialdata.transformations import Sequence as Chain
from xarray import DataArray

from nimbus_sd._text import listed
from nimbus_sd.engine.checks import BadPixels, check_scores
from nimbus_sd.engine.plan import model_grid
from nimbus_sd.engine.tile import TileReader
from nimbus_sd.models import Scorer
from nimbus_sd.pixels import tiles
from nimbus_sd.spatial import Region, plain_images


def map_keys(sdata: SpatialData, regions: Sequence[Region], key_added: str, table_key: str) -> list[str]:
    """Name the score map of each region, ``<image>_<key_added>``; a ValueError if two are the same, or one is taken."""
    keys = [f"{region.image_key}_{key_added}" for region in regions]
    if len(set(keys)) < len(keys):
        shared = f"Score maps are named after the image, but images have several labels: {listed(keys)}"
        raise ValueError(f"{shared}. Call `predict` once for each labels element, with a `key_added` of its own.")
    old = set(sdata.images) - set(plain_images(sdata))
    elements = (sdata.images, sdata.labels, sdata.shapes, sdata.points, sdata.tables, (table_key,))
    others = {name.lower(): name for kind in elements for name in kind if name not in old & set(keys)}
    if taken := [others[key.lower()] for key in keys if key.lower() in others]:
        raise ValueError(f"There is an element {taken[0]!r} already, no score map; pass another `key_added`.")
    return keys


def score_map(region: Region, factors: NDArray[np.float64], scorer: Scorer, tile_size: int) -> DataArray:
    """Build the score map of a region, one chunk per tile and channel, none of them computed yet.

    Returns an image element (c, y, x), float32 in [0, 1], at the model's pixel size, placed like the region's image.
    Channels whose factor is NaN are NaN.
    """
    grid = model_grid(region, scorer.card)
    cut = {(tile.core[0].start, tile.core[1].start): tile for tile in tiles(grid, tile_size, scorer.card.halo)}
    rows, cols = ({tile.core[axis].start: tile.core[axis].stop for tile in cut.values()} for axis in (0, 1))
    sizes = tuple(tuple(stop - start for start, stop in sorted(axis.items())) for axis in (rows, cols))

    def tile_of(block_info: dict | None = None) -> NDArray[np.float32]:
        (channel, _), (top, bottom), (left, right) = block_info[None]["array-location"]  # type: ignore[index]
        if not factors[channel] > 0:
            return np.full((1, bottom - top, right - left), np.nan, np.float32)
        reader = TileReader.open(region, grid, cut[top, left])
        inputs, _ = reader.channels([channel], factors[[channel]], BadPixels())
        scores = scorer(inputs, reader.interior)
        check_scores(scores, region, [region.channels[channel]])
        return scores[(slice(None), *reader.tile.core_in_window)]

    # A name of our own, as dask would derive one from the network's weights.
    lazy = da.map_blocks(
        tile_of,
        name=f"score-map-{uuid4().hex}",
        chunks=((1,) * len(region.channels), *sizes),
        dtype=np.float32,
        meta=np.zeros((0, 0, 0), np.float32),
    )
    enlarged = Scale([1 / grid.scale, 1 / grid.scale], axes=("y", "x"))
    places = {system: Chain([enlarged, place]) for system, place in region.transformations.items()}
    return Image2DModel.parse(lazy, dims=("c", "y", "x"), c_coords=list(region.channels), transformations=places)
