"""A threshold for one marker's scores: the valley between two groups of cells, where there are two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit, gammaln, logit

_DEFAULT = 0.5
#: Cells that must lie on each side of a threshold.
_MIN_CELLS = 10

# Logits, because scores of one class crowd at 0 or 1; beyond these limits (0.007 and 0.993) differences mean nothing.
_EDGES = np.linspace(-5, 5, 127)
_MIDDLE = (_EDGES[1:] + _EDGES[:-1]) / 2
_WIDTH = _EDGES[1] - _EDGES[0]
_SCORE, _LOG, _LOG_REST = expit(_MIDDLE), np.log(expit(_MIDDLE)), np.log(expit(-_MIDDLE))
_POWERS = np.stack([_SCORE**0, _SCORE, _SCORE**2])
# A dip below 0.1 or above 0.9 separates the sure from the very sure, not positive from negative.
_FARTHEST = logit(0.9)
_BANDWIDTHS = (0.3, 0.6)


class ChannelThreshold(NamedTuple):
    """A threshold, its 95 % interval, the reason for it, and whether the scores fall into two groups."""

    threshold: float
    low: float
    high: float
    reason: str = "given"
    two_groups: bool = True


def auto_threshold(scores: NDArray, *, n_boot: int = 100, rng: int | np.random.Generator = 0) -> ChannelThreshold:
    """Find the threshold of one marker's scores, (cells,) in [0, 1] or NaN, by the first of these rules that applies.

    - the valley between two modes of the scores' density (on logits): in the valley's floor, up to a quarter of the
      lower mode's height, the place nearest to 0.5, because in a wide valley the exact minimum is noise. The lower
      mode must stand out by 3 standard deviations of its counts.
    - where two fitted beta distributions cross, if they explain the scores better than one (BIC) and would, by their
      own account, give an F1 of at least 0.8 for both classes.
    - 0.5.

    The interval is of ``n_boot`` resamples of the cells, each with the whole rule; NaN without any.
    """
    scores = scores[np.isfinite(scores)]
    if scores.size < 2 * _MIN_CELLS:
        return ChannelThreshold(_DEFAULT, _DEFAULT, _DEFAULT, "0.5: too few cells", False)
    with np.errstate(divide="ignore"):
        position = logit(np.asarray(scores, np.float64))
    counts = np.histogram(np.clip(position, _EDGES[0], _EDGES[-1]), _EDGES)[0]
    draws = np.random.default_rng(rng).multinomial(scores.size, counts / scores.size, size=n_boot)
    histograms = np.concatenate([counts[None], draws])
    valley, crossing = np.full((2, len(histograms)), np.nan)
    sides = np.stack([histograms[:, _MIDDLE > -_FARTHEST].sum(1), histograms[:, _MIDDLE < _FARTHEST].sum(1)])
    filled = sides.min(axis=0) >= _MIN_CELLS
    valley[filled] = [_valley(histogram) for histogram in histograms[filled]]
    unclear = filled & np.isnan(valley)
    crossing[unclear] = _mixtures(histograms[unclear])
    cuts = np.where(np.isfinite(valley), valley, np.where(np.isfinite(crossing), crossing, _DEFAULT))

    value = float(cuts[0])
    low, high = np.quantile(cuts[1:], [0.025, 0.975]) if n_boot else (np.nan, np.nan)
    # The order of arguments keeps NaN.
    low, high = float(min(low, value)), float(max(high, value))
    if np.isfinite(valley[0]):
        return ChannelThreshold(value, low, high, "valley between two modes")
    if np.isfinite(crossing[0]):
        return ChannelThreshold(value, low, high, "mixture of two beta distributions")
    above = (scores >= _DEFAULT).sum()
    beyond = "too few cells beyond" if min(above, scores.size - above) < _MIN_CELLS else "no two separate groups"
    return ChannelThreshold(value, low, high, f"0.5: {beyond}", False)


def _valley(counts: NDArray[np.int64]) -> float:
    """Threshold in the valley between two modes of a histogram; NaN without one."""
    bandwidth = _bandwidth(counts)
    density = gaussian_filter1d(counts.astype(float), bandwidth / _WIDTH, mode="reflect")
    lower_peak = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    # Counts that a Gaussian window sees vary like Poisson's; their square roots have a variance of 1/4.
    seen = 2 * np.sqrt(np.pi) * bandwidth / _WIDTH
    prominence = np.sqrt(2 * seen) * (np.sqrt(lower_peak) - np.sqrt(density))
    allowed = abs(_MIDDLE) < _FARTHEST
    bottom = int(np.argmax(np.where(allowed, prominence, -np.inf)))
    peak = lower_peak[bottom]
    fewer = min(counts[:bottom].sum(), counts[bottom:].sum())
    if prominence[bottom] < 3 or density[bottom] > 0.7 * peak or fewer < _MIN_CELLS:
        return np.nan
    outside = np.flatnonzero(density > density[bottom] + 0.25 * (peak - density[bottom]))
    at = np.searchsorted(outside, bottom)
    floor = _MIDDLE[[outside[at - 1] + 1, outside[at] - 1]]
    return float(expit(np.clip(0, *np.clip(floor, -_FARTHEST, _FARTHEST))))


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

    Expectation-maximisation whose second step matches moments, which needs no search. It starts with the parts below
    and above 0.5 and stops early, before one of the two takes over the tail of the other.
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
    enough = (gain >= 10) & (weight.sum(-1).min(-1) >= _MIN_CELLS)
    return np.array([_crossing(*group) if ok else np.nan for ok, *group in zip(enough, counts, share, strict=True)])


def _crossing(counts: NDArray, share: NDArray) -> float:
    """Threshold between two groups of cells; NaN where it would separate them badly."""
    means = (share * counts * _SCORE).sum(1) / (share * counts).sum(1)
    high = share[np.argmax(means)]
    first, last = np.searchsorted(_SCORE, np.sort(means))
    between = first + np.flatnonzero(high[first:last] >= 0.5)
    if not between.size:
        return np.nan
    cut = between[0]
    positive, negative = counts * high, counts * (1 - high)
    f1_positive = 2 * positive[cut:].sum() / (counts[cut:].sum() + positive.sum())
    f1_negative = 2 * negative[:cut].sum() / (counts[:cut].sum() + negative.sum())
    if min(f1_positive, f1_negative) < 0.8 or abs(_EDGES[cut]) > _FARTHEST:
        return np.nan
    return float(expit(_EDGES[cut]))


def _log_beta(weight: NDArray) -> NDArray[np.float64]:
    """Log density, up to the width of bins, of the beta distribution with the mean and variance of each row."""
    total, first, second = (weight @ power for power in _POWERS)
    mean = first / total
    variance = np.maximum(second / total - mean**2, 0) + 1e-5
    size = np.maximum(mean * (1 - mean) / variance - 1, 0.1)
    a, b = (mean * size)[..., None], ((1 - mean) * size)[..., None]
    return np.asarray(a * _LOG + b * _LOG_REST + gammaln(a + b) - gammaln(a) - gammaln(b))
