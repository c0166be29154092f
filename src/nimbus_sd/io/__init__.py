"""Image files in, SpatialData out; tables into its store, or as flat files."""

from nimbus_sd.io.cells import check_ending as check_ending
from nimbus_sd.io.cells import write_cells
from nimbus_sd.io.fovs import element_names as element_names
from nimbus_sd.io.fovs import find_fovs as find_fovs
from nimbus_sd.io.fovs import read_fovs
from nimbus_sd.io.pyramids import with_pyramids as with_pyramids
from nimbus_sd.io.tables import restore as restore
from nimbus_sd.io.tables import save_table
from nimbus_sd.io.tiff import before_ending as before_ending
from nimbus_sd.io.tiff import list_tiffs as list_tiffs
from nimbus_sd.io.tiff import stem as stem

__all__ = ["read_fovs", "save_table", "write_cells"]
