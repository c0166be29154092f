"""Pixels, cells and scores that are not what they should be: counted, warned of, refused."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nimbus_sd._text import listed
from nimbus_sd.pixels import LARGEST, numbered
from nimbus_sd.spatial import Region, RegionResult

_PLAUSIBLE_DIAMETER = (4.0, 40.0)
_POSSIBLE_DIAMETER = (0.4, 400.0)
_TYPICAL_DIAMETER = 10.0
# Fewer, such as one label for all of a tissue, say nothing of the typical cell.
_SOME_CELLS = 10


@dataclass
class BadPixels:
    """Pixels, per channel, that are not what an image should hold; the caller warns once about all of them."""

    not_finite: Counter[str] = field(default_factory=Counter)
    negative: Counter[str] = field(default_factory=Counter)

    def clean(
        self, image: NDArray, names: Sequence[str], core: tuple[slice, slice] = (slice(None), slice(None))
    ) -> NDArray:
        """Replace NaN and what is not below ``LARGEST`` by 0, in a copy; count it, and negative values, in the core."""
        if image.dtype.kind in "ub":
            return image
        if image.dtype.kind == "f":
            finite = np.abs(image) < LARGEST
            if not finite.all():
                image = np.where(finite, image, image.dtype.type(0))
                self.not_finite.update(_counts(~finite, names, core))
        self.negative.update(_counts(image < 0, names, core))
        return image

    def add(self, names: Sequence[str], not_finite: NDArray[np.int64], negative: NDArray[np.int64]) -> None:
        """Add counts, one per channel."""
        self.not_finite.update(dict(zip(names, not_finite.tolist(), strict=True)))
        self.negative.update(dict(zip(names, negative.tolist(), strict=True)))


def check_cell_size(regions: Sequence[Region], side: int = 2048, most: int = 4) -> None:
    """Check, before the long work, each pixel size against cells of its first regions.

    A median cell of an implausible size is warned of, of an impossible one (the unit must be another) a ValueError.
    """
    by_size: dict[float, list[Region]] = {}
    for region in regions:
        by_size.setdefault(region.pixel_size * region.image_repeat, []).append(region)
    for stated, alike in by_size.items():
        cells = np.concatenate([_areas(region, side) for region in alike[:most]])
        if not len(cells):
            continue
        diameter = float(2 * np.sqrt(np.median(cells) / np.pi))
        cell = f"the median cell of {alike[0].labels_key!r} is {diameter:.3g} um wide"
        described = f"With a pixel size of {stated:g} um {cell}, which is"
        typical = f"{stated * _TYPICAL_DIAMETER / diameter:.2g} um would make it {_TYPICAL_DIAMETER:g} um"
        advice = f"A pixel size of about {typical}: pass the right one, in um, as `pixel_size`."
        low, high = _POSSIBLE_DIAMETER
        if not low <= diameter <= high and len(cells) >= _SOME_CELLS:
            raise ValueError(f"{described} no cell (below {low:g} or above {high:g}). {advice}")
        low, high = _PLAUSIBLE_DIAMETER
        if not low <= diameter <= high:
            warn(f"{described} implausible (below {low:g} or above {high:g}). {advice}")


def _areas(region: Region, side: int) -> NDArray[np.float64]:
    """Areas in um^2 of the cells in a window of a region."""
    labels = region.read_labels(*region.sample(side))
    _, cell = numbered(labels[labels > 0])
    return np.bincount(cell).astype(np.float64) * region.pixel_size**2


def check_scores(maps: NDArray[np.float32], region: Region, channels: Sequence[str]) -> None:
    """Raise a ValueError, with channels and region, if score maps (c, y, x) are not finite."""
    if wrong := [name for name, scores in zip(channels, maps, strict=True) if not np.isfinite(scores).all()]:
        where = f"channel(s) {listed(wrong)} in labels {region.labels_key!r} on image {region.image_key!r}"
        raise ValueError(f"The model overflows: its scores of {where} are not numbers. Pass another `model`.")


def check_pixels(bad: BadPixels) -> None:
    """Warn of pixels that are not what an image should hold."""
    for counts, what, done in (
        (bad.not_finite, "NaN, infinite or enormous (above 1e30)", "they were taken as 0"),
        (bad.negative, "negative", "they count as 0 for the scores and as they are for the mean intensity"),
    ):
        named = ", ".join(f"{name!r} ({count} pixels)" for name, count in counts.items() if count)
        if named:
            warn(f"There are {what} pixels in channel(s) {named}; {done}.")


def check_cells(results: Sequence[RegionResult]) -> None:
    """Warn of regions without a cell, and of cells that the network cannot see; a ValueError if there is no cell."""
    without = listed(result.region.labels_key for result in results if not len(result.ids))
    if not any(len(result.ids) for result in results):
        raise ValueError(f"No cell in labels {without}: all pixels are 0. Is this the right element?")
    if without:
        warn(f"No cell in labels {without}.")
    if lost := sum(len(r.region.instances) - len(r.ids) for r in results if r.region.instances is not None):
        warn(f"{lost} shape(s) have no row: they hold no pixel's centre, or lie beneath other shapes or off the image.")
    if too_small := sum(result.too_small for result in results):
        cells = f"{too_small} of {sum(len(result.ids) for result in results)} cells"
        warn(f"{cells} are so small that no pixel is left inside them at the model's pixel size; doubt their scores.")


def warn(message: str) -> None:
    """Warn at the line that calls `predict`, from a function that `predict` calls."""
    warnings.warn(message, UserWarning, stacklevel=4)


def _counts(flags: NDArray[np.bool_], names: Sequence[str], core: tuple[slice, slice]) -> dict[str, int]:
    return {name: int(np.count_nonzero(channel[core])) for name, channel in zip(names, flags, strict=True)}
