"""Runs the work: factors first, then a plan of tiles through the network, here or on a cluster, into per-cell sums."""

from nimbus_sd.engine.checkpoint import Checkpoint, Memory, add_resume_hint
from nimbus_sd.engine.checks import BadPixels, check_cell_size, check_cells, check_pixels
from nimbus_sd.engine.cluster import find_client, find_runner
from nimbus_sd.engine.factors import find_factors
from nimbus_sd.engine.maps import map_keys, score_map
from nimbus_sd.engine.plan import Plan, describe_inputs, differences, find_tile_size, model_grid, provenance
from nimbus_sd.engine.run import score
from nimbus_sd.engine.tile import TileReader, channel_groups, read_ahead

__all__ = [
    "BadPixels",
    "Checkpoint",
    "Memory",
    "Plan",
    "TileReader",
    "add_resume_hint",
    "channel_groups",
    "check_cell_size",
    "check_cells",
    "check_pixels",
    "describe_inputs",
    "differences",
    "find_client",
    "find_factors",
    "find_runner",
    "find_tile_size",
    "map_keys",
    "model_grid",
    "provenance",
    "read_ahead",
    "score",
    "score_map",
]
