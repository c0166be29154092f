"""By how much scores beat what labs do today: a threshold on an intensity of the cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, scaled_arcsinh
from nimbus_sd.metrics._calls import Threshold, calls, thresholds_of
from nimbus_sd.metrics._estimate import Estimate, estimate, macro, mean
from nimbus_sd.metrics._fitted import warn_if_fitted
from nimbus_sd.metrics._frame import Frame, frame
from nimbus_sd.metrics.bootstrap import interval
from nimbus_sd.metrics.thresholds import RULES

if TYPE_CHECKING:
    from anndata import AnnData

BASELINES = (keys.INTEGRATED, keys.ERODED, keys.MEDIAN, keys.POSITIVE_PIXELS)
ARCSINH = "arcsinh_expression"


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
    adata
        Cells x channels.
    truth
        Layer of labels, as for :func:`marker_metrics`.
    pred
        Layer of scores.
    baselines
        Layers. By default those that exist of ``"integrated_expression"``, ``"eroded_expression"``,
        ``"median_expression"`` and ``"positive_pixels"`` (:func:`nimbus_sd.tl.cell_features`), and
        ``"arcsinh_expression"``: arcsinh(x / c) of the integrated expression x, where the cofactor c of a channel is
        the median of its values above 0. It needs no layer.
    threshold
        Scores at or above it are called positive; all that :func:`marker_metrics` takes.
    by
        Column of ``obs``, or several: F1 is averaged over markers in each group and then over groups. The paper takes
        data sets as groups.
    likely
        Whether cells labelled 0.75 and 0.25 count.
    n_boot
        Number of bootstrap draws for 95 % intervals, the same for scores and baselines; 0 for none. Thresholds stay
        as they were found: the interval is that of these thresholds in other regions, not of finding them again.
    rng
        Seed or generator of the draws.
    region_key
        Column of ``obs`` with the region of each cell, for the bootstrap; by default the one that the table's
        annotation names, else ``"region"``.

    Returns
    -------
    DataFrame
        One row per ``baseline`` and ``rule`` (index). ``cells`` (judged cells of all markers), ``markers`` (with an
        F1; in each group), ``f1`` of the baseline and ``f1_scores`` (macro averages), ``difference`` (scores minus
        baseline), ``markers_better`` (where scores have the larger F1). With ``n_boot`` also ``difference_low``,
        ``difference_high``, ``n_regions`` and ``resampled`` as in :func:`marker_metrics`.

    Raises
    ------
    KeyError
        If a layer or a column of ``obs`` does not exist, or there is no layer of a baseline.
    ValueError
        If labels are outside of [0, 1] or none says positive or negative.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.layers["gold"] * 100
    >>> found = ns.metrics.compare_baselines(adata, pred="gold", n_boot=100)
    >>> float(found.loc[("integrated_expression", "oracle"), "difference"])
    0.0
    """
    columns = as_list(by or [])
    base = frame(adata, truth, columns, likely=likely, n_boot=n_boot, rng=rng, region_key=region_key)
    scores = layer(adata, pred)
    warn_if_fitted(adata, pred, base.judged)
    cuts = thresholds_of(scores, pred, base.labels, adata.var_names, threshold, likely=likely)
    rows = {}
    for name, values in _baselines(adata, None if baselines is None else as_list(baselines)):
        ours = _macro_f1(scores, pred, cuts, base, (name, values))
        for rule in RULES:
            found = thresholds_of(
                values, name, base.labels, adata.var_names, rule, likely=likely, beside=(pred, scores)
            )
            rows[name, rule] = _row(ours, _macro_f1(values, name, found, base, (pred, scores)))
    index = pd.MultiIndex.from_tuples(rows, names=["baseline", "rule"])
    return pd.DataFrame(list(rows.values()), index=index)


def _baselines(adata: AnnData, names: Sequence[str] | None) -> Iterator[tuple[str, NDArray]]:
    if names is None:
        names = [name for name in BASELINES if name in adata.layers]
        if not names:
            raise KeyError(
                f"There is no layer of a baseline ({', '.join(BASELINES)}); there are "
                f"{sorted(key for key in adata.layers if key)}. `predict` and `tl.cell_features` add them."
            )
        names += [ARCSINH] if keys.INTEGRATED in names and ARCSINH not in names else []
    for name in names:
        if name == ARCSINH and name not in adata.layers:
            yield name, scaled_arcsinh(layer(adata, keys.INTEGRATED))
        else:
            yield name, layer(adata, name)


def _macro_f1(
    values: NDArray, name: str, cuts: Sequence[float], base: Frame, beside: tuple[str, NDArray]
) -> tuple[Estimate, NDArray[np.float64]]:
    """Average F1 over markers and groups, and F1 of each marker in each group."""
    averages, each = [], []
    for group in base.groups:
        resampled = group.sample.resampled if group.sample else None
        cells = calls(values, name, base.labels, cuts, group.cells, likely=base.likely, beside=beside)
        parts = [estimate(one, cut, group, resampled, ["f1"]) for one, cut in zip(cells, cuts, strict=True)]
        averages.append(macro(parts, group))
        each += [part.point["f1"] for part in parts]
    return mean(averages, base.groups, base.whole), np.array(each)


def _row(
    scores: tuple[Estimate, NDArray[np.float64]], baseline: tuple[Estimate, NDArray[np.float64]]
) -> dict[str, float | str]:
    (ours, our_markers), (theirs, their_markers) = scores, baseline
    row: dict[str, float | str] = {
        "cells": ours.point["cells"],
        "markers": int(np.isfinite(our_markers).sum()),
        "f1": theirs.point["f1"],
        "f1_scores": ours.point["f1"],
        "difference": ours.point["f1"] - theirs.point["f1"],
        "markers_better": int((our_markers > their_markers).sum()),
    }
    if ours.draws is not None and theirs.draws is not None:
        row["difference_low"], row["difference_high"] = interval(ours.draws["f1"] - theirs.draws["f1"], ours.units)
        row |= {"n_regions": ours.regions, "resampled": ours.resampled}
    return row
