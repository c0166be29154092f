"""Runs the work of a region: factors first, then tiles through the network into per-cell sums."""

from nimbus_sd.engine.concerns import check_cell_size, check_cells, check_pixels
from nimbus_sd.engine.factors import block_count, measured_factors
from nimbus_sd.engine.given_factors import given_factors
from nimbus_sd.engine.local import default_tile_size, score_region, tile_count
from nimbus_sd.engine.maps import map_keys, score_map
from nimbus_sd.engine.read import BadPixels

__all__ = [
    "BadPixels",
    "block_count",
    "check_cell_size",
    "check_cells",
    "check_pixels",
    "default_tile_size",
    "given_factors",
    "map_keys",
    "measured_factors",
    "score_map",
    "score_region",
    "tile_count",
]
