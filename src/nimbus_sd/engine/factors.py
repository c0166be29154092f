"""Normalisation factors: measured from every pixel, or given by the user."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd.engine.bad_pixels import BadPixels
from nimbus_sd.engine.read import GROUP_BYTES
from nimbus_sd.models import Card
from nimbus_sd.pixels import Histogram
from nimbus_sd.spatial import Region

_BLOCK = 2048
_FACTOR = "factor"
_ALL = "all images"


def blocks(region: Region) -> Iterator[tuple[slice, slice]]:
    """Cut a region's image into windows to read, each at most ``_BLOCK`` image pixels high and wide."""
    (height, width), repeat = region.image_shape, region.image_repeat
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            corners = (top, min(top + _BLOCK, height)), (left, min(left + _BLOCK, width))
            rows, cols = (slice(start * repeat, stop * repeat) for start, stop in corners)
            yield rows, cols


def block_count(regions: Sequence[Region]) -> int:
    """Count the windows that :func:`measured_factors` reads."""
    return sum(1 for region in _one_per_image(regions) for _ in blocks(region))


def measured_factors(
    regions: Sequence[Region], card: Card, bad: BadPixels, on_block: Callable[[], object]
) -> pd.DataFrame:
    """Quantile of each channel's positive pixels, over all pixels of all images.

    Parameters
    ----------
    regions
        What will be scored; all have the same channels.
    card
        States the quantile and the rule by which images are joined: ``"mean_of_regions"`` averages the images'
        quantiles and leaves out images without a positive pixel, ``"pooled"`` takes all images' pixels together.
    bad
        Where bad pixels are counted.
    on_block
        Called after each window read.

    Returns
    -------
    DataFrame channels x (one column per labels element, then ``"factor"``); NaN where no pixel is positive. An image
    with several labels elements counts once.

    Warns
    -----
    UserWarning
        Names channels without a positive pixel, and those whose quantile is a single pixel's value.
    """
    channels = regions[0].channels
    pooling = card.rule == "pooled"
    dtypes = [region.dtype for region in regions]
    pooled = [Histogram(*dtypes) for _ in channels] if pooling else []
    own, counts = pd.DataFrame(index=list(channels)), pd.DataFrame(index=list(channels))
    for region in _one_per_image(regions):
        # One image's histograms at a time, so that memory does not grow with the number of images.
        histograms = [Histogram(*(dtypes if pooling else [region.dtype])) for _ in channels]
        for rows, cols in blocks(region):
            for group, pixels in _read(region, list(range(len(channels))), rows, cols):
                pixels = bad.clean(pixels, [channels[i] for i in group])
                for i, channel in zip(group, pixels, strict=True):
                    histograms[i].add(channel)
            on_block()
        own[region.image_key] = [histogram.quantile(card.quantile) for histogram in histograms]
        counts[region.image_key] = [histogram.total for histogram in histograms]
        for total, histogram in zip(pooled, histograms, strict=False):
            total.update(histogram)

    table = pd.DataFrame({region.labels_key: own[region.image_key] for region in regions})
    table[_FACTOR] = [total.quantile(card.quantile) for total in pooled] if pooling else own.mean(axis=1)
    counts = pd.DataFrame({_ALL: counts.sum(axis=1)}) if pooling else counts
    for concern in _concerns(counts, card.quantile):
        _warn(concern)
    return table.set_index(pd.Index(channels, name="channel"))


def _one_per_image(regions: Sequence[Region]) -> list[Region]:
    return list({region.image_key: region for region in reversed(regions)}.values())[::-1]


def _read(region: Region, channels: list[int], rows: slice, cols: slice) -> Iterator[tuple[list[int], NDArray]]:
    """Read a window of the image, some channels at a time, each of its pixels once."""
    pixels = (rows.stop - rows.start) * (cols.stop - cols.start)
    size = max(1, GROUP_BYTES // (4 * pixels))
    step = region.image_repeat
    for start in range(0, len(channels), size):
        group = channels[start : start + size]
        yield group, region.read_image(group, rows, cols)[:, ::step, ::step]


def _concerns(counts: pd.DataFrame, quantile: float) -> Iterator[str]:
    """Say what is wrong with factors that rest on so many pixels above 0, channels x images."""
    if empty := list(counts.index[(counts == 0).all(axis=1)]):
        yield f"No pixel above 0 in channel(s) {_names(empty)}: their scores are NaN."
    few = counts.stack()
    few = few[(few > 0) & (few * (1 - quantile) < 1)]
    if len(few):
        stated = [f"{name!r} ({count} pixels above 0 in {key!r})" for (name, key), count in few.items()]
        yield (
            f"The normalisation of {_some(stated)} rests on a handful of pixels, so that a hot pixel may decide it. "
            "Check the channel, or pass `normalization`."
        )


def given_factors(
    normalization: Mapping[str, float] | pd.Series | pd.DataFrame, regions: Sequence[Region]
) -> pd.DataFrame:
    """Check factors that the user passed.

    Parameters
    ----------
    normalization
        Channel -> factor, or a DataFrame with channels as its index and a column ``"factor"``.
    regions
        What will be scored. Their images are read up to each channel's first pixel above 0.

    Returns
    -------
    DataFrame with the column ``"factor"``, as :func:`measured_factors`.

    Raises
    ------
    KeyError
        If a channel has no factor.
    ValueError
        If a factor is negative or infinite, or the DataFrame has no column ``"factor"``.

    Warns
    -----
    UserWarning
        Names channels whose factor is 0 or NaN, or that have no pixel above 0: they get no score.
    """
    channels = regions[0].channels
    if isinstance(normalization, pd.DataFrame):
        if _FACTOR not in normalization:
            raise ValueError(
                f"`normalization` has the columns {[str(c) for c in normalization]}; it needs one named 'factor', "
                "with channels as the index."
            )
        normalization = normalization[_FACTOR]
    given = {str(name): float(factor) for name, factor in dict(normalization).items()}
    if missing := [name for name in channels if name not in given]:
        raise KeyError(f"`normalization` has no factor for channel(s) {_names(missing)}; it has {_names(list(given))}.")
    factors = np.array([given[name] for name in channels])
    if wrong := [name for name, factor in zip(channels, factors, strict=True) if factor < 0 or np.isinf(factor)]:
        raise ValueError(
            f"`normalization` of channel(s) {_names(wrong)} is negative or infinite; give positive numbers."
        )
    if absent := [name for name, factor in zip(channels, factors, strict=True) if not factor > 0]:
        _warn(f"The normalisation factor of channel(s) {_names(absent)} is 0 or NaN: their scores are NaN.")
    factors[~(factors > 0)] = np.nan
    if empty := _empty_channels(regions, [i for i in range(len(channels)) if factors[i] > 0]):
        _warn(f"No pixel above 0 in channel(s) {_names([channels[i] for i in empty])}: their scores are NaN.")
        factors[empty] = np.nan
    return pd.DataFrame({_FACTOR: factors}, index=pd.Index(channels, name="channel"))


def _empty_channels(regions: Sequence[Region], channels: list[int]) -> list[int]:
    """Find the channels without a positive pixel, reading no further than each channel's first one."""
    for region in _one_per_image(regions):
        for rows, cols in blocks(region):
            found = {
                i
                for group, pixels in _read(region, channels, rows, cols)
                for i, channel in zip(group, pixels, strict=True)
                if ((channel > 0) & (channel < np.inf)).any()
            }
            channels = [i for i in channels if i not in found]
            if not channels:
                return []
    return channels


def _names(names: Sequence[str]) -> str:
    return _some([repr(name) for name in names])


def _some(items: Sequence[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)
