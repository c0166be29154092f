"""Scores fitted to labels: one map for all channels together, or a line for each marker."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit
from sklearn.isotonic import IsotonicRegression

from nimbus_sd import keys
from nimbus_sd._table import as_list, at_or_above, outside_unit_interval, region_column, truth_states
from nimbus_sd._table import layer as read_layer
from nimbus_sd.tl._results import check_key_added, log_overwritten

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

# Standard deviations of the prior on log slope and offset, measured by benchmarks/adapt.py.
PRIOR = (1.0, 1.0)
# The closest that a score gets to 0 or 1, and the largest log slope.
_CLOSEST, _STEEPEST = 1e-4, 3.0
_FOLDS, _MIN_REGIONS, _MIN_LABELS = 5, 3, 5
_UNLABELLED = "no labels"


def calibrate(
    adata: AnnData,
    *,
    regions: str | Sequence[str],
    layer: str = keys.NIMBUS,
    truth: str = keys.GOLD,
    likely: bool = True,
    key_added: str = "nimbus_calibrated",
    region_key: str | None = None,
) -> None:
    """Map scores to probabilities by the truth of some regions; judge the result on the others.

    One isotonic (non-decreasing) map for all channels together, for hundreds of labels and more; :func:`adapt` fits
    each channel by its own, and needs few. Warns of channels that get worse, and if no judged region is left.

    Parameters
    ----------
    adata
        Cells x channels.
    regions
        Regions whose truth is used to fit.
    layer
        Layer of scores in [0, 1].
    truth
        Layer of labels: above 0.5 positive, below negative; 0.5 (undetermined) and NaN are left out.
    likely
        Whether to use the labels 0.25 and 0.75 (likely negative and positive).
    key_added
        Name of the results.
    region_key
        Column of ``obs`` that names a cell's region; by default the annotated one, else ``"region"``.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``layers[key_added]``: float32 in [0, 1], non-decreasing in the score, NaN where the score is NaN
        - ``uns[key_added]``: ``params``, ``fitted_on`` (regions; metrics warn if they are judged on), ``cells`` and
          ``positives`` used to fit

    Raises
    ------
    ValueError
        If the truth lacks a class, or scores are not higher in positive cells.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["nimbus"] = 0.2 + 0.5 * adata.layers["gold"]
    >>> ns.tl.calibrate(adata, regions="fov1_labels")
    >>> ns.metrics.calibration_error(adata[adata.obs["region"] == "fov2_labels"], "nimbus_calibrated").loc["all", "ece"]
    np.float64(0.0)
    """
    earlier = check_key_added(adata, key_added, "calibrate")
    scores, states = _scores_and_labels(adata, layer, truth, likely, key_added)
    region, named = _regions(adata, regions, region_key)
    labelled = states >= 0
    inside = region.isin(named).to_numpy()[:, None]
    used = labelled & inside
    positive = states[used] == 1
    fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    if not 0 < positive.sum() < positive.size or np.ptp(fit.fit(scores[used], positive).y_thresholds_) == 0:
        cells = f"there are {positive.sum()} positive and {(~positive).sum()} negative ones"
        what = f"Layer {layer!r} cannot be calibrated by region(s) {named}: it needs higher scores in positive cells"
        raise ValueError(f"{what} than in negative ones; {cells}.")
    result = np.full(scores.shape, np.nan, np.float32)
    worse = []
    for i, name in enumerate(adata.var_names):
        scored, cells = np.isfinite(scores[:, i]), used[:, i]
        if scored.any():
            result[scored, i] = fit.predict(scores[scored, i])
        before, after = (((x[cells, i] - (states[cells, i] == 1)) ** 2).sum() for x in (scores, result))
        # One or two cells more do not count.
        if after > before + 1:
            worse.append(str(name))

    adata.layers[key_added] = result
    adata.uns[key_added] = {
        "tool": "calibrate",
        "params": {"layer": layer, "truth": truth, "likely": likely, "region_key": str(region.name)},
        "fitted_on": named,
        "cells": int(used.sum()),
        "positives": int(positive.sum()),
    }
    if worse:
        message = f"The fit makes {', '.join(map(repr, worse))} worse (larger Brier score in the regions used to fit)"
        warnings.warn(f"{message}: `tl.adapt` fits each marker by its own cells.", stacklevel=2)
    if not (labelled & ~inside).any():
        warnings.warn(f"All labels were used to fit {key_added!r}: none is left to judge it on.", stacklevel=2)
    log_overwritten(earlier, "calibrate")
    logger.info("added layers[%r]: fitted on %d cells of %d regions", key_added, used.sum(), len(named))


def adapt(
    adata: AnnData,
    *,
    labels: str = keys.GOLD_TRAINING,
    regions: str | Sequence[str] | None = None,
    layer: str = keys.NIMBUS,
    likely: bool = True,
    key_added: str = "nimbus_adapted",
    region_key: str | None = None,
) -> None:
    """Adjust each marker's scores to a few labels, without reading pixels again.

    The logit of a marker's scores gets its own slope and offset: logistic regression on the marker's labelled cells,
    with a prior at slope 1 and offset 0, the scores as they are. So a few labels move the scores cautiously, many
    decide, and a marker without labels stays as it is. The order of cells is never reversed. Warns of markers whose
    labels are too few or contradict the scores.

    Parameters
    ----------
    adata
        Cells x channels.
    labels
        Layer of labels: above 0.5 positive, below negative; 0.5 (undetermined) and NaN are left out.
    regions
        Regions whose labels may be used; None takes all. With ``labels="gold"``, the others stay for evaluation.
    layer, likely, key_added, region_key
        As for :func:`calibrate`.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``layers[key_added]``: in [0, 1], non-decreasing in the score, NaN where that is; as before without labels
        - ``varm[key_added]``: DataFrame channels x (``slope``, ``offset``, ``labels``, ``positives``, ``f1_before``,
          ``f1_after``, ``log_loss_before``, ``log_loss_after``, ``held_out``, ``reason``). F1 (at 0.5) and log loss
          are cross-validated: of labelled cells, each adjusted by a fit without its part. Parts (at most five) are of
          whole ``"regions"`` where at least three have labels of the marker, else of ``"cells"`` (neighbours may
          flatter). ``reason`` is ``"no labels"``, ``"too few labels: ..."`` (under 5), ``"labels of one class: ..."``,
          ``"scores are not higher in positive cells"``, or empty
        - ``obs[f"{key_added}_fitted"]``: cells whose labels were used; metrics warn if they are judged on
        - ``uns[key_added]``: ``params``, ``regions`` (of the labels used), ``held_out``: these figures over all markers

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["nimbus"] = 0.2 + 0.2 * adata.layers["gold"]
    >>> ns.tl.adapt(adata, labels="gold", regions="fov1_labels")
    >>> adata.varm["nimbus_adapted"][["f1_before", "f1_after"]].loc["CD3"].to_list()
    [0.0, 1.0]
    """
    fitted_key = f"{key_added}_fitted"
    earlier = check_key_added(adata, key_added, "adapt", [("obs", fitted_key)])
    if labels == keys.GOLD and regions is None:
        advice = f"name the `regions` that may be used, or put labels for training into layers[{keys.GOLD_TRAINING!r}]"
        raise ValueError(f"`labels` is {labels!r}, the labels for evaluation: {advice}.")
    scores, states = _scores_and_labels(adata, layer, labels, likely, key_added)
    region, named = _regions(adata, regions, region_key)
    codes, inside = region.cat.codes.to_numpy(), region.isin(named).to_numpy()
    # Channel by channel: a table of millions of cells is copied once, in its own precision.
    result = np.array(scores, dtype=scores.dtype if scores.dtype.kind == "f" else np.float32)
    fitted = np.zeros(adata.n_obs, bool)
    rows, outcomes = [], []
    for i in range(adata.n_vars):
        used = np.flatnonzero((states[:, i] >= 0) & inside)
        fitted[used] = True
        before, positive = scores[used, i], states[used, i] == 1
        slope, offset = fit_line(before, positive)
        if len(used):
            result[:, i] = move(scores[:, i], slope, offset)
        after, unit = _held_out(before, positive, codes[used])
        outcomes.append((before, after, positive))
        rows.append(
            {"slope": slope, "offset": offset, "labels": len(used), "positives": int(positive.sum())}
            | f1_and_log_loss(before, after, positive)
            | {"held_out": unit, "reason": _fit_problem(before, positive)}
        )
    if not fitted.any():
        raise ValueError(f"Layer {labels!r} labels no cell with a score in region(s) {named}.")

    table = pd.DataFrame(rows, index=adata.var_names).astype({"held_out": "category", "reason": "category"})
    adata.layers[key_added] = result
    adata.varm[key_added] = table
    adata.obs[fitted_key] = fitted
    adata.uns[key_added] = {
        "tool": "adapt",
        "params": {"layer": layer, "labels": labels, "likely": likely, "region_key": str(region.name)},
        "regions": sorted(set(region[fitted])),
        "held_out": f1_and_log_loss(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True))),
        "fitted_cells": fitted_key,
    }
    if doubtful := [f"{str(name)!r} ({why})" for name, why in table["reason"].items() if why not in ("", _UNLABELLED)]:
        advice = f"Label more cells, and look at varm[{key_added!r}], before using"
        warnings.warn(f"{advice} {', '.join(doubtful)}.", stacklevel=2)
    log_overwritten(earlier, "adapt")
    logger.info("added layers[%r]: %d of %d markers adapted", key_added, (table["labels"] > 0).sum(), adata.n_vars)


def _scores_and_labels(adata: AnnData, layer: str, truth: str, likely: bool, key_added: str) -> tuple[NDArray, NDArray]:
    """Return scores in [0, 1], and labels: 1 positive, 0 negative, -1 without a label or a score."""
    scores = read_layer(adata, layer)
    if key_added in (layer, truth):
        raise ValueError(f"`key_added` is {key_added!r}, a layer that is needed; choose another name.")
    if outside_unit_interval(scores).any():
        raise ValueError(f"Layer {layer!r} has values outside [0, 1]; only scores can be fitted to labels.")
    states = truth_states(adata, truth, likely=likely)
    states[~np.isfinite(scores)] = -1
    return scores, states


def _regions(adata: AnnData, regions: str | Sequence[str] | None, key: str | None) -> tuple[pd.Series, list[str]]:
    """Return each cell's region, categories of text, and the regions that are named; None names all."""
    region = region_column(adata, key).astype("category")
    region = region.cat.remove_unused_categories().cat.rename_categories(str)
    present = list(region.cat.categories)
    named = present if regions is None else [str(name) for name in as_list(regions)]
    unknown = [name for name in named if name not in present]
    if unknown or not named:
        fault = f"names {unknown}, which are not there" if unknown else "names none"
        raise KeyError(f"`regions` {fault}; obs[{region.name!r}] has {present}.")
    return region, named


