"""The regions that a table is about, as its calls noted them: images, pixel sizes, growth of cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from anndata import AnnData
from spatialdata import SpatialData

from nimbus_sd._table import noted_by_region
from nimbus_sd.spatial import elements
from nimbus_sd.spatial.elements import Names, PixelSize
from nimbus_sd.spatial.region import Region, find_regions
from nimbus_sd.spatial.rows import annotation, check_rows


def regions_of_table(
    sdata: SpatialData, table_key: str, image_key: Names, labels_key: Names, channels: Names, pixel_size: PixelSize
) -> list[Region]:
    """Find the regions and channels that a table is about, with the arguments and errors of `find_regions`.

    None for both keys takes the labels elements that the table names, None for ``channels`` the columns that the first
    image has, and None for ``pixel_size`` what is noted in the table. Cells are grown as it is noted there.
    """
    table, name = sdata.tables[table_key], f"Table {table_key!r}"
    if image_key is None and labels_key is None:
        labels_key = sorted(set(table.obs[annotation(table)[0]]) & set(elements.cell_elements(sdata))) or None
    pairs = elements.pair_elements(sdata, image_key or _noted_images(sdata, table, labels_key), labels_key)
    if channels is None:
        offered = elements.image_element(sdata, pairs[0][0])[1]
        channels = [channel for channel in offered if channel in table.var_names]
        if not channels:
            raise ValueError(f"{name} is of something else: none of its columns is one of the channels {offered}.")
    noted = _noted(table, pairs) | ({} if pixel_size is None else {"pixel_size": pixel_size})
    images, masks = zip(*pairs, strict=True)
    regions = find_regions(sdata, images, masks, channels=channels, **noted)
    if missing := [channel for channel in regions[0].channels if channel not in table.var_names]:
        raise elements.not_found("column", missing, table.var_names, f" in table {table_key!r}")
    check_rows(table, name, regions, "Run `nimbus_sd.predict` on these regions first", some=True)
    return regions


def region_of_table(
    sdata: SpatialData, table: AnnData | None, image_key: Names, labels_key: str, channels: Names = None
) -> Region:
    """Find a region with cells as those of the table, where there is one; without a word on the pixel size."""
    if table is not None:
        image_key = image_key or _noted_images(sdata, table, labels_key)
    pairs = elements.pair_elements(sdata, image_key, labels_key)
    noted = _noted(table, pairs) if table is not None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return find_regions(sdata, *pairs[0], channels=channels, **noted)[0]


def _noted_images(sdata: SpatialData, table: AnnData, labels_key: Names) -> list[str] | None:
    """Look up the images on which these labels were scored; None where that is not noted of all."""
    noted, wanted = noted_by_region(table, "image"), [labels_key] if isinstance(labels_key, str) else labels_key or []
    images = [str(noted.get(key)) for key in wanted]
    return images if images and all(image in sdata.images for image in images) else None


def _noted(table: AnnData, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Look up by what pixel size of images, and by what growth of cells, the table's cells were found."""
    sizes = noted_by_region(table, "pixel_size")
    return {
        "pixel_size": {image: sizes[labels] for image, labels in pairs if labels in sizes},
        "grow": noted_by_region(table, "grow"),
    }
