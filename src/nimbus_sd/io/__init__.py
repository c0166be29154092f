"""Image files in, SpatialData out; tables into its store."""

from nimbus_sd.io.fovs import read_fovs
from nimbus_sd.io.tables import save_table

__all__ = ["read_fovs", "save_table"]