def fit_line(scores: NDArray, positive: NDArray[np.bool_], prior: tuple[float, float] = PRIOR) -> tuple[float, float]:
    """Return the most probable slope (above 0) and offset of the scores' logit, given labels and a prior."""
    if not len(scores):
        return 1.0, 0.0
    x, sign, sd = logit(_clipped(scores)), np.where(positive, 1.0, -1.0), np.array(prior)

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
    """Apply slope and offset to the logit of scores; 0 and 1 stay."""
    return expit(slope * logit(np.asarray(scores, np.float64)) + offset).astype(np.float32)


def _held_out(scores: NDArray, positive: NDArray[np.bool_], region: NDArray) -> tuple[NDArray[np.float32], str]:
    """Move each labelled cell by a line that is fitted without its part; say what parts are made of."""
    names, fold = np.unique(region, return_inverse=True)
    unit = "regions" if len(names) >= _MIN_REGIONS else "cells"
    if unit == "cells":
        # Both classes in turn, so that each part has its share.
        fold[np.argsort(positive, kind="stable")] = np.arange(len(positive))
    fold = fold % _FOLDS
    moved = np.empty(len(scores), np.float32)
    for part in np.unique(fold):
        out = fold == part
        moved[out] = move(scores[out], *fit_line(scores[~out], positive[~out]))
    return moved, unit if len(scores) else ""


