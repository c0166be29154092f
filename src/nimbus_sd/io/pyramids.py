"""Coarser copies of large images and labels, for viewers."""

from __future__ import annotations

from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from xarray import DataArray

#: Pixels a side above which elements get a pyramid, and below which its coarsest level is.
_LARGE, _SMALL = 4096, 1024
_CHUNK = 1024


def with_pyramids(sdata: SpatialData) -> SpatialData:
    """Give large images and labels levels of half the size each: means of images, nearest neighbours of labels."""
    for elements, model in ((sdata.images, Image2DModel), (sdata.labels, Labels2DModel)):
        for name, element in list(elements.items()):
            if isinstance(element, DataArray) and (side := max(element.sizes["y"], element.sizes["x"])) > _LARGE:
                levels = (side // _SMALL).bit_length()
                chunks = {axis: 1 if axis == "c" else _CHUNK for axis in element.dims}
                # Levels are numbered anew where channels are not named again.
                names = {"c_coords": element.coords["c"].values.tolist()} if "c" in element.dims else {}
                elements[name] = model.parse(element, scale_factors=[2] * levels, chunks=chunks, **names)
    return sdata
