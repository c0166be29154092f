"""Which region a picture shows, and axes for it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from nimbus_sd.spatial import Region, find_regions

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

Crop: TypeAlias = tuple[slice, slice]
WHOLE: Crop = (slice(None), slice(None))


def table_of(sdata: SpatialData, table_key: str) -> AnnData:
    """Give a table, or say what there is."""
    if not hasattr(sdata, "tables"):
        raise TypeError(f"This picture needs the tissue, a SpatialData, and was given {type(sdata).__name__}.")
    if table_key not in sdata.tables:
        raise KeyError(f"There is no table {table_key!r}; there are {list(sdata.tables)}. Run `predict` first.")
    return sdata.tables[table_key]


def region_of(
    sdata: SpatialData, channel: str | Sequence[str] | None, labels_key: str | None = None, image_key: str | None = None
) -> Region:
    """Find the region that a picture shows, with these channels or all, or say which regions there are."""
    if labels_key is None:
        if len(sdata.labels) != 1:
            raise ValueError(f"Which cells? Pass `labels_key`, one of {list(sdata.labels)}.")
        labels_key = next(iter(sdata.labels))
    with warnings.catch_warnings():
        # Nothing here depends on the pixel size, so nobody needs to hear that it is unknown.
        warnings.simplefilter("ignore", UserWarning)
        channels = [channel] if isinstance(channel, str) else channel
        return find_regions(sdata, image_key, labels_key, channels=channels)[0]


def check_crop(crop: object) -> None:
    """Raise a ValueError if this is not a slice of rows and one of columns."""
    if not isinstance(crop, tuple | list) or len(crop) != 2 or not all(isinstance(one, slice) for one in crop):
        raise ValueError(
            f"`crop` is {crop!r}; it must be two slices, of rows and of columns, as (slice(0, 100), slice(50, 200))."
        )


def panel(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure, without ticks."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    ax.set_xticks([])
    ax.set_yticks([])
    return ax
