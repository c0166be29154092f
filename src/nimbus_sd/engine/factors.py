"""Normalisation factors, measured without sampling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd.engine.bad_pixels import BadPixels
from nimbus_sd.engine.read import GROUP_BYTES
from nimbus_sd.models import Card
from nimbus_sd.pixels import LARGEST, OTSU_LEVELS, SQUARE_UM, Histogram, channels_in_work, square_means
from nimbus_sd.spatial import Region

FACTOR = "factor"
_BLOCK = 2048
_ALL = "all images"
# With fewer squares a few bright cells, or the lack of some, decide.
_FEW_SQUARES = 50


def blocks(region: Region, side: int = 1) -> Iterator[tuple[slice, slice]]:
    """Cut a region's image into windows to read, each at most ``_BLOCK`` image pixels wide and whole squares."""
    (height, width), repeat = region.image_shape, region.image_repeat
    block = max(_BLOCK // side, 1) * side
    for top in range(0, height, block):
        for left in range(0, width, block):
            corners = (top, min(top + block, height)), (left, min(left + block, width))
            rows, cols = (slice(start * repeat, stop * repeat) for start, stop in corners)
            yield rows, cols


def block_count(regions: Sequence[Region], card: Card) -> int:
    """Count the windows that :func:`measured_factors` reads."""
    per_group = sum(1 for region, side in _to_read(regions, card) for _ in blocks(region, side or 1))
    return per_group * len(_in_work(regions, card))


def measured_factors(
    regions: Sequence[Region], card: Card, bad: BadPixels, on_block: Callable[[], object]
) -> pd.DataFrame:
    """Level of each channel that becomes 1, from all pixels of all images that the card's rule counts.

    Parameters
    ----------
    regions
        What will be scored; all have the same channels.
    card
        States the rule and its quantile (:class:`~nimbus_sd.models.Card`). Images without a positive pixel are left
        out of a mean.
    bad
        Where bad pixels are counted.
    on_block
        Called after each window read.

    Returns
    -------
    DataFrame channels x (one column per labels element, then ``"factor"``); NaN where no pixel is positive. By
    quantiles, an image with several labels elements counts once.

    Raises
    ------
    ValueError
        A factor is so small or large that intensities cannot be divided by it.

    Warns
    -----
    UserWarning
        Names channels without a positive pixel, and those whose factor rests on a handful of pixels or cells.
    """
    channels = regions[0].channels
    parts = [_measured(regions, card, group, bad, on_block) for group in _in_work(regions, card)]
    own, counts = (pd.concat(tables) for tables in zip(*parts, strict=True))
    for concern in _concerns(counts, card):
        warn(concern)
    keys = own.columns
    table = pd.DataFrame({r.labels_key: own[r.labels_key if r.labels_key in keys else r.image_key] for r in regions})
    table[FACTOR] = own[FACTOR]
    check_range(table)
    return table.set_index(pd.Index(channels, name="channel"))


def check_range(factors: pd.DataFrame) -> None:
    """Refuse factors by which float32 cannot divide.

    Parameters
    ----------
    factors
        Channels x (one column per region, where measured, then ``"factor"``); 0 and NaN: none.

    Raises
    ------
    ValueError
        Names channels and regions.
    """
    beyond = (factors != 0) & factors.notna() & ~factors.ge(1 / LARGEST) | factors.gt(LARGEST)
    if (wrong := beyond[FACTOR]).any():
        regions = [str(key) for key in factors.columns[beyond.any()] if key != FACTOR]
        stated = [f"{name!r} ({factor:.3g})" for name, factor in factors.loc[wrong, FACTOR].items()]
        raise ValueError(
            f"The normalisation factor of channel(s) {some(stated)} is not between 1e-30 and 1e30"
            f"{f', as measured in {names(regions)}' if regions else ''}: no intensity can be divided by it. Rescale "
            "the pixels of the image, pass other factors as `normalization`, or leave the channel out of `channels`."
        )


def _in_work(regions: Sequence[Region], card: Card) -> list[range]:
    """Cut the channels into groups that are measured together."""
    return channels_in_work(_histogram(card, [region.dtype for region in regions]), len(regions[0].channels))


def _measured(
    regions: Sequence[Region], card: Card, group: range, bad: BadPixels, on_block: Callable[[], object]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Levels of some channels in each region or image, with the factors, and the number of values counted."""
    dtypes = [region.dtype for region in regions]
    pooling = card.rule != "mean_of_regions"
    pooled = [_histogram(card, dtypes) for _ in group] if pooling else []
    index = [regions[0].channels[i] for i in group]
    own, counts = pd.DataFrame(index=index), pd.DataFrame(index=index)
    seen: set[str] = set()
    for region, side in _to_read(regions, card):
        # One region's histograms at a time, so that memory does not grow with the number of regions.
        histograms = {i: _histogram(card, dtypes if pooling else [region.dtype]) for i in group}
        faults = BadPixels() if region.image_key in seen else bad
        seen.add(region.image_key)
        for rows, cols in blocks(region, side or 1):
            _count(region, rows, cols, side, histograms, faults)
            on_block()
        key = region.labels_key if side else region.image_key
        own[key] = [_level(histogram, card) for histogram in histograms.values()]
        counts[key] = [histogram.total for histogram in histograms.values()]
        for total, histogram in zip(pooled, histograms.values(), strict=False):
            total.update(histogram)
    own[FACTOR] = [_level(total, card) for total in pooled] if pooling else own.mean(axis=1)
    return own, pd.DataFrame({_ALL: counts.sum(axis=1)}) if pooling else counts


def _to_read(regions: Sequence[Region], card: Card) -> list[tuple[Region, int]]:
    """Regions to read, each with the side of its squares in image pixels; 0 where all pixels count."""
    if card.rule != "otsu":
        return [(region, 0) for region in one_per_image(regions)]
    return [(r, max(1, round(SQUARE_UM / (r.pixel_size * r.image_repeat)))) for r in regions]


def _histogram(card: Card, dtypes: Sequence[np.dtype]) -> Histogram:
    return Histogram(np.dtype(np.float32)) if card.rule == "otsu" else Histogram(*dtypes)


def _level(histogram: Histogram, card: Card) -> float:
    return OTSU_LEVELS * histogram.otsu() if card.quantile is None else histogram.quantile(card.quantile)


def _count(
    region: Region, rows: slice, cols: slice, side: int, histograms: Mapping[int, Histogram], bad: BadPixels
) -> None:
    """Add a window to each channel's histogram: its pixels, or its squares where they have a side."""
    step = region.image_repeat
    inside = region.read_labels(rows, cols)[::step, ::step] > 0 if side else None
    for group, pixels in read(region, list(histograms), rows, cols):
        pixels = bad.clean(pixels, [region.channels[i] for i in group])
        values = pixels if inside is None else square_means(pixels, inside, side)
        for i, channel in zip(group, values, strict=True):
            histograms[i].add(channel, zeros=inside is not None)


def one_per_image(regions: Sequence[Region]) -> list[Region]:
    """Leave out regions whose image another one has."""
    return list({region.image_key: region for region in reversed(regions)}.values())[::-1]


def read(region: Region, channels: list[int], rows: slice, cols: slice) -> Iterator[tuple[list[int], NDArray]]:
    """Read a window of the image, some channels at a time, each of its pixels once."""
    pixels = (rows.stop - rows.start) * (cols.stop - cols.start)
    size = max(1, GROUP_BYTES // (4 * pixels))
    step = region.image_repeat
    for start in range(0, len(channels), size):
        group = channels[start : start + size]
        yield group, region.read_image(group, rows, cols)[:, ::step, ::step]


def _concerns(counts: pd.DataFrame, card: Card) -> Iterator[str]:
    """Say what is wrong with factors that rest on so many pixels or squares above 0, channels x regions."""
    what = "squares of cells" if card.quantile is None else "pixels"
    if empty := list(counts.index[(counts == 0).all(axis=1)]):
        where = "in a cell " if card.quantile is None else ""
        yield f"No pixel above 0 {where}in channel(s) {names(empty)}: their scores are NaN."
    few = counts.stack()
    few = few[(few > 0) & (few < _FEW_SQUARES if card.quantile is None else few * (1 - card.quantile) < 1)]
    if len(few):
        stated = [f"{name!r} ({count} {what} above 0 in {key!r})" for (name, key), count in few.items()]
        yield (
            f"The normalisation of {some(stated)} rests on a handful of {what}, so that a hot pixel may decide it. "
            "Check the channel, or pass `normalization`."
        )


def names(texts: Sequence[str]) -> str:
    """List names, the first eight of many."""
    return some([repr(name) for name in texts])


def some(items: Sequence[str], most: int = 8) -> str:
    """List texts, the first eight of many."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def warn(message: str) -> None:
    """Warn on behalf of the caller of `predict`."""
    warnings.warn(message, UserWarning, stacklevel=5)
