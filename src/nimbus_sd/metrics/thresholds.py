"""Thresholds: found by the rules that labs use, or given as a number, per channel or per layer."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve

from nimbus_sd._table import as_list, layer, outside_unit_interval
from nimbus_sd._text import listed
from nimbus_sd.metrics.judged import Flags, Names, States, with_value

Rule = Literal["otsu", "mixture", "quantile", "oracle"]
RULES: tuple[str, ...] = get_args(Rule)
Threshold: TypeAlias = float | str | Mapping[str, float | str] | pd.Series

# Of channels without a threshold beside others that have one.
_DEFAULT = 0.5
# The share of cells that the rule "quantile" leaves below.
_QUANTILE = 0.9
# Bins of Otsu's histogram.
_BINS = 256
# Values that a mixture is fitted to, at most: more do not change the threshold visibly.
_FITTED = 10_000


def find_threshold(values: ArrayLike, method: Rule, positive: ArrayLike | None = None) -> float:
    """Find the value at and above which a cell is called positive.

    Parameters
    ----------
    values
        Values of the cells of one channel, any shape and unit; those that are not finite are left out. Pass a
        heavy-tailed channel as its arcsinh to the rules that look at the shape.
    method
        ``"otsu"``
            Just above Otsu's threshold: above the bin whose centre :func:`skimage.filters.threshold_otsu` returns.
        ``"mixture"``
            Where the upper of two Gaussians (:class:`sklearn.mixture.GaussianMixture`, seeded, fitted to at most
            10,000 of the values) becomes more likely than the lower: the crossing point above the lower mean.
        ``"quantile"``
            Just above the 90 % quantile: a tenth of the cells, or fewer where values are equal.
        ``"oracle"``
            The best F1 that any threshold can reach: as it needs the truth, a ceiling, not a rule to use.
    positive
        Truth of the cells, boolean, as long as ``values``; for ``"oracle"``.

    Returns
    -------
    float
        Infinite, so that no cell is called positive, where the rule cannot split the values: all are the same, one
        Gaussian covers the other, or no cell is positive.

    Examples
    --------
    >>> from nimbus_sd.metrics import find_threshold
    >>> find_threshold([0.1, 0.2, 0.3, 0.8], "oracle", [False, False, True, True])
    0.3
    """
    if method not in RULES:
        raise ValueError(f"The threshold rule is {method!r}; it must be one of {', '.join(map(repr, RULES))}.")
    array = np.asarray(values)
    finite = np.isfinite(array)
    if method == "oracle":
        if positive is None or np.shape(positive) != array.shape:
            raise ValueError("The rule 'oracle' needs `positive`: the truth of every cell, as long as `values`.")
        return _oracle(array[finite], np.asarray(positive, bool)[finite])
    array = array[finite]
    if array.size == 0 or array.min() == array.max():
        return float("inf")
    if method == "mixture":
        return _mixture(array)
    return _just_above(_otsu(array) if method == "otsu" else float(np.quantile(array, _QUANTILE)), array.dtype)


def _otsu(values: NDArray) -> float:
    from skimage.filters import threshold_otsu

    # The threshold is the centre of a bin of its histogram, all of which belongs to the lower class.
    half = 0 if np.issubdtype(values.dtype, np.integer) else float(np.ptp(values)) / _BINS / 2
    return float(threshold_otsu(values, nbins=_BINS)) + half


def _just_above(cut: float, dtype: np.dtype) -> float:
    """Return the smallest number of the values' own precision that is larger: at or above it is above the cut."""
    near = np.asarray(cut, dtype if np.issubdtype(dtype, np.floating) else np.float64)
    return float(near if near > cut else np.nextafter(near, np.asarray(np.inf, near.dtype)))


