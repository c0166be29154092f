"""Who is called positive: thresholds of each channel, and the judged cells at or above them."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import UNDETERMINED, at_or_above, judged, outside_unit_interval
from nimbus_sd.metrics._counts import Judged
from nimbus_sd.metrics.thresholds import RULES, Rule, find_threshold

Threshold: TypeAlias = float | str | Mapping[str, float] | pd.Series


def known(values: NDArray, name: str) -> NDArray[np.bool_]:
    """Where a layer has a value; where labels are undetermined, they have none."""
    finite = np.isfinite(values)
    return finite & (values != UNDETERMINED) if name in keys.LABELS else finite


def calls(
    values: NDArray,
    name: str,
    labels: NDArray,
    cuts: Sequence[float],
    cells: NDArray[np.intp],
    *,
    likely: bool,
    beside: tuple[str, NDArray] | None = None,
) -> Iterator[Judged]:
    """Yield each channel's judged cells that have a value, and which of them are called positive.

    Cells that have no value in the layer ``beside`` are left out too. Positions are those in ``cells``.
    """
    # A view of all cells saves a copy of each channel.
    rows = slice(None) if len(cells) == len(values) else cells
    for i, cut in enumerate(cuts):
        value, label = values[rows, i], labels[rows, i]
        keep = judged(label, likely=likely) & known(value, name)
        if beside is not None:
            keep &= known(beside[1][rows, i], beside[0])
        value = value[keep]
        yield Judged(np.flatnonzero(keep), value, label[keep] > UNDETERMINED, at_or_above(value, cut))


def thresholds_of(
    values: NDArray,
    name: str,
    labels: NDArray,
    channels: Sequence[str],
    threshold: Threshold,
    *,
    likely: bool,
    beside: tuple[str, NDArray] | None = None,
) -> list[float]:
    """Return the threshold of each channel: a number for all, one for each, or found by a rule.

    Raises
    ------
    KeyError
        If a mapping lacks a channel.
    ValueError
        If the rule does not exist, or a threshold is no number.
    """
    if not isinstance(threshold, str):
        return given_thresholds(values, name, channels, threshold, stacklevel=4)
    if threshold == "oracle":
        everybody, uncut = np.arange(len(values)), np.zeros(len(channels))
        truth = calls(values, name, labels, list(uncut), everybody, likely=likely, beside=beside)
        return [find_threshold(one.values, "oracle", one.positive) for one in truth]
    if threshold in RULES:
        return [find_threshold(values[:, i], cast("Rule", threshold)) for i in range(len(channels))]
    raise ValueError(f"`threshold` is {threshold!r}; it must be a number, one for each channel, or one of {RULES}.")


def given_thresholds(
    values: NDArray,
    name: str,
    channels: Sequence[str],
    threshold: float | Mapping[str, float] | pd.Series,
    stacklevel: int = 3,
) -> list[float]:
    """Return the threshold of each channel: a number for all, or one for each.

    Raises
    ------
    KeyError
        If a mapping lacks a channel.
    ValueError
        If a threshold is no number.

    Warns
    -----
    UserWarning
        If one threshold between 0 and 1, as for scores, meets a layer of other values.
    """
    single = not isinstance(threshold, Mapping | pd.Series)
    by_channel: dict[str, Any] = dict.fromkeys(channels, threshold) if single else dict(cast("Mapping", threshold))
    if missing := [channel for channel in channels if channel not in by_channel]:
        unknown = [key for key in by_channel if key not in set(channels)]
        also = f" It names {unknown}, which are no channels." if unknown else ""
        raise KeyError(
            f"`threshold` lacks the channel(s) {missing}; it must have a number for each, such as "
            f"dict.fromkeys(adata.var_names, 0.5) | yours.{also}"
        )
    cuts = [by_channel[channel] for channel in channels]
    for cut in cuts:
        if not isinstance(cut, numbers.Real) or isinstance(cut, bool) or cut != cut:
            raise ValueError(f"`threshold` is {cut!r}; it must be a number, one for each channel, or a rule.")
    if single and cuts and 0 <= cuts[0] <= 1 and outside_unit_interval(values).any():
        warnings.warn(
            f"Layer {name!r} has values outside [0, 1], for which the threshold {cuts[0]:g} is hardly meant. Pass one "
            "in its units; metrics also take a rule such as 'otsu', and for several layers a mapping from each to its.",
            UserWarning,
            stacklevel=stacklevel,
        )
    return [float(cut) for cut in cuts]


def threshold_by_layer(threshold: Threshold | Mapping[str, Threshold], names: Sequence[str]) -> dict[str, Threshold]:
    """Give each layer its threshold: a mapping whose keys are layers has one for each, another is for all.

    Raises
    ------
    KeyError
        If such a mapping lacks a layer.
    """
    if not isinstance(threshold, Mapping) or not set(threshold) & set(names):
        return dict.fromkeys(names, threshold)
    missing = [name for name in names if name not in threshold]
    if missing:
        raise KeyError(
            f"`threshold` is given for the layers {list(threshold)} and lacks {missing}; it must have one for each of "
            f"{list(names)}."
        )
    return {name: threshold[name] for name in names}
