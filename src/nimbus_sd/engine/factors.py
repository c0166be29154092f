"""Normalisation factors: measured from every pixel that counts, or passed by the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from nimbus_sd._text import listed
from nimbus_sd.engine.checks import BadPixels, warn
from nimbus_sd.engine.tile import channel_groups
from nimbus_sd.models import Card
from nimbus_sd.pixels import LARGEST, OTSU_LEVELS, SQUARE_UM, Histogram, channels_in_work, square_means
from nimbus_sd.spatial import Region, RegionResult, unique_images

#: Factors as a user gives them: channel -> factor, or channels x a column ``"factor"``.
Normalization: TypeAlias = Mapping[str, float] | pd.Series | pd.DataFrame

_FACTOR = "factor"
_BLOCK = 2048
_ALL = "all images"
# With fewer squares a few bright cells, or the lack of some, decide.
_FEW_SQUARES = 50
# Tens by which levels differ on another scale (12 bit beside 8 bit are 16 times as much), and where channels are few.
_FAR, _FEW_FAR = 1.0, 2.0


def find_factors(
    regions: Sequence[Region], normalization: Normalization | None, card: Card, bad: BadPixels, progress: bool
) -> pd.DataFrame:
    """Return the intensity of each channel that is scaled to 1: as given, or measured in all images together.

    Given ``normalization``, images are read up to each channel's first pixel above 0. None measures factors by the
    card's rule; then bad pixels are counted in ``bad``. Warns of channels without a positive pixel, and of those whose
    factor is 0 or NaN or rests on a handful of pixels.

    Returns
    -------
    DataFrame of channels x ``"factor"``, where measured after one column per labels element, of what the rule gives for
    it alone. NaN where no pixel is positive. By quantiles, an image with several labels elements counts once.
    """
    if normalization is not None:
        table, concerns = _given_factors(normalization, regions)
        for concern in concerns:
            warn(concern)
        return table
    groups = channels_in_work(_histogram(card, [region.dtype for region in regions]), len(regions[0].channels))
    per_group = sum(1 for region, side in _to_read(regions, card) for _ in _blocks(region, side))
    with tqdm(total=per_group * len(groups), desc="Normalisation", unit="block", disable=not progress) as bar:
        parts = [_measure(regions, card, group, bad, bar) for group in groups]
    levels, counts = (pd.concat(tables) for tables in zip(*parts, strict=True))
    for concern in _concerns(counts, card):
        warn(concern)
    table = pd.DataFrame(
        {r.labels_key: levels[r.labels_key if r.labels_key in levels.columns else r.image_key] for r in regions}
    )
    if scales := _other_scale(table):
        warn(scales)
    table[_FACTOR] = levels[_FACTOR]
    _check_range(table)
    return table.set_index(pd.Index(regions[0].channels, name="channel"))


def check_scales(results: Sequence[RegionResult]) -> None:
    """Warn, where factors were given and no level was measured, of regions whose cells are on another scale."""
    cells = [result for result in results if len(result.ids)]
    levels = {result.region.labels_key: np.nanquantile(result.expression, 0.99, axis=0) for result in cells}
    if scales := _other_scale(pd.DataFrame(levels)):
        warn(scales)


def _given_factors(normalization: Normalization, regions: Sequence[Region]) -> tuple[pd.DataFrame, list[str]]:
    """Check factors that the user passed; also returns what to warn of."""
    channels = regions[0].channels
    if isinstance(normalization, pd.DataFrame):
        if _FACTOR not in normalization:
            columns = f"`normalization` has the columns {listed(map(str, normalization))}"
            raise ValueError(f"{columns}; it needs one named 'factor', with channels as the index.")
        normalization = normalization[_FACTOR]
    given = _as_numbers(normalization)
    if missing := [name for name in channels if name not in given]:
        raise KeyError(f"`normalization` has no factor for channel(s) {listed(missing)}; it has {listed(given)}.")
    factors = np.array([given[name] for name in channels])
    _check_range(pd.DataFrame({_FACTOR: factors}, index=channels))
    concerns: list[str] = []
    if absent := [name for name, factor in zip(channels, factors, strict=True) if not factor > 0]:
        concerns.append(f"The normalisation factor of channel(s) {listed(absent)} is 0 or NaN: their scores are NaN.")
    factors[~(factors > 0)] = np.nan
    if empty := _empty_channels(regions, [i for i in range(len(channels)) if factors[i] > 0]):
        concerns.append(f"No pixel above 0 in channel(s) {listed([channels[i] for i in empty])}: their scores are NaN.")
        factors[empty] = np.nan
    return pd.DataFrame({_FACTOR: factors}, index=pd.Index(channels, name="channel")), concerns


def _as_numbers(normalization: Mapping[str, float] | pd.Series) -> dict[str, float]:
    """Return the factor of each channel, each named once."""
    if not isinstance(normalization, Mapping | pd.Series):
        allowed = "a factor for each channel (mapping, Series, or DataFrame with a column 'factor'), or None"
        raise TypeError(f"`normalization` is {normalization!r}; pass {allowed}.")
    channels = [str(name) for name in normalization.keys()]  # noqa: SIM118 - a Series iterates over its values
    if twice := sorted({name for name in channels if channels.count(name) > 1}):
        raise ValueError(f"`normalization` names channel(s) {listed(twice)} more than once.")
    given = {}
    for name, (_, factor) in zip(channels, normalization.items(), strict=True):
        try:
            given[name] = float(factor)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`normalization` of channel {name!r} is {factor!r}; give a number.") from error
    return given


def _empty_channels(regions: Sequence[Region], channels: list[int]) -> list[int]:
    """Find the channels without a positive pixel, reading no further than each channel's first one."""
    for region in unique_images(regions):
        for rows, cols in _blocks(region):
            empty: list[int] = []
            for group, pixels in _read(region, channels, rows, cols):
                positive = np.any((pixels > 0) & (pixels < LARGEST), axis=(1, 2))
                empty += [i for i, occupied in zip(group, positive, strict=True) if not occupied]
            if not (channels := empty):
                return []
    return channels


