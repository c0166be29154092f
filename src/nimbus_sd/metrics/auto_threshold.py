"""A threshold for one marker's scores: the valley between two groups of cells, where there are two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit, gammaln, logit

DEFAULT = 0.5
#: Cells that must lie on each side of a threshold.
FEWEST = 10

# Logits, because scores of one class crowd at 0 or 1; beyond these limits (0.007 and 0.993) differences mean nothing.
_EDGES = np.linspace(-5, 5, 127)
_MIDDLE = (_EDGES[1:] + _EDGES[:-1]) / 2
_WIDTH = _EDGES[1] - _EDGES[0]
_SCORE, _LOG, _LOG_REST = expit(_MIDDLE), np.log(expit(_MIDDLE)), np.log(expit(-_MIDDLE))
_POWERS = np.stack([_SCORE**0, _SCORE, _SCORE**2])
# A dip below 0.1 or above 0.9 parts the sure from the very sure, not positive from negative.
_FARTHEST = logit(0.9)
_BANDWIDTHS = (0.3, 0.6)


@dataclass(frozen=True)
class ChannelThreshold:
    """A threshold, its 95 % interval and where it comes from.

    Parameters
    ----------
    value, low, high
        Scores; cells at or above ``value`` are positive.
    reason
        In words.
    two_groups
        Whether the scores fall into two groups.
    """

    value: float
    low: float
    high: float
    reason: str
    two_groups: bool


def auto_threshold(scores: NDArray, *, n_boot: int = 100, rng: int | np.random.Generator = 0) -> ChannelThreshold:
    """Find the threshold of one marker's scores.

    In this order:

    - the valley between two modes of the scores' density (on logits): in the valley's floor, up to a quarter of the
      lower mode's height, the place nearest to 0.5, for in a wide valley the exact minimum is noise. The lower mode
      must stand out by 3 standard deviations of its counts.
    - where two fitted beta distributions cross, if they explain the scores better than one (BIC) and would by their
      own account give an F1 of at least 0.8 for both classes.
    - 0.5.

    Parameters
    ----------
    scores
        Shape (cells,), in [0, 1]; NaN is left out.
    n_boot
        Resamples of the cells for the interval, each with the whole rule. 0 gives NaN.
    rng
        Source of all randomness.
    """
    finite = scores[np.isfinite(scores)]
    if finite.size < 2 * FEWEST:
        return ChannelThreshold(DEFAULT, DEFAULT, DEFAULT, "0.5: too few cells", False)
    counts = _histogram(finite)
    draws = np.random.default_rng(rng).multinomial(finite.size, counts / finite.size, size=n_boot)
    (value, reason), *others = _rule(np.concatenate([counts[None], draws]))
    low = high = float("nan")
    if others:
        low, high = (float(one) for one in np.quantile([other for other, _ in others], [0.025, 0.975]))
        low, high = min(low, value), max(high, value)
    if reason is not None:
        return ChannelThreshold(value, low, high, reason, True)
    beyond = min((finite >= DEFAULT).sum(), (finite < DEFAULT).sum())
    reason = "0.5: too few cells beyond" if beyond < FEWEST else "0.5: no two separate groups"
    return ChannelThreshold(value, low, high, reason, False)


def _histogram(scores: NDArray) -> NDArray[np.int64]:
    with np.errstate(divide="ignore"):
        position = logit(np.asarray(scores, np.float64))
    return np.histogram(np.clip(position, _EDGES[0], _EDGES[-1]), _EDGES)[0]


def _rule(histograms: NDArray[np.int64]) -> list[tuple[float, str | None]]:
    """Threshold of each histogram, and its reason; None for 0.5."""
    found: list[tuple[float, str | None]] = [(DEFAULT, None)] * len(histograms)
    unclear = []
    for i, counts in enumerate(histograms):
        if min(counts[_MIDDLE > -_FARTHEST].sum(), counts[_MIDDLE < _FARTHEST].sum()) < FEWEST:
            continue
        if (valley := _valley(counts)) is not None:
            found[i] = valley, "valley between two modes"
        else:
            unclear.append(i)
    for i, crossing in zip(unclear, _mixtures(histograms[unclear]), strict=True):
        if np.isfinite(crossing):
            found[i] = float(crossing), "mixture of two beta distributions"
    return found


def _valley(counts: NDArray[np.int64]) -> float | None:
    bandwidth = _bandwidth(counts)
    density = gaussian_filter1d(counts.astype(float), bandwidth / _WIDTH, mode="reflect")
    lower_peak = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    # Counts that a Gaussian window sees vary like Poisson's; their square roots have a variance of 1/4.
    seen = 2 * np.sqrt(np.pi) * bandwidth / _WIDTH
    prominence = np.sqrt(2 * seen) * (np.sqrt(lower_peak) - np.sqrt(density))
    allowed = abs(_MIDDLE) < _FARTHEST
    bottom = int(np.argmax(np.where(allowed, prominence, -np.inf)))
    peak = lower_peak[bottom]
    if prominence[bottom] < 3 or density[bottom] > 0.7 * peak:
        return None
    if min(counts[:bottom].sum(), counts[bottom:].sum()) < FEWEST:
        return None
    outside = np.flatnonzero(density > density[bottom] + 0.25 * (peak - density[bottom]))
    at = np.searchsorted(outside, bottom)
    first, last = outside[at - 1] + 1, outside[at] - 1
    nearest = np.clip(0, *np.clip(_MIDDLE[[first, last]], -_FARTHEST, _FARTHEST))
    return float(expit(nearest))


def _bandwidth(counts: NDArray[np.int64]) -> float:
    """Silverman's rule, within limits: too fine shows modes that are none, too coarse fills narrow valleys."""
    total = counts.sum()
    mean = (counts * _MIDDLE).sum() / total
    deviation = np.sqrt((counts * (_MIDDLE - mean) ** 2).sum() / total)
    quarter, three_quarters = np.interp([0.25, 0.75], np.cumsum(counts) / total, _MIDDLE)
    spread = min(deviation, (three_quarters - quarter) / 1.34) or deviation
    return float(np.clip(0.9 * spread * total**-0.2, *_BANDWIDTHS))


