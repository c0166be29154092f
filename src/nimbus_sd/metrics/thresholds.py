"""Rules that labs use to part positive from negative cells by one value."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rule = Literal["otsu", "mixture", "quantile", "oracle"]
RULES: tuple[str, ...] = get_args(Rule)

#: The share of cells that the rule "quantile" leaves below.
QUANTILE = 0.9
# Bins of Otsu's histogram.
_BINS = 256
# Values that a mixture is fitted to, at most: more do not change the threshold visibly.
_FITTED = 10_000


def find_threshold(values: ArrayLike, method: Rule, positive: ArrayLike | None = None) -> float:
    """Find the value at and above which a cell is called positive.

    Parameters
    ----------
    values
        Values of the cells of one channel, any shape and unit; those that are not finite are left out.
    method
        ``"otsu"``
            Just above Otsu's threshold: above the bin whose centre :func:`skimage.filters.threshold_otsu` returns.
        ``"mixture"``
            Where the upper of two Gaussians (:class:`sklearn.mixture.GaussianMixture`, seeded, fitted to at most
            10,000 of the values) becomes more likely than the lower: the crossing point above the lower mean.
        ``"quantile"``
            Just above the 90 % quantile: a tenth of the cells, or fewer where values are equal.
        ``"oracle"``
            The best F1 that any threshold can reach. It needs the truth, so it is a ceiling and no rule to use.
    positive
        Truth of the cells, boolean, as long as ``values``; for ``"oracle"``.

    Returns
    -------
    float
        Infinite where the rule cannot part the values: all are the same, or one Gaussian covers the other, or no
        cell is positive. Then nobody is called positive.

    Raises
    ------
    ValueError
        If the rule is unknown, or the truth is missing or of another length.

    Notes
    -----
    Integrated expression is called by such thresholds, often set by hand (Rumberger et al., Methods, the Vectra data
    sets). A heavy-tailed channel is better given as its arcsinh to the rules that look at the shape.

    Examples
    --------
    >>> import numpy as np
    >>> from nimbus_sd.metrics import find_threshold
    >>> find_threshold([0.1, 0.2, 0.3, 0.8], "oracle", [False, False, True, True])
    0.3
    >>> rng = np.random.default_rng(0)
    >>> two = np.concatenate([rng.normal(0, 1, 500), rng.normal(8, 1, 500)])
    >>> 3 < find_threshold(two, "mixture") < 5
    True
    """
    if method not in RULES:
        raise ValueError(f"The threshold rule is {method!r}; it must be one of {', '.join(map(repr, RULES))}.")
    array = np.asarray(values)
    finite = np.isfinite(array)
    if method == "oracle":
        if positive is None or np.shape(positive) != array.shape:
            raise ValueError("The rule 'oracle' needs `positive`: the truth of every cell, as long as `values`.")
        return _oracle(array[finite], np.asarray(positive, bool)[finite])
    known = array[finite]
    if known.size == 0 or known.min() == known.max():
        return float("inf")
    if method == "mixture":
        return _mixture(known)
    return _just_above(_otsu(known) if method == "otsu" else float(np.quantile(known, QUANTILE)), known.dtype)


def _otsu(values: NDArray) -> float:
    from skimage.filters import threshold_otsu

    # The threshold is the centre of a bin of its histogram, all of which belongs to the lower class.
    half = 0 if np.issubdtype(values.dtype, np.integer) else float(np.ptp(values)) / _BINS / 2
    return float(threshold_otsu(values, nbins=_BINS)) + half


def _just_above(cut: float, dtype: np.dtype) -> float:
    """Return the smallest number of the values' own precision that is larger: at or above it is above the cut."""
    near = np.asarray(cut, dtype if np.issubdtype(dtype, np.floating) else np.float64)
    return float(near if near > cut else np.nextafter(near, np.asarray(np.inf, near.dtype)))


def _oracle(values: NDArray, positive: NDArray[np.bool_]) -> float:
    from sklearn.metrics import precision_recall_curve

    if not positive.any():
        return float("inf")
    precision, recall, cuts = precision_recall_curve(positive, values)
    precision, recall = precision[:-1], recall[:-1]
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(cuts[np.argmax(f1)])


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
    lower, upper = np.argsort(fit.means_[:, 0])
    mean, variance = fit.means_[[lower, upper], 0], fit.covariances_[[lower, upper], 0, 0]
    weight = np.log(fit.weights_[[lower, upper]]) - np.log(variance) / 2
    # The logarithm of the odds, upper to lower, is a parabola: a x^2 + b x + c.
    squared = np.array([-0.5 / variance, mean / variance, weight - mean**2 / (2 * variance)])
    odds = np.polynomial.Polynomial((squared[:, 1] - squared[:, 0])[::-1])
    if odds(mean[0]) >= 0:
        return float("inf")
    roots = odds.roots()
    above = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and root.real > mean[0]]
    return min(above) * float(spread) + float(centre) if above else float("inf")
