"""Pixels in, per-cell numbers out, in plain numpy: normalisation, interior, the model's grid, exact tiles, sums."""

from nimbus_sd.pixels.grid import Grid, interior, resize_image, resize_labels
from nimbus_sd.pixels.medians import cell_medians
from nimbus_sd.pixels.numbering import numbered
from nimbus_sd.pixels.outlines import Outlines
from nimbus_sd.pixels.quantiles import DROPPED_BITS, LARGEST, Histogram, channels_in_work, normalize
from nimbus_sd.pixels.squares import OTSU_LEVELS, SQUARE_UM, square_means
from nimbus_sd.pixels.sums import CellSums, Footprint
from nimbus_sd.pixels.tiling import Tile, overlapping_tiles, tiles

__all__ = [
    "DROPPED_BITS",
    "LARGEST",
    "OTSU_LEVELS",
    "SQUARE_UM",
    "CellSums",
    "Footprint",
    "Grid",
    "Histogram",
    "Outlines",
    "Tile",
    "cell_medians",
    "channels_in_work",
    "interior",
    "normalize",
    "numbered",
    "overlapping_tiles",
    "resize_image",
    "resize_labels",
    "square_means",
    "tiles",
]
