"""Normalisation factors that the user passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nimbus_sd.engine.factors import FACTOR, blocks, check_range, names, one_per_image, read, warn
from nimbus_sd.pixels import LARGEST
from nimbus_sd.spatial import Region


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
        If a factor is negative, below 1e-30, above 1e30 or no number, a channel is named twice, or the DataFrame has
        no column ``"factor"``.
    TypeError
        If it is something else than the above.

    Warns
    -----
    UserWarning
        Names channels whose factor is 0 or NaN, or that have no pixel above 0: they get no score.
    """
    channels = regions[0].channels
    if isinstance(normalization, pd.DataFrame):
        if FACTOR not in normalization:
            raise ValueError(
                f"`normalization` has the columns {[str(c) for c in normalization]}; it needs one named 'factor', "
                "with channels as the index."
            )
        normalization = normalization[FACTOR]
    given = _numbers(normalization)
    if missing := [name for name in channels if name not in given]:
        raise KeyError(f"`normalization` has no factor for channel(s) {names(missing)}; it has {names(list(given))}.")
    factors = np.array([given[name] for name in channels])
    check_range(pd.DataFrame({FACTOR: factors}, index=channels))
    if absent := [name for name, factor in zip(channels, factors, strict=True) if not factor > 0]:
        warn(f"The normalisation factor of channel(s) {names(absent)} is 0 or NaN: their scores are NaN.")
    factors[~(factors > 0)] = np.nan
    if empty := _empty_channels(regions, [i for i in range(len(channels)) if factors[i] > 0]):
        warn(f"No pixel above 0 in channel(s) {names([channels[i] for i in empty])}: their scores are NaN.")
        factors[empty] = np.nan
    return pd.DataFrame({FACTOR: factors}, index=pd.Index(channels, name="channel"))


def _numbers(normalization: Mapping[str, float] | pd.Series) -> dict[str, float]:
    """Name the factors, each once."""
    if not isinstance(normalization, Mapping | pd.Series):
        raise TypeError(
            f"`normalization` is {normalization!r}; pass a factor for each channel (mapping, Series, or DataFrame with "
            "a column 'factor'), or None to measure them."
        )
    channels = [str(name) for name in normalization.keys()]  # noqa: SIM118 - a Series iterates over its values
    if twice := sorted({name for name in channels if channels.count(name) > 1}):
        raise ValueError(f"`normalization` names channel(s) {names(twice)} more than once.")
    given = {}
    for name, (_, factor) in zip(channels, normalization.items(), strict=True):
        try:
            given[name] = float(factor)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`normalization` of channel {name!r} is {factor!r}; give a number.") from error
    return given


def _empty_channels(regions: Sequence[Region], channels: list[int]) -> list[int]:
    """Find the channels without a positive pixel, reading no further than each channel's first one."""
    for region in one_per_image(regions):
        for rows, cols in blocks(region):
            found = {
                i
                for group, pixels in read(region, channels, rows, cols)
                for i, channel in zip(group, pixels, strict=True)
                if ((channel > 0) & (channel < LARGEST)).any()
            }
            channels = [i for i in channels if i not in found]
            if not channels:
                return []
    return channels
