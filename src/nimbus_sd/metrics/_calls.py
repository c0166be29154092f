"""Who is called positive: thresholds of each channel, and the judged cells at or above them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.metrics._counts import Judged
from nimbus_sd.metrics._layers import UNDETERMINED, judged
from nimbus_sd.metrics.thresholds import RULES, Rule, find_threshold

Threshold: TypeAlias = "float | str | Mapping[str, float] | pd.Series"


def known(values: NDArray, name: str) -> NDArray[np.bool_]:
    """Where a layer has a value; where labels are undetermined, they have none."""
    finite = np.isfinite(values)
    return finite & (values != UNDETERMINED) if name in (keys.GOLD, keys.SILVER) else finite


def calls(
    values: NDArray,
    name: str,
    labels: NDArray,
    cuts: Sequence[float],
    cells: NDArray[np.intp],
    *,
    likely: bool,
    beside: NDArray | None = None,
) -> Iterator[Judged]:
    """Yield each channel's judged cells that have a value, and which of them are called positive.

    Cells that have no value in ``beside`` are left out too. Positions are those in ``cells``.
    """
    # A view of all cells saves a copy of each channel.
    rows = slice(None) if len(cells) == len(values) else cells
    for i, cut in enumerate(cuts):
        value, label = values[rows, i], labels[rows, i]
        keep = judged(label, likely=likely) & known(value, name)
        if beside is not None:
            keep &= np.isfinite(beside[rows, i])
        value = value[keep]
        # A threshold that is a Python number is compared in the layer's own precision: 0.3 is at 0.3.
        yield Judged(np.flatnonzero(keep), value, label[keep] > UNDETERMINED, value >= float(cut))


def thresholds_of(
    values: NDArray,
    name: str,
    labels: NDArray,
    channels: Sequence[str],
    threshold: Threshold,
    *,
    likely: bool,
    beside: NDArray | None = None,
) -> list[float]:
    """Return the threshold of each channel: a number for all, one for each, or found by a rule.

    Raises
    ------
    KeyError
        If a mapping lacks a channel.
    ValueError
        If the rule does not exist.
    """
    if isinstance(threshold, Mapping | pd.Series):
        missing = [channel for channel in channels if channel not in threshold]
        if missing:
            raise KeyError(f"`threshold` has no number for the channels {missing}; it must have one for each.")
        return [float(threshold[channel]) for channel in channels]
    if not isinstance(threshold, str):
        return [float(threshold)] * len(channels)
    if threshold == "oracle":
        everybody, uncut = np.arange(len(values)), np.zeros(len(channels))
        truth = calls(values, name, labels, list(uncut), everybody, likely=likely, beside=beside)
        return [find_threshold(one.values, "oracle", one.positive) for one in truth]
    if threshold in RULES:
        return [find_threshold(values[:, i], cast("Rule", threshold)) for i in range(len(channels))]
    raise ValueError(f"`threshold` is {threshold!r}; it must be a number, one for each channel, or one of {RULES}.")


def threshold_by_layer(threshold: Threshold | Mapping[str, Threshold], names: Sequence[str]) -> dict[str, Threshold]:
    """Give each layer its threshold: a mapping whose keys are layers has one for each, another is for all.

    Raises
    ------
    KeyError
        If such a mapping lacks a layer.
    """
    if not isinstance(threshold, Mapping) or not threshold or not set(threshold) <= set(names):
        return dict.fromkeys(names, threshold)
    missing = [name for name in names if name not in threshold]
    if missing:
        raise KeyError(f"`threshold` has none for the layers {missing}; it must have one for each of {list(names)}.")
    return {name: threshold[name] for name in names}
