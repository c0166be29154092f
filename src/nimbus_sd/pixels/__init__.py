"""Pixels in, per-cell numbers out, in plain numpy: normalisation, interior, the model's grid, exact tiles, sums."""

from nimbus_sd.pixels.cells import CellSums as CellSums
from nimbus_sd.pixels.cells import Footprint as Footprint
from nimbus_sd.pixels.cells import Outlines as Outlines
from nimbus_sd.pixels.cells import cell_medians as cell_medians
from nimbus_sd.pixels.cells import numbered as numbered
from nimbus_sd.pixels.grid import BOUNDARY_UM as BOUNDARY_UM
from nimbus_sd.pixels.grid import Grid as Grid
from nimbus_sd.pixels.grid import Tile as Tile
from nimbus_sd.pixels.grid import interior as interior
from nimbus_sd.pixels.grid import overlapping_tiles as overlapping_tiles
from nimbus_sd.pixels.grid import resize_image as resize_image
from nimbus_sd.pixels.grid import resize_interior as resize_interior
from nimbus_sd.pixels.grid import resize_labels as resize_labels
from nimbus_sd.pixels.grid import tiles as tiles
from nimbus_sd.pixels.levels import LARGEST as LARGEST
from nimbus_sd.pixels.levels import OTSU_LEVELS as OTSU_LEVELS
from nimbus_sd.pixels.levels import SQUARE_UM as SQUARE_UM
from nimbus_sd.pixels.levels import Histogram as Histogram
from nimbus_sd.pixels.levels import channels_in_work as channels_in_work
from nimbus_sd.pixels.levels import normalize as normalize
from nimbus_sd.pixels.levels import square_means as square_means
