"""The only code that opens a SpatialData or writes into one: regions in, table out."""

from nimbus_sd.spatial.pairs import plain_images
from nimbus_sd.spatial.regions import Region, find_regions
from nimbus_sd.spatial.table import WRITING, RegionResult, check_keys, write_table
from nimbus_sd.spatial.watched import watched
from nimbus_sd.spatial.window import as_os_error

__all__ = [
    "WRITING",
    "Region",
    "RegionResult",
    "as_os_error",
    "check_keys",
    "find_regions",
    "plain_images",
    "watched",
    "write_table",
]
