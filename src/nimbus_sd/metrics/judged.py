"""Judged cells, those with a label and a value, and their metrics: of all cells, and of each draw of a bootstrap."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import auc, roc_curve

from nimbus_sd import keys
from nimbus_sd._table import UNDETERMINED, at_or_above

Flags: TypeAlias = NDArray[np.bool_]
Names: TypeAlias = str | Sequence[str]
#: 1 positive, 0 negative, -1 not judged; cells x channels, or of one channel.
States: TypeAlias = NDArray[np.int8]

RATES = ("precision", "recall", "specificity", "f1", "accuracy")
METRICS = (*RATES, "auroc", "average_precision")

# Numbers in one block of resampled sums: 16 MB.
_BLOCK = 2_000_000


class Judged(NamedTuple):
    """Cells that have a label and a value, in one channel or in several together; arrays of one length."""

    cells: NDArray[np.intp]
    values: NDArray
    positive: Flags
    called: Flags


def with_value(states: States, values: NDArray, name: str) -> States:
    """Set states to -1 (not judged) where a layer has no value; an undetermined label is none."""
    valued = np.isfinite(values)
    if name in keys.LABELS:
        valued &= values != UNDETERMINED
    return np.where(valued, states, np.int8(-1))


def judged_cells(
    values: NDArray, states: States, cuts: Sequence[float], cells: NDArray[np.intp] | slice = slice(None)
) -> Iterator[Judged]:
    """Yield the judged cells of each channel, numbered by their position in ``cells``."""
    for i, cut in enumerate(cuts):
        state = states[cells, i]
        kept = np.flatnonzero(state >= 0)
        value = values[cells, i][kept]
        yield Judged(kept, value, state[kept] == 1, at_or_above(value, cut))


def pool(parts: Iterable[Judged]) -> Judged:
    """Put the cells of all channels together."""
    return Judged(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def measure(judged: Judged, metrics: Sequence[str] = METRICS) -> dict[str, float]:
    """Count cells and positives, and compute metrics."""
    figures: dict[str, Any] = rates(*np.bincount(_outcome(judged), minlength=4))
    if not set(metrics) <= set(RATES):
        figures |= _ranking(judged.values, judged.positive)
    cells, positives = len(judged.positive), int(judged.positive.sum())
    counts = {"cells": cells, "positives": positives, "share_positive": positives / cells if cells else float("nan")}
    return counts | {name: float(figures[name]) for name in metrics}


def resample(
    judged: Judged, unit: NDArray[np.intp], weights: NDArray, metrics: Sequence[str] = METRICS
) -> dict[str, NDArray]:
    """Compute metrics in every draw: ``unit`` is each cell's region or place, ``weights`` are draws x units."""
    n_units = weights.shape[1]
    counts = _count(_outcome(judged), unit, (4, n_units))
    ranks = None if set(metrics) <= set(RATES) else _rank_counts(judged, unit, n_units)
    size = max(1, _BLOCK // max(ranks[0].shape[0] if ranks else 4, n_units, 1))
    blocks = []
    for start in range(0, len(weights), size):
        drawn = weights[start : start + size].T.astype(np.float64, order="C")
        blocks.append(rates(*(counts @ drawn)) | (_drawn_ranking(*(count @ drawn for count in ranks)) if ranks else {}))
    return {name: np.concatenate([block[name] for block in blocks]) for name in metrics}


def _outcome(judged: Judged) -> NDArray[np.intp]:
    """0 true negative, 1 false positive, 2 false negative, 3 true positive."""
    return 2 * judged.positive.astype(np.intp) + judged.called


def rates(tn: NDArray, fp: NDArray, fn: NDArray, tp: NDArray) -> dict[str, NDArray]:
    """Compute rates from counts; NaN without cells to compute one from, and all but specificity without positives."""
    positives = tp + fn
    # Where positive cells exist and none is called, precision is 0 rather than missing: it counts in averages.
    calls = np.where(positives > 0, np.maximum(tp + fp, 1), 0)
    return {
        "precision": _ratio(tp, calls),
        "recall": _ratio(tp, positives),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, np.where(positives > 0, positives + tp + fp, 0)),
        "accuracy": _ratio(tp + tn, np.where(positives > 0, positives + tn + fp, 0)),
    }


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _ranking(values: NDArray, positive: Flags) -> dict[str, float]:
    """Area under the ROC curve and average precision, of one sort."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return {"auroc": np.nan, "average_precision": 1.0 if positives else np.nan}
    false, true, _ = roc_curve(positive, values, drop_intermediate=False)
    precision = true[1:] * positives / (true[1:] * positives + false[1:] * negatives)
    return {"auroc": auc(false, true), "average_precision": np.diff(true) @ precision}


def _rank_counts(judged: Judged, unit: NDArray[np.intp], n_units: int) -> list[sparse.csr_array]:
    """Count positives at, negatives at or above, and negatives above each value that a positive has, by unit.

    A negative is counted in the row of the highest such value; row 0 is below all of them.
    """
    positive, negative = judged.values[judged.positive], judged.values[~judged.positive]
    levels, level = np.unique(positive, return_inverse=True)
    shape = (len(levels) + 1, n_units)
    of_negative = unit[~judged.positive]
    return [
        _count(level + 1, unit[judged.positive], shape),
        _count(np.searchsorted(levels, negative, side="right"), of_negative, shape),
        _count(np.searchsorted(levels, negative, side="left"), of_negative, shape),
    ]


def _drawn_ranking(positive: NDArray, reached: NDArray, above: NDArray) -> dict[str, NDArray]:
    """Compute AUROC and average precision of each draw (columns) from such counts.

    A positive cell of value v adds to AUROC the negative cells below v and half of those at v, to average precision
    the precision of calling v and above.
    """
    true, false, above = (np.cumsum(counts[::-1], axis=0)[::-1] for counts in (positive, reached, above))
    positives, negatives = true[0], false[0]
    won = (positive * (negatives - (false + above) / 2)).sum(axis=0)
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
    return {
        "auroc": _ratio(won, positives * negatives),
        "average_precision": _ratio((positive * precision).sum(axis=0), positives),
    }


def _count(row: NDArray[np.intp], unit: NDArray[np.intp], shape: tuple[int, int]) -> sparse.csr_array:
    """Count cells by row and unit."""
    return sparse.csr_array((np.ones(len(row)), (row, unit)), shape=shape)


def warn_if_fitted(adata: AnnData, name: str, states: States, *, stacklevel: int = 3) -> None:
    """Warn if some judged cells are among those that a layer, or a layer that it was made from, was fitted on.

    ``tl.calibrate`` is fitted on whole regions, ``tl.adapt`` on cells.
    """
    judged = (states >= 0).any(axis=1)
    seen: set[str] = set()
    while name not in seen and isinstance(entry := adata.uns.get(name), Mapping):
        seen.add(name)
        params, fitted = entry.get("params"), np.zeros(adata.n_obs, bool)
        if "fitted_on" in entry:
            regions = list(map(str, entry["fitted_on"]))
            fitted = adata.obs[str(entry["params"]["region_key"])].astype(str).isin(regions).to_numpy()
            place, others = f"the truth of region(s) {', '.join(map(repr, regions))}", "regions"
        elif "fitted_cells" in entry and entry["fitted_cells"] in adata.obs:
            fitted = adata.obs[entry["fitted_cells"]].to_numpy(bool)
            place, others = f"the cells of obs[{entry['fitted_cells']!r}]", "cells"
        if fitted[judged].any():
            share = f"{fitted[judged].mean():.0%} of the cells that it is judged on are there"
            better = f"it looks better than it is. Judge it on the other {others}."
            warnings.warn(f"Layer {name!r} was fitted on {place}, and {share}: {better}", stacklevel=stacklevel)
        name = str(params.get("layer")) if isinstance(params, Mapping) else name