def f1_and_log_loss(before: NDArray, after: NDArray, positive: NDArray[np.bool_]) -> dict[str, float]:
    """F1 at 0.5 and log loss of scores before and after; NaN where there is nothing to compute them from."""
    f1, loss = {}, {}
    for name, scores in (("before", before), ("after", after)):
        called, wrong = at_or_above(scores, 0.5), np.abs(_clipped(scores) - positive)
        correct = 2 * (called & positive).sum()
        f1[f"f1_{name}"] = float(correct / (called.sum() + positive.sum())) if positive.any() else np.nan
        loss[f"log_loss_{name}"] = float(-np.log1p(-wrong).mean()) if len(scores) else np.nan
    return f1 | loss


def _clipped(scores: NDArray) -> NDArray[np.float64]:
    """Keep scores away from 0 and 1, which have no finite logit."""
    return np.clip(np.asarray(scores, np.float64), _CLOSEST, 1 - _CLOSEST)


def _fit_problem(scores: NDArray, positive: NDArray[np.bool_]) -> str:
    """Say why a marker's line is not reliable; empty if nothing speaks against it."""
    labels, positives = len(positive), int(positive.sum())
    if not labels:
        return _UNLABELLED
    if labels < _MIN_LABELS or positives in (0, labels):
        problem = "too few labels" if labels < _MIN_LABELS else "labels of one class"
        return f"{problem}: {positives} positive, {labels - positives} negative"
    return "" if scores[positive].mean() > scores[~positive].mean() else "scores are not higher in positive cells"
