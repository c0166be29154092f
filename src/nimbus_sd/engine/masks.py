"""Whether labels are cells, each with a number of its own, lie on the image, and reach as far as the signal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter
from scipy.stats import rankdata
from skimage.measure import label

from nimbus_sd._text import listed
from nimbus_sd.engine.checks import BadPixels, warn
from nimbus_sd.engine.tile import channel_groups
from nimbus_sd.pixels import numbered
from nimbus_sd.spatial import Region

# What is around cells: so many pixels, and um, at least.
_RING, _RING_UM = 6, 3.0
# On real tissue the best channel of every right mask is above, that of nearly all others below.
_BRIGHTER = 0.15
_SAMPLE = 30_000
# With fewer cells a few decide (on real tissue two right masks, of 14 and 21 cells, stayed below).
_SOME_CELLS = 30
# Where signal may lie that belongs to cells: of masks of nuclei, their membranes.
_AROUND_UM = 2.0
# On real tissue fewer than three in ten channels were so around whole cells, mostly more around eroded ones.
_DENSER, _NOTABLE = 1.2, 0.3
_SOME_PIXELS = 1000
# Cells in pieces occur; so many pieces, and so many a cell on average, or in one, do not.
_SOME_PARTS, _PARTS, _MANY_PARTS = 10, 5, 24


def check_masks(regions: Sequence[Region], side: int = 1024) -> None:
    """Check in a window of each region whether labels are cells (else a ValueError) and lie on the image.

    They do if cells are brighter than what is around them in any channel of the image, whether it is scored or not.
    """
    elsewhere = []
    for region in regions:
        # As they were given: grown cells are smooth, and have less around them.
        region = replace(region, grow=0.0)
        rows, cols = region.sample(side)
        labels = region.read_labels(rows, cols)
        if concern := _parts(labels, region):
            warn(concern)
        if _best_contrast(labels, region, rows, cols) < _BRIGHTER:
            elsewhere.append(region)
    if elsewhere:
        where = f"labels {listed(r.labels_key for r in elsewhere)} on image {listed(r.image_key for r in elsewhere)}"
        what = "in no channel are the cells brighter than what is around them"
        advice = "Is it of another image, or mirrored, transposed or shifted? Look at both before you believe a score."
        warn(f"The mask does not fit the image: {where}; {what}. {advice}")


def _parts(labels: NDArray[np.int64], region: Region) -> str | None:
    """Say which label covers many separate parts; a ValueError if that is what labels mostly do."""
    parts = label(labels, background=0, connectivity=2)
    first = np.unique(parts, return_index=True)[1]
    ids, cell = numbered(labels.ravel()[first])
    count = np.bincount(cell)[ids > 0]
    cure = "Give each cell a number of its own, as `skimage.measure.label(mask)` does where cells do not touch."
    if count.sum() >= max(_SOME_PARTS, _PARTS * len(count)):
        what = f"{len(count)} number(s) for {count.sum()} separate parts: a binary mask or a map of classes"
        raise ValueError(f"Labels {region.labels_key!r} hold {what}. {cure}")
    if not (many := ids[ids > 0][count >= _MANY_PARTS]).size:
        return None
    what = f"each cover {_MANY_PARTS} separate parts or more, which no cell does"
    return f"In labels {region.labels_key!r} number(s) {listed(many.tolist())} {what}. {cure}"


def _best_contrast(labels: NDArray[np.int64], region: Region, rows: slice, cols: slice) -> float:
    """Mean rank (0 to 1) of pixels in cells minus that of those around them, in the best channel.

    No more channels than needed are read. Infinite where too few cells, or only empty channels, cannot tell.
    """
    cells = labels > 0
    ring = maximum_filter(cells, 2 * max(_RING, round(_RING_UM / region.pixel_size)) + 1) & ~cells
    near = np.flatnonzero(cells | ring)
    near = np.random.default_rng(0).choice(near, min(_SAMPLE, len(near)), replace=False)
    inside = cells.ravel()[near]
    if len(np.unique(labels)) <= _SOME_CELLS or not min(inside.sum(), (~inside).sum()) >= 0.01 * _SAMPLE:
        return np.inf
    found, everything = [], region.with_all_channels()
    for channel in range(len(everything.channels)):
        # Those that are not scored need not be readable.
        with nullcontext() if channel < len(region.channels) else suppress(OSError):
            values = np.nan_to_num(everything.read_image([channel], rows, cols)[0].ravel()[near])
            if values.min() < values.max():
                rank = rankdata(values) / len(values)
                found.append(float(rank[inside].mean() - rank[~inside].mean()))
                if found[-1] >= _BRIGHTER:
                    break
    return max(found, default=np.inf)


def check_reach(regions: Sequence[Region], side: int = 1024, most: int = 4) -> None:
    """Warn where many channels have their signal around the cells, in a window of each of the first regions."""
    channels = regions[0].channels
    signal, area = np.zeros((2, len(channels))), np.zeros(2)
    for region in regions[:most]:
        rows, cols = region.sample(side)
        labels = region.read_labels(rows, cols)
        if len(np.unique(labels)) <= _SOME_CELLS:
            continue
        distance = distance_transform_edt(labels == 0) * region.pixel_size
        parts = distance == 0, (distance > 0) & (distance <= _AROUND_UM)
        far = distance > 2 * _AROUND_UM
        area += [part.sum() for part in parts]
        for group in channel_groups(len(channels), labels.size):
            images = BadPixels().clean(region.read_image(group, rows, cols), [channels[i] for i in group])
            for channel, values in zip(group, images.astype(np.float32), strict=True):
                background = np.median(values[far]) if far.sum() >= _SOME_PIXELS else np.quantile(values, 0.1)
                above = np.clip(values - background, 0, None)
                signal[:, channel] += [above[part].sum(dtype=np.float64) for part in parts]
    if not area.all():
        return
    share = signal[1] / np.maximum(signal.sum(axis=0), np.finfo(float).tiny)
    outside = np.flatnonzero((share > 0.5) & (signal[1] / area[1] > _DENSER * signal[0] / area[0]))
    if len(outside) and len(outside) >= _NOTABLE * len(channels):
        stated = ", ".join(f"{channels[i]!r} ({share[i]:.0%})" for i in outside[:8])
        where = f"outside the masks, within {_AROUND_UM:g} um of the cells, in channel(s) {stated}"
        warn(f"Most of the signal lies {where}. If these are nuclei, consider `grow`, such as {_AROUND_UM:g} um.")
