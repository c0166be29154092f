"""The only code that opens a SpatialData or writes into one: regions in, table out."""

from nimbus_sd.spatial.elements import check_spatialdata, not_found, sizes_fit
from nimbus_sd.spatial.features import one_per_image, pixel_thresholds, read_features, read_outlines, windows
from nimbus_sd.spatial.join import existing_table, matched, regions_of_table
from nimbus_sd.spatial.pairs import plain_images
from nimbus_sd.spatial.polygons import read_polygons
from nimbus_sd.spatial.regions import Region, find_regions
from nimbus_sd.spatial.rows import annotation, dense, new_table, rows_of
from nimbus_sd.spatial.table import WRITING, RegionResult, check_keys, write_table
from nimbus_sd.spatial.table_checks import check_rows
from nimbus_sd.spatial.units import is_micrometre
from nimbus_sd.spatial.watched import watched
from nimbus_sd.spatial.window import as_os_error

__all__ = [
    "WRITING",
    "Region",
    "RegionResult",
    "annotation",
    "as_os_error",
    "check_keys",
    "check_rows",
    "check_spatialdata",
    "dense",
    "existing_table",
    "find_regions",
    "is_micrometre",
    "matched",
    "new_table",
    "not_found",
    "one_per_image",
    "pixel_thresholds",
    "plain_images",
    "read_features",
    "read_outlines",
    "read_polygons",
    "regions_of_table",
    "rows_of",
    "sizes_fit",
    "watched",
    "windows",
    "write_table",
]
