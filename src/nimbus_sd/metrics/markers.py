"""How well a layer agrees with the truth, and by how much scores beat a threshold on an intensity of the cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, scaled_arcsinh, truth_states
from nimbus_sd.metrics.bootstrap import Average, Estimate, Group, estimate_markers, interval, macro_averages, split
from nimbus_sd.metrics.judged import Names, States, warn_if_fitted, with_value
from nimbus_sd.metrics.thresholds import RULES, Threshold, called_layers, rule_thresholds

_BASELINES = (keys.INTEGRATED, keys.ERODED, keys.MEDIAN, keys.POSITIVE_PIXELS)
_ARCSINH = "arcsinh_expression"


def marker_metrics(
    adata: AnnData,
    pred: Names = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    threshold: Threshold | Mapping[str, Threshold] = 0.5,
    by: Names | None = None,
    average: Average | None = None,
    likely: bool = True,
    n_boot: int = 0,
    rng: int | np.random.Generator = 0,
    region_key: str | None = None,
) -> pd.DataFrame:
    """Compare layers with the truth (Rumberger et al., "Validation and benchmarking").

    Parameters
    ----------
    adata
        Cells x channels.
    pred
        Layer of scores, or of any values that are larger for positive cells; or several, each compared on the cells
        that it has a value for. Undetermined cells of ``"silver"`` and ``"gold"`` have none.
    truth
        Layer of labels in [0, 1]: above 0.5 positive, below 0.5 negative; 0.5 (undetermined) and NaN are left out.
    threshold
        Cells at or above it are called positive; in units of the layer. A number, or a rule of :func:`find_threshold`,
        applied to all the layer's values in the channel, judged or not: ``"otsu"``, ``"mixture"``, ``"quantile"``, or
        ``"oracle"``, which knows the truth and is a ceiling. Or a mapping from channels to these, in which ``"*"`` is
        for all others; without it they have 0.5. With several layers also a mapping from each to one of all these.
    by
        Column of ``obs``, or several, such as ``"region"``: one result for each group of cells. Cells without a value
        there are left out. Thresholds are those of the whole table.
    average
        ``"macro"`` takes the mean over markers in each group, and with ``by`` adds the mean over groups: the paper's
        way (Fig. 3), with data sets as groups. A metric that is NaN for a marker does not count. ``"pooled"`` puts
        the cells of all markers together, and with ``by`` adds all groups together; the authors' code for Fig. 4
        takes the mean of such groups.
    likely
        Whether cells labelled 0.75 and 0.25 (likely positive, likely negative) count.
    n_boot
        Number of bootstrap draws for 95 % intervals; 1000 is usual. Thresholds are not found again in each draw.
    rng
        Seed or generator of the draws.
    region_key
        Column of ``obs`` with the region of each cell, for the bootstrap; by default the one that the table's
        annotation names, else ``"region"``.

    Returns
    -------
    DataFrame
        One row per marker, index ``channel``; in front of it levels ``layer`` (if ``pred`` is a list) and those of
        ``by``. Averages have no level ``channel`` if they have another one; the mean over groups is the last row of a
        layer, ``"mean"``, and all groups together ``"all"``.

        ``cells`` (with a label and a value), ``positives``, ``share_positive`` (of the cells, by the truth),
        ``precision``, ``recall``, ``specificity``, ``f1``, ``accuracy``, ``auroc``, ``average_precision``,
        ``threshold`` (NaN in averages of several). In macro averages cells and positives are sums.

        With ``n_boot`` also ``<metric>_low`` and ``<metric>_high`` (see ``metrics.bootstrap.interval``), ``n_regions``
        (with a judged cell), ``resampled``: ``"regions"``, or ``"cells"`` where there are fewer than 5 regions; such an
        interval is too narrow for other regions than these.

        A metric without cells to compute it from is NaN: a marker without positive cells has only specificity, one
        without negative cells no specificity and AUROC. Where cells are positive but none is called, precision is 0.

    Warns
    -----
    UserWarning
        If a threshold as for scores meets a layer of other values, or a layer is judged on cells that
        :func:`nimbus_sd.tl.calibrate` or :func:`nimbus_sd.tl.adapt` fitted it on.

    Examples
    --------
    Scores beside intensities, each with a threshold of its own:

    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["mean"] = 100 * adata.layers["gold"]
    >>> both = ns.metrics.marker_metrics(adata, ["gold", "mean"], threshold={"gold": 0.5, "mean": "otsu"})
    >>> both.loc[("mean", "CD3"), "auroc"].item()
    1.0
    """
    if average not in (None, "macro", "pooled"):
        raise ValueError(f"`average` is {average!r}; it must be None, 'macro' or 'pooled'.")
    names, columns = as_list(pred), as_list(by or [])
    if not names:
        raise ValueError("`pred` names no layer; pass one or several.")
    states = truth_states(adata, truth, likely=likely)
    groups, whole = split(adata, states, columns, n_boot, rng, region_key)
    measured = groups
    if average == "pooled":
        measured = [*groups, whole] if columns else [whole]
    places = [group.key for group in measured]
    if average is None:
        places = [(*place, channel) for place in places for channel in adata.var_names]
    elif average == "macro":
        places = [*filter(None, places), ("mean",) * max(1, len(columns))]

    rows, index = [], []
    for name, values, valued, cuts in called_layers(adata, names, states, threshold):
        warn_if_fitted(adata, name, states)
        parts = [estimate_markers(values, valued, cuts, group, average) for group in measured]
        if average == "macro":
            parts = [macro_averages(parts, groups, whole)[-len(places) :]]
        rows += [estimate.row() for estimates in parts for estimate in estimates]
        index += places if isinstance(pred, str) else [(name, *place) for place in places]

    levels = [*([] if isinstance(pred, str) else ["layer"]), *columns, *([] if columns and average else ["channel"])]
    if len(levels) == 1:
        return pd.DataFrame(rows, index=pd.Index([place for (place,) in index], name=levels[0]))
    return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(index, names=levels))


def compare_baselines(
    adata: AnnData,
    truth: str = keys.GOLD,
    pred: str = keys.NIMBUS,
    *,
    baselines: Names | None = None,
    threshold: Threshold = 0.5,
    by: Names | None = None,
    likely: bool = True,
    n_boot: int = 1000,
    rng: int | np.random.Generator = 0,
    region_key: str | None = None,
) -> pd.DataFrame:
    """Compare scores with thresholds on intensities, on the same cells.

    Each baseline is called by each rule of :func:`find_threshold`, applied to all its values in a channel; the
    ``"oracle"`` is the ceiling of what a threshold on it can reach. Cells without a label, a score or a value of the
    baseline count for neither.

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
    groups, whole = split(adata, states, as_list(by or []), n_boot, rng, region_key)
    _, scores, scored, cuts = next(called_layers(adata, [pred], states, threshold))
    warn_if_fitted(adata, pred, states)
    rows = {}
    for name, values in _baselines(adata, baselines):
        judged = with_value(scored, values, name)
        ours, our_f1 = _macro_f1(scores, judged, cuts, groups, whole)
        for rule in RULES:
            theirs, their_f1 = _macro_f1(
                values, judged, rule_thresholds(values, [rule] * values.shape[1], judged), groups, whole
            )
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


def _baselines(adata: AnnData, names: Names | None) -> Iterator[tuple[str, NDArray]]:
    """Yield the names and values of baselines."""
    if names is None:
        names = [name for name in _BASELINES if name in adata.layers]
        if not names:
            existing = sorted(key for key in adata.layers if key)
            raise KeyError(f"There is no layer of {_BASELINES}, which `tl.cell_features` adds; there are {existing}.")
        names += [_ARCSINH] if keys.INTEGRATED in names else []
    for name in as_list(names):
        computed = name == _ARCSINH and name not in adata.layers
        yield name, scaled_arcsinh(layer(adata, keys.INTEGRATED)) if computed else layer(adata, name)


def _macro_f1(
    values: NDArray, states: States, cuts: Sequence[float], groups: Sequence[Group], whole: Group
) -> tuple[Estimate, NDArray[np.float64]]:
    """Average F1 over markers and groups, and F1 of each marker in each group."""
    parts = [estimate_markers(values, states, cuts, group, "macro", ["f1"]) for group in groups]
    f1 = np.array([marker.point["f1"] for markers in parts for marker in markers])
    return macro_averages(parts, groups, whole)[-1], f1
