"""Cells as polygons, from the GeoJSON files of QuPath and others."""

from __future__ import annotations

import json
from pathlib import Path

import shapely
from geopandas import GeoDataFrame

from nimbus_sd._geojson import class_of, properties_of, read_objects

# What QuPath calls a cell; annotations, such as the tissue's outline, are none.
_CELLS = ("cell", "detection")
_POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


def read_polygons(path: Path) -> GeoDataFrame:
    """Read polygons of cells, in pixels, with ids or numbers from 1 as index and their classes as ``class``."""
    objects = read_objects(path)
    kinds = [properties_of(feature).get("objectType") for feature in objects]
    # Files that are not from QuPath have no kinds.
    if any(kinds):
        objects = [feature for feature, kind in zip(objects, kinds, strict=True) if kind in _CELLS]
    try:
        geometry = shapely.from_geojson([json.dumps(feature.get("geometry")) for feature in objects])
    except shapely.errors.GEOSException as error:
        raise ValueError(f"{path} holds an object whose geometry is damaged: {error}") from error
    others = [shape.geom_type if shape else "none" for shape in geometry if shapely.get_type_id(shape) not in _POLYGONS]
    if others or not len(geometry):
        found = f"geometries of type {', '.join(sorted(set(others)))}" if others else f"none among {len(kinds)} objects"
        raise ValueError(f"Cells in {path} must be polygons; there are {found}. Export cells or detections.")
    ids = [str(feature.get("id", "")) for feature in objects]
    index = ids if all(ids) and len(set(ids)) == len(ids) else range(1, len(ids) + 1)
    return GeoDataFrame({"class": list(map(class_of, objects))}, geometry=geometry, index=index)
