"""Scores that mean a probability: fitted to the truth of some regions, applied to all."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from nimbus_sd import keys
from nimbus_sd._table import judged, outside_unit_interval, truth_layer
from nimbus_sd._table import layer as read_layer
from nimbus_sd.tl._regions import given_regions
from nimbus_sd.tl._results import check_key_added, log_overwritten

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "calibrate"


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
    """Map scores to probabilities, by the truth of some regions; judge the result on the others.

    One isotonic map, of any steps that do not fall, for all channels together: for hundreds of labels and more.
    :func:`adapt` fits each channel by its own, and needs few.

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
        Column of ``obs`` that names a cell's region; by default the one that the table's annotation names, else
        ``"region"``.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``layers[key_added]``: float32 in [0, 1], never falling with the score, NaN where the score is NaN
        - ``uns[key_added]``: ``params``, ``fitted_on`` (regions; metrics that know of it warn if they are judged on),
          ``cells`` and ``positives`` used to fit

    Raises
    ------
    KeyError
        If a layer, the column or a region does not exist.
    ValueError
        If scores are outside [0, 1]; if the truth of these regions lacks a class; if scores are not higher in positive
        cells; if ``key_added`` is the name of another layer that is needed.

    Warns
    -----
    UserWarning
        Names channels that it makes worse; says so if no judged region is left.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["nimbus"] = 0.2 + 0.5 * adata.layers["gold"]
    >>> ns.tl.calibrate(adata, regions="fov1_labels")
    >>> ns.metrics.calibration_error(adata[adata.obs["region"] == "fov2_labels"], "nimbus_calibrated").loc["all", "ece"]
    np.float64(0.0)
    """
    scores = read_layer(adata, layer)
    if key_added in (layer, truth):
        raise ValueError(f"`key_added` is {key_added!r}, a layer that is needed; choose another name.")
    earlier = check_key_added(adata, key_added, _TOOL)
    if outside_unit_interval(scores).any():
        raise ValueError(f"Layer {layer!r} has values outside [0, 1]; only scores can be calibrated.")
    labels = truth_layer(adata, truth, likely=likely)
    region, named = given_regions(adata, regions, region_key)
    known = judged(labels, likely=likely) & np.isfinite(scores)
    inside = region.isin(named).to_numpy()
    used = known & inside[:, None]

    positive = labels[used] > 0.5
    fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    if not 0 < positive.sum() < positive.size or np.ptp(fit.fit(scores[used], positive).y_thresholds_) == 0:
        raise ValueError(
            f"Layer {layer!r} cannot be calibrated by the truth of region(s) {', '.join(map(repr, named))}: it needs "
            f"positive and negative cells with higher scores in the positive ones; there are "
            f"{int(positive.sum())} positive and {int((~positive).sum())} negative ones."
        )
    result = np.full(scores.shape, np.nan, np.float32)
    for i in range(adata.n_vars):
        there = np.isfinite(scores[:, i])
        if there.any():
            result[there, i] = fit.predict(scores[there, i])

    adata.layers[key_added] = result
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {
            "layer": layer,
            "truth": truth,
            "likely": likely,
            "region_key": str(region.name),
        },
        "fitted_on": named,
        "cells": int(used.sum()),
        "positives": int(positive.sum()),
    }
    if worse := _worse(scores, result, labels, used, adata.var_names):
        warnings.warn(
            f"The fit makes {', '.join(map(repr, worse))} worse (larger Brier score in the regions used to fit): their "
            "scores err in another way than those of the other channels. `tl.adapt` fits each by its own cells.",
            UserWarning,
            stacklevel=2,
        )
    if not (known & ~inside[:, None]).any():
        warnings.warn(
            f"All cells with a truth were used to fit {key_added!r}: none is left to judge it on.",
            UserWarning,
            stacklevel=2,
        )
    log_overwritten(earlier, _TOOL)
    logger.info("added layers[%r]: fitted on %d cells of %d regions", key_added, int(used.sum()), len(named))


def _worse(
    before: NDArray, after: NDArray, labels: NDArray, used: NDArray[np.bool_], channels: Sequence[str]
) -> list[str]:
    """Name the channels whose mean squared error grows, by more than what a cell or two can do."""
    found = []
    for i, name in enumerate(channels):
        cells = used[:, i]
        positive = labels[cells, i] > 0.5
        old, new = (((one[cells, i] - positive) ** 2).sum() for one in (before, after))
        if new > old + 1:
            found.append(str(name))
    return found
