"""The only code that opens a SpatialData or writes into one: regions in, table out."""

from nimbus_sd.spatial.elements import check_spatialdata as check_spatialdata
from nimbus_sd.spatial.elements import is_micrometre as is_micrometre
from nimbus_sd.spatial.elements import not_found as not_found
from nimbus_sd.spatial.elements import plain_images as plain_images
from nimbus_sd.spatial.elements import sizes_fit as sizes_fit
from nimbus_sd.spatial.features import count_windows as count_windows
from nimbus_sd.spatial.features import pixel_thresholds as pixel_thresholds
from nimbus_sd.spatial.features import read_features as read_features
from nimbus_sd.spatial.features import read_outlines as read_outlines
from nimbus_sd.spatial.features import read_polygons as read_polygons
from nimbus_sd.spatial.reading import as_os_error as as_os_error
from nimbus_sd.spatial.reading import watched as watched
from nimbus_sd.spatial.region import Region as Region
from nimbus_sd.spatial.region import find_regions as find_regions
from nimbus_sd.spatial.region import unique_images as unique_images
from nimbus_sd.spatial.rows import check_keys as check_keys
from nimbus_sd.spatial.rows import check_rows as check_rows
from nimbus_sd.spatial.rows import dense as dense
from nimbus_sd.spatial.rows import existing_table as existing_table
from nimbus_sd.spatial.rows import matched as matched
from nimbus_sd.spatial.rows import new_table as new_table
from nimbus_sd.spatial.rows import regions_of_table as regions_of_table
from nimbus_sd.spatial.rows import rows_of as rows_of
from nimbus_sd.spatial.table import WRITING as WRITING
from nimbus_sd.spatial.table import RegionResult as RegionResult
from nimbus_sd.spatial.table import write_table as write_table
