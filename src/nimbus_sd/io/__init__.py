"""Image files in, SpatialData out."""

from nimbus_sd.io.fovs import read_fovs

__all__ = ["read_fovs"]
