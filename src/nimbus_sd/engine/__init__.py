"""Runs the work: factors first, then a plan of tiles through the network, here or on a cluster, into per-cell sums."""

from nimbus_sd.engine.checkpoint import Checkpoint as Checkpoint
from nimbus_sd.engine.checkpoint import Memory as Memory
from nimbus_sd.engine.checkpoint import add_resume_hint as add_resume_hint
from nimbus_sd.engine.checks import BadPixels as BadPixels
from nimbus_sd.engine.checks import check_cell_size as check_cell_size
from nimbus_sd.engine.checks import check_cells as check_cells
from nimbus_sd.engine.checks import check_pixels as check_pixels
from nimbus_sd.engine.cluster import find_client as find_client
from nimbus_sd.engine.cluster import find_runner as find_runner
from nimbus_sd.engine.factors import check_scales as check_scales
from nimbus_sd.engine.factors import find_factors as find_factors
from nimbus_sd.engine.maps import map_keys as map_keys
from nimbus_sd.engine.maps import score_map as score_map
from nimbus_sd.engine.masks import check_masks as check_masks
from nimbus_sd.engine.masks import check_reach as check_reach
from nimbus_sd.engine.plan import Plan as Plan
from nimbus_sd.engine.plan import describe_inputs as describe_inputs
from nimbus_sd.engine.plan import differences as differences
from nimbus_sd.engine.plan import find_tile_size as find_tile_size
from nimbus_sd.engine.plan import model_grid as model_grid
from nimbus_sd.engine.plan import provenance as provenance
from nimbus_sd.engine.run import score as score
from nimbus_sd.engine.tile import TileReader as TileReader
from nimbus_sd.engine.tile import channel_groups as channel_groups
from nimbus_sd.engine.tile import read_ahead as read_ahead
