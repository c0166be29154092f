"""Runs the work: factors first, then a plan of tiles through the network, here or on a cluster, into per-cell sums."""

from nimbus_sd.engine.bad_pixels import BadPixels
from nimbus_sd.engine.checkpoint import Checkpoint
from nimbus_sd.engine.client import find_client
from nimbus_sd.engine.cluster import run_on_client
from nimbus_sd.engine.concerns import check_cell_size, check_cells, check_pixels
from nimbus_sd.engine.factors import block_count, measured_factors
from nimbus_sd.engine.given_factors import given_factors
from nimbus_sd.engine.inputs import described
from nimbus_sd.engine.local import run_here
from nimbus_sd.engine.maps import map_keys, score_map
from nimbus_sd.engine.plan import Plan, default_tile_size, model_grid
from nimbus_sd.engine.read import TileReader, groups, read_ahead
from nimbus_sd.engine.score import Memory, Runner, score

__all__ = [
    "BadPixels",
    "Checkpoint",
    "Memory",
    "Plan",
    "Runner",
    "TileReader",
    "block_count",
    "check_cell_size",
    "check_cells",
    "check_pixels",
    "default_tile_size",
    "described",
    "find_client",
    "given_factors",
    "groups",
    "map_keys",
    "measured_factors",
    "model_grid",
    "read_ahead",
    "run_here",
    "run_on_client",
    "score",
    "score_map",
]