def _measure(
    regions: Sequence[Region], card: Card, group: range, bad: BadPixels, bar: tqdm
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Levels of some channels in each region or image, with the factors, and the number of values counted."""
    dtypes = [region.dtype for region in regions]
    pooling = card.rule != "mean_of_regions"
    pooled = [_histogram(card, dtypes) for _ in group] if pooling else []
    index = [regions[0].channels[i] for i in group]
    levels, counts = pd.DataFrame(index=index), pd.DataFrame(index=index)
    counted: set[str] = set()
    for region, side in _to_read(regions, card):
        # One region's histograms at a time, so that memory does not grow with the number of regions.
        histograms = {i: _histogram(card, dtypes if pooling else [region.dtype]) for i in group}
        bad_here = BadPixels() if region.image_key in counted else bad
        counted.add(region.image_key)
        for rows, cols in _blocks(region, side):
            _count(region, rows, cols, side, histograms, bad_here)
            bar.update()
        key = region.labels_key if side else region.image_key
        levels[key] = [_level(histogram, card) for histogram in histograms.values()]
        counts[key] = [histogram.total for histogram in histograms.values()]
        for total, histogram in zip(pooled, histograms.values(), strict=False):
            total.update(histogram)
    levels[_FACTOR] = [_level(total, card) for total in pooled] if pooling else levels.mean(axis=1)
    return levels, pd.DataFrame({_ALL: counts.sum(axis=1)}) if pooling else counts


def _to_read(regions: Sequence[Region], card: Card) -> list[tuple[Region, int]]:
    """Regions to read, each with the side of its squares in image pixels; 0 where all pixels count."""
    if card.rule != "otsu":
        return [(region, 0) for region in unique_images(regions)]
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
    if inside is not None and not inside.any():
        return
    for group, pixels in _read(region, list(histograms), rows, cols):
        pixels = bad.clean(pixels, [region.channels[i] for i in group])
        values = pixels if inside is None else square_means(pixels, inside, side)
        for i, channel in zip(group, values, strict=True):
            histograms[i].add(channel, zeros=inside is not None)


def _blocks(region: Region, side: int = 0) -> Iterator[tuple[slice, slice]]:
    """Cut a region's image into windows to read, each at most ``_BLOCK`` image pixels wide and whole squares.

    Where squares of cells count, windows that no labels reach into are left out.
    """
    (height, width), repeat = region.image_shape, region.image_repeat
    block = max(_BLOCK // max(side, 1), 1) * max(side, 1)
    for top in range(0, height, block):
        for left in range(0, width, block):
            bottom, right = min(top + block, height), min(left + block, width)
            window = slice(top * repeat, bottom * repeat), slice(left * repeat, right * repeat)
            if not side or region.reaches(*window):
                yield window


def _read(region: Region, channels: list[int], rows: slice, cols: slice) -> Iterator[tuple[list[int], NDArray]]:
    """Read a window of the image, some channels at a time, each of its pixels once."""
    step = region.image_repeat
    for part in channel_groups(len(channels), (rows.stop - rows.start) * (cols.stop - cols.start)):
        group = channels[part.start : part.stop]
        yield group, region.read_image(group, rows, cols)[:, ::step, ::step]


def _check_range(factors: pd.DataFrame) -> None:
    """Refuse factors by which float32 cannot divide, channels x regions; 0 and NaN: none."""
    beyond = (factors != 0) & factors.notna() & ~factors.ge(1 / LARGEST) | factors.gt(LARGEST)
    if (wrong := beyond[_FACTOR]).any():
        regions = [str(key) for key in factors.columns[beyond.any()] if key != _FACTOR]
        stated = [f"{name!r} ({factor:.3g})" for name, factor in factors.loc[wrong, _FACTOR].items()]
        where = f", as measured in {listed(regions)}" if regions else ""
        what = f"The normalisation factor of channel(s) {_first(stated)} is not between 1e-30 and 1e30{where}"
        raise ValueError(f"{what}. Rescale the image, pass `normalization`, or leave the channel out.")


def _concerns(counts: pd.DataFrame, card: Card) -> Iterator[str]:
    """Say what is wrong with factors that rest on so many pixels or squares above 0, channels x regions."""
    what = "squares of cells" if card.quantile is None else "pixels"
    if empty := list(counts.index[(counts == 0).all(axis=1)]):
        where = "in a cell " if card.quantile is None else ""
        yield f"No pixel above 0 {where}in channel(s) {listed(empty)}: their scores are NaN."
    few = counts.stack()
    few = few[(few > 0) & (few < _FEW_SQUARES if card.quantile is None else few * (1 - card.quantile) < 1)]
    if len(few):
        stated = [f"{name!r} ({count} {what} above 0 in {key!r})" for (name, key), count in few.items()]
        yield f"The normalisation of {_first(stated)} rests on a handful of {what}. Check it, or pass `normalization`."


def _other_scale(levels: pd.DataFrame) -> str | None:
    """Say which regions have other levels than most of the others in nearly all channels; channels x regions."""
    logs, off = np.log10(levels.where(levels > 0).to_numpy(np.float64)), []
    for i, key in enumerate(levels):
        ratio = logs[:, [i]] - logs
        known = np.isfinite(ratio).sum(axis=0)
        # A region without a marker has another level in it, so a few channels must be further apart.
        far = np.where(known < 3, _FEW_FAR, _FAR)
        beyond = np.maximum((ratio >= far).sum(axis=0), (ratio <= -far).sum(axis=0))
        other = (known > 0) & (beyond >= known - known // 10)
        if other.sum() > (len(logs.T) - 1) / 2:
            off.append(f"{key!r} ({10 ** np.nanmedian(ratio[:, other]):.2g} times the others' level)")
    if not off:
        return None
    what = f"On another scale than the other regions, in (nearly) all channels: labels {_first(off)}"
    return f"{what}. One factor does not suit both: bring their images to one scale, or score them apart."


def _first(items: Sequence[str], most: int = 8) -> str:
    """List texts, the first eight of many."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
