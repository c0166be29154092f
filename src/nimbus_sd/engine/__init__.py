"""Runs the work: factors first, then a plan of tiles through the network, here or on a cluster, into per-cell sums."""

from nimbus_sd.engine.bad_pixels import BadPixels
from nimbus_sd.engine.checkpoint import Checkpoint
from nimbus_sd.engine.client import find_client, find_runner
from nimbus_sd.engine.concerns import check_cell_size, check_cells, check_pixels
from nimbus_sd.engine.factors import block_count, measured_factors
from nimbus_sd.engine.given_factors import given_factors
from nimbus_sd.engine.inputs import described, provenance
from nimbus_sd.engine.local import run_here
from nimbus_sd.engine.maps import map_keys, score_map
from nimbus_sd.engine.plan import Plan, find_tile_size, model_grid
from nimbus_sd.engine.read import TileReader, groups, read_ahead
from nimbus_sd.engine.score import Memory, Runner, add_resume_hint, score

__all__ = [
    "BadPixels",
    "Checkpoint",
    "Memory",
    "Plan",
    "Runner",
    "TileReader",
    "add_resume_hint",
    "block_count",
    "check_cell_size",
    "check_cells",
    "check_pixels",
    "described",
    "find_client",
    "find_runner",
    "find_tile_size",
    "given_factors",
    "groups",
    "map_keys",
    "measured_factors",
    "model_grid",
    "provenance",
    "read_ahead",
    "run_here",
    "score",
    "score_map",
]
