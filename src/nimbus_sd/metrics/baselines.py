"""By how much scores beat what labs do today: a threshold on an intensity of the cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, scaled_arcsinh, truth_states
from nimbus_sd.metrics.bootstrap import Estimate, Group, estimate_markers, interval, macro_averages, split
from nimbus_sd.metrics.judged import warn_if_fitted, with_value
from nimbus_sd.metrics.thresholds import RULES, Threshold, called_layers, rule_thresholds

_BASELINES = (keys.INTEGRATED, keys.ERODED, keys.MEDIAN, keys.POSITIVE_PIXELS)
_ARCSINH = "arcsinh_expression"


def compare_baselines(
    adata: AnnData,
    truth: str = keys.GOLD,
    pred: str = keys.NIMBUS,
    *,
    baselines: str | Sequence[str] | None = None,
    threshold: Threshold = 0.5,
    by: str | Sequence[str] | None = None,
    likely: bool = True,
    n_boot: int = 1000,
    rng: int | np.random.Generator = 0,
    region_key: str | None = None,
) -> pd.DataFrame:
    """Compare scores with thresholds on intensities, on the same cells.

    Each baseline is called by each rule of :func:`find_threshold`, applied to all its values in a channel: Otsu, a
    mixture of two Gaussians, a fixed quantile, and the best threshold that knows the truth (``"oracle"``), which is
    the ceiling of what a threshold on it can reach. Cells without a label, a score or a value of the baseline count
    for neither.

    Parameters
    ----------
    adata, truth, likely, rng, region_key
        As for :func:`marker_metrics`.
    pred
        Layer of scores.
    baselines
        Layers. By default those that exist of ``"integrated_expression"``, ``"eroded_expression"``,
        ``"median_expression"`` and ``"positive_pixels"`` (:func:`nimbus_sd.tl.cell_features`), and
        ``"arcsinh_expression"``: arcsinh(x / c) of the integrated expression x, where the cofactor c of a channel is
        the median of its values above 0. It needs no layer.
    threshold
        Scores at or above it are called positive; all that :func:`marker_metrics` takes for one layer.
    by
        Column of ``obs``, or several: F1 is averaged over markers in each group and then over groups. The paper takes
        data sets as groups.
    n_boot
        Number of bootstrap draws for 95 % intervals, the same for scores and baselines; 0 for none. Thresholds are
        not found again in each draw.

    Returns
    -------
    DataFrame
        One row per ``baseline`` and ``rule`` (index). ``cells`` (judged cells of all markers), ``markers`` (with an
        F1; in each group), ``f1`` of the baseline and ``f1_scores`` (macro averages), ``difference`` (scores minus
        baseline), ``markers_better`` (where scores have the larger F1). With ``n_boot`` also ``difference_low``,
        ``difference_high``, ``n_regions`` and ``resampled`` as in :func:`marker_metrics`.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.layers["gold"] * 100
    >>> table = ns.metrics.compare_baselines(adata, pred="gold", n_boot=100)
    >>> float(table.loc[("integrated_expression", "oracle"), "difference"])
    0.0
    """
    states = truth_states(adata, truth, likely=likely)
    groups, whole = split(adata, states, as_list(by or []), n_boot=n_boot, rng=rng, region_key=region_key)
    _, scores, scored, cuts = next(called_layers(adata, [pred], states, threshold))
    warn_if_fitted(adata, pred, states)
    rows = {}
    for name, values in _baselines(adata, baselines):
        judged = with_value(scored, values, name)
        ours, our_f1 = _macro_f1(scores, judged, cuts, groups, whole)
        for rule in RULES:
            theirs, their_f1 = _macro_f1(values, judged, rule_thresholds(values, rule, judged), groups, whole)
            row: dict[str, float | str] = {
                "cells": ours.point["cells"],
                "markers": int(np.isfinite(our_f1).sum()),
                "f1": theirs.point["f1"],
                "f1_scores": ours.point["f1"],
                "difference": ours.point["f1"] - theirs.point["f1"],
                "markers_better": int((our_f1 > their_f1).sum()),
            }
            if ours.draws:
                low, high = interval(ours.draws["f1"] - theirs.draws["f1"], ours.units)
                row |= {"difference_low": low, "difference_high": high}
                row |= {"n_regions": ours.regions, "resampled": ours.resampled}
            rows[name, rule] = row
    index = pd.MultiIndex.from_tuples(rows, names=["baseline", "rule"])
    return pd.DataFrame(list(rows.values()), index=index)


def _baselines(adata: AnnData, names: str | Sequence[str] | None) -> Iterator[tuple[str, NDArray]]:
    """Yield the names and values of baselines."""
    if names is None:
        names = [name for name in _BASELINES if name in adata.layers]
        if not names:
            raise KeyError(
                f"There is no layer of a baseline ({', '.join(_BASELINES)}); there are "
                f"{sorted(key for key in adata.layers if key)}. `predict` and `tl.cell_features` add them."
            )
        names += [_ARCSINH] if keys.INTEGRATED in names else []
    for name in as_list(names):
        computed = name == _ARCSINH and name not in adata.layers
        yield name, scaled_arcsinh(layer(adata, keys.INTEGRATED)) if computed else layer(adata, name)


def _macro_f1(
    values: NDArray, states: NDArray[np.int8], cuts: Sequence[float], groups: Sequence[Group], whole: Group
) -> tuple[Estimate, NDArray[np.float64]]:
    """Average F1 over markers and groups, and F1 of each marker in each group."""
    parts = [estimate_markers(values, states, cuts, group, "macro", ["f1"]) for group in groups]
    f1 = np.array([marker.point["f1"] for markers in parts for marker in markers])
    return macro_averages(parts, groups, whole)[-1], f1