def _oracle(values: NDArray, positive: Flags) -> float:
    if not positive.any():
        return float("inf")
    precision, recall, cuts = precision_recall_curve(positive, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(cuts[np.argmax(f1[:-1])])


def _mixture(values: NDArray) -> float:
    from sklearn.mixture import GaussianMixture

    if values.size > _FITTED:
        values = np.random.default_rng(0).choice(values, _FITTED, replace=False)
    values = values.astype(np.float64)
    # In units of their spread, because the fit adds a fixed small number to variances.
    centre, spread = values.mean(), values.std()
    if not spread > 0:
        return float("inf")
    fit = GaussianMixture(2, random_state=0, max_iter=500).fit(((values - centre) / spread)[:, None])
    order = np.argsort(fit.means_[:, 0])
    mean, variance = fit.means_[order, 0], fit.covariances_[order, 0, 0]
    weight = np.log(fit.weights_[order]) - np.log(variance) / 2
    # The logarithm of the odds, upper to lower, is a parabola: a x^2 + b x + c.
    a, b, c = np.diff([-0.5 / variance, mean / variance, weight - mean**2 / (2 * variance)])[:, 0]
    odds = np.polynomial.Polynomial([c, b, a])
    if odds(mean[0]) >= 0:
        return float("inf")
    above = [float(root.real) for root in odds.roots() if abs(root.imag) < 1e-9 and root.real > mean[0]]
    return min(above) * float(spread) + float(centre) if above else float("inf")


def thresholds_by_channel(
    values: NDArray, name: str, channels: Sequence[str], threshold: Threshold, rules: Sequence[str], stacklevel: int = 3
) -> list[float | str]:
    """Return each channel's threshold, a number or rule; warns of one as for scores where other values are."""
    given: dict[str, Any] = dict(threshold) if isinstance(threshold, Mapping | pd.Series) else {"*": threshold}
    others = given.pop("*", _DEFAULT)
    if unknown := [key for key in given if key not in set(channels)]:
        advice = f"the channels are {listed(channels)}, and '*' is for all that are not named"
        raise KeyError(f"`threshold` names {listed(unknown)}; {advice}.")
    cuts = [given.get(channel, others) for channel in channels]
    for cut in cuts:
        number = isinstance(cut, numbers.Real) and not isinstance(cut, bool) and cut == cut
        if not number and not (isinstance(cut, str) and cut in rules):
            allowed = f"a number, {', '.join(map(repr, rules))}, or a mapping from channels to these"
            raise ValueError(f"`threshold` is {cut!r}; it must be {allowed}.")
    unnamed = [channel not in given for channel in channels]
    if isinstance(others, numbers.Real) and 0 <= float(others) <= 1 and outside_unit_interval(values[:, unnamed]).any():
        hint = "Pass one in its units; metrics also take a rule such as 'otsu', and one threshold for each layer."
        unmeant = f"Layer {name!r} has values outside [0, 1], for which the threshold {others:g} is hardly meant."
        warnings.warn(f"{unmeant} {hint}", stacklevel=stacklevel)
    return [cut if isinstance(cut, str) else float(cut) for cut in cuts]


def rule_thresholds(values: NDArray, cuts: Sequence[float | str], states: States) -> list[float]:
    """Find the threshold of each channel by its rule; numbers stay. The oracle sees judged cells, others see all."""
    found = []
    for column, state, cut in zip(values.T, states.T, cuts, strict=True):
        seen, truth = (column[state >= 0], state[state >= 0]) if cut == "oracle" else (column, None)
        found.append(find_threshold(seen, cast("Rule", cut), truth) if isinstance(cut, str) else cut)
    return found


def called_layers(
    adata: AnnData, pred: Names, states: States, threshold: Threshold | Mapping[str, Threshold]
) -> Iterator[tuple[str, NDArray, States, list[float]]]:
    """Yield each layer's name, its values, the states of cells that have one, and the threshold of each channel.

    A mapping whose keys are layers has a threshold for each of them, another threshold is for all.
    """
    names = list(dict.fromkeys(as_list(pred)))
    thresholds: dict[str, Any] = dict.fromkeys(names, threshold)
    if isinstance(threshold, Mapping) and set(threshold) & set(names):
        if missing := [name for name in names if name not in threshold]:
            raise KeyError(f"`threshold` is given for the layers {list(threshold)} and lacks {missing}.")
        thresholds = dict(threshold)
    for name in names:
        values = layer(adata, name)
        valued = with_value(states, values, name)
        cuts = thresholds_by_channel(values, name, adata.var_names, thresholds[name], RULES, stacklevel=4)
        yield name, values, valued, rule_thresholds(values, cuts, valued)