def _mixtures(histograms: NDArray[np.int64], steps: int = 100) -> NDArray[np.float64]:
    """Threshold between two beta distributions fitted to each histogram (n, bins); NaN where two are not worth it.

    Expectation-maximisation with moments, which need no search, in place of likelihood in the second step. It starts
    with the parts below and above 0.5 and is stopped early: on and on, one of the two takes over the tail of the other.
    """
    counts = histograms.astype(float)
    upper = expit(12 * (_SCORE - 0.5))
    share = np.broadcast_to(np.stack([1 - upper, upper]), (len(counts), 2, len(_SCORE)))
    for _ in range(steps):
        weight = share * counts[:, None] + 1e-12
        joint = _log_beta(weight) + np.log(weight.sum(-1) / weight.sum((-2, -1))[:, None])[..., None]
        likelihood = np.logaddexp(joint[:, 0], joint[:, 1])
        share = np.exp(joint - likelihood[:, None])
    gain = 2 * (counts * (likelihood - _log_beta(counts))).sum(-1) - 3 * np.log(counts.sum(-1))
    enough = (gain >= 10) & (weight.sum(-1).min(-1) >= FEWEST)
    return np.array([_crossing(*one) if ok else np.nan for ok, *one in zip(enough, counts, share, strict=True)])


def _crossing(counts: NDArray, share: NDArray) -> float:
    """Threshold between two groups of cells; NaN where it would part them badly."""
    means = (share * counts * _SCORE).sum(1) / (share * counts).sum(1)
    high = share[np.argmax(means)]
    first, last = np.searchsorted(_SCORE, np.sort(means))
    between = first + np.flatnonzero(high[first:last] >= 0.5)
    if not between.size:
        return float("nan")
    cut = between[0]
    positive, negative = counts * high, counts * (1 - high)
    f1_positive = 2 * positive[cut:].sum() / (counts[cut:].sum() + positive.sum())
    f1_negative = 2 * negative[:cut].sum() / (counts[:cut].sum() + negative.sum())
    if min(f1_positive, f1_negative) < 0.8 or abs(_EDGES[cut]) > _FARTHEST:
        return float("nan")
    return float(expit(_EDGES[cut]))


def _log_beta(weight: NDArray) -> NDArray[np.float64]:
    """Log density, up to the width of bins, of the beta distribution with the mean and variance of each row."""
    total, first, second = (weight @ power for power in _POWERS)
    mean = first / total
    variance = np.maximum(second / total - mean**2, 0) + 1e-5
    size = np.maximum(mean * (1 - mean) / variance - 1, 0.1)
    a, b = (mean * size)[..., None], ((1 - mean) * size)[..., None]
    return np.asarray(a * _LOG + b * _LOG_REST + gammaln(a + b) - gammaln(a) - gammaln(b))
