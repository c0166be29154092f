"""Which regions belong into one split: those of one image or one patient, and those that are one under two names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
from anndata import AnnData
from scipy.cluster.hierarchy import DisjointSet

from nimbus_sd.spatial import Region

# Of the middle of a region, by which it is recognised; most images are not larger.
_SIDE = 1024


def groups_of(table: AnnData, regions: Sequence[Region], split_by: str | None) -> dict[str, str]:
    """Say what each region shares with others: its image, or the value of a column.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A region or an image has several values of it, or a region none.
    """
    if split_by is None:
        return {region.labels_key: region.image_key for region in regions}
    if split_by not in table.obs:
        raise KeyError(f"`obs` has no column {split_by!r}, which `split_by` names; it has {list(table.obs.columns)}.")
    region_key = table.uns["spatialdata_attrs"]["region_key"]
    groups: dict[str, str] = {}
    of_image: dict[str, str] = {}
    for region in regions:
        values = table.obs.loc[table.obs[region_key] == region.labels_key, split_by].dropna().unique()
        if len(values) != 1:
            raise ValueError(
                f"Region {region.labels_key!r} has {len(values)} values of obs[{split_by!r}] (`split_by`): "
                f"{sorted(map(str, values))[:5]}; a region needs exactly one."
            )
        value = groups[region.labels_key] = str(values[0])
        if of_image.setdefault(region.image_key, value) != value:
            raise ValueError(f"Image {region.image_key!r} has regions of several values of obs[{split_by!r}].")
    return groups


def marks_of(region: Region) -> set[str]:
    """Return SHA-256 of the masks and of each channel in the middle of a region; of what is constant there, none.

    Two regions that share one are of the same tissue, whatever they are called: pixels of two images are never equal.
    """
    rows, cols = (slice(max(0, (n - _SIDE) // 2), min(n, (n + _SIDE) // 2)) for n in region.shape)
    channels = (region.read_image([number], rows, cols) for number in range(len(region.channels)))
    layers = (region.read_labels(rows, cols), *channels)
    return {sha256(np.ascontiguousarray(one, np.float64).data).hexdigest() for one in layers if np.ptp(one)}


def joined(groups: Mapping[str, str], marks: Mapping[str, set[str]]) -> dict[str, str]:
    """Make one of the groups whose regions share a mark; it has the name of its first."""
    linked: DisjointSet = DisjointSet()
    for region, group in groups.items():
        # No mark is a tuple, so none is taken for a group.
        linked.add((group,))
        for mark in marks[region]:
            linked.add(mark)
            linked.merge((group,), mark)
    names: dict[str | tuple[str], str] = {}
    return {region: names.setdefault(linked[group,], group) for region, group in groups.items()}
