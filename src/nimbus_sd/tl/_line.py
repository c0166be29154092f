"""The line of a marker: slope and offset of the scores' logit, held at 1 and 0 by a prior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from nimbus_sd._table import at_or_above
from nimbus_sd.metrics import Judged, measure

# Standard deviations of the prior on log slope and offset, measured by benchmarks/adapt.py.
PRIOR = (1.0, 1.0)
# Scores of 0 and 1 have no finite logit.
_CLOSEST = 1e-4
_STEEPEST = 3.0
_FOLDS = 5
_REGIONS = 3


def fit_line(scores: NDArray, positive: NDArray[np.bool_], prior: tuple[float, float] = PRIOR) -> tuple[float, float]:
    """Return slope, always above 0, and offset of the logit that are most probable after these labels."""
    if not len(scores):
        return 1.0, 0.0
    x, sign, sd = logit(_inside(scores)), np.where(positive, 1.0, -1.0), np.array(prior)

    def cost(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope = np.exp(line[0])
        margin = sign * (slope * x + line[1])
        pull = -sign * expit(-margin)
        value = ((line / sd) ** 2).sum() / 2 - log_expit(margin).sum()
        gradient = np.array([slope * (pull @ x), pull.sum()]) + line / sd**2
        return value / len(x), gradient / len(x)

    bounds = [(-_STEEPEST, _STEEPEST), (None, None)]
    log_slope, offset = minimize(cost, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-10).x
    return float(np.exp(log_slope)), float(offset)


def move(scores: NDArray, slope: float, offset: float) -> NDArray[np.float32]:
    """Put scores on a line; 0 and 1 stay."""
    return expit(slope * logit(np.asarray(scores, np.float64)) + offset).astype(np.float32)


def held_out(scores: NDArray, positive: NDArray[np.bool_], region: NDArray) -> tuple[NDArray[np.float32], str]:
    """Move each labelled cell by a line that its own part did not help to fit; say what parts are made of."""
    names, fold = np.unique(region, return_inverse=True)
    unit = "regions" if len(names) >= _REGIONS else "cells"
    if unit == "cells":
        # Both classes in turn, so that each part has its share.
        fold[np.argsort(positive, kind="stable")] = np.arange(len(positive))
    fold = fold % _FOLDS
    moved = np.empty(len(scores), np.float32)
    for part in np.unique(fold):
        out = fold == part
        moved[out] = move(scores[out], *fit_line(scores[~out], positive[~out]))
    return moved, unit if len(scores) else ""


def judge(before: NDArray, after: NDArray, positive: NDArray[np.bool_]) -> dict[str, float]:
    """F1 at 0.5 and log loss of scores before and after; NaN where there is nothing to compute them from."""
    found = {}
    for name, scores in (("before", before), ("after", after)):
        cells = Judged(np.arange(len(scores)), scores, positive, at_or_above(scores, 0.5))
        wrong = np.where(positive, 1 - _inside(scores), _inside(scores))
        found[f"f1_{name}"] = measure(cells, ["f1"])["f1"]
        found[f"log_loss_{name}"] = float(-np.log1p(-wrong).mean()) if len(scores) else float("nan")
    return {name: found[name] for name in ("f1_before", "f1_after", "log_loss_before", "log_loss_after")}


def _inside(scores: NDArray) -> NDArray[np.float64]:
    return np.clip(np.asarray(scores, np.float64), _CLOSEST, 1 - _CLOSEST)
