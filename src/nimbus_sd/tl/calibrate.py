"""Scores that mean a probability: fitted to the truth of some regions, applied to all."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from nimbus_sd import keys
from nimbus_sd.metrics._calls import beyond_unit
from nimbus_sd.metrics._layers import judged, layers_of, region_column, truth_layer
from nimbus_sd.metrics._layers import layer as read_layer
from nimbus_sd.tl._keys import check_key_added, log_overwritten

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "calibrate"
_FEWEST = 10
_WAY_OUT = {
    False: "`per_channel=True` fits each by its own cells.",
    True: "They have too few labelled cells for a fit of their own: label more, or use the plain scores there.",
}
_Map = Callable[[NDArray], NDArray]


def calibrate(
    adata: AnnData,
    *,
    regions: str | Sequence[str],
    layer: str = keys.NIMBUS,
    truth: str = keys.GOLD,
    method: Literal["isotonic", "platt"] = "isotonic",
    per_channel: bool = False,
    likely: bool = True,
    key_added: str = "nimbus_calibrated",
    region_key: str | None = None,
) -> None:
    """Map scores to probabilities, by the truth of some regions; judge the result on the others.

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
    method
        ``"isotonic"`` (any monotone steps, for hundreds of cells and more) or ``"platt"`` (a logistic curve of the
        score's logit, for fewer).
    per_channel
        Fit each channel by its own cells. Channels with fewer than 10 positive or negative ones, or where higher
        scores do not mean more positive cells, get the fit of all channels. False fits all channels together.
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
          ``cells`` and ``positives`` used to fit, and ``pooled``, the channels that got the fit of all

    Raises
    ------
    KeyError
        If a layer, the column or a region does not exist.
    ValueError
        If scores are outside [0, 1]; if the truth of these regions lacks a class; if scores are not higher in positive
        cells; if ``method`` is unknown or ``key_added`` is the name of another layer that is needed.

    Warns
    -----
    UserWarning
        Names channels that got the fit of all in place of their own, and those that it makes worse; says so if no
        judged region is left.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["nimbus"] = 0.2 + 0.5 * adata.layers["gold"]
    >>> ns.tl.calibrate(adata, regions="fov1_labels")
    >>> ns.metrics.calibration_error(adata[adata.obs["region"] == "fov2_labels"], "nimbus_calibrated").loc["all", "ece"]
    np.float64(0.0)
    """
    if method not in ("isotonic", "platt"):
        raise ValueError(f"`method` is {method!r}; it must be 'isotonic' or 'platt'.")
    scores = read_layer(adata, layer)
    if key_added in (layer, truth):
        raise ValueError(f"`key_added` is {key_added!r}, a layer that is needed; choose another name.")
    earlier = check_key_added(adata, key_added, _TOOL)
    if beyond_unit(scores).any():
        raise ValueError(f"Layer {layer!r} has values outside [0, 1]; only scores can be calibrated.")
    labels = truth_layer(adata, truth, likely=likely)
    regions = [str(name) for name in layers_of(regions)]
    region = region_column(adata, region_key).astype(str)
    if not regions or (unknown := [name for name in regions if name not in set(region)]):
        problem = f"has no region(s) {unknown}; it" if regions else "is to be used, but `regions` names none; it"
        raise KeyError(f"obs[{region.name!r}] {problem} has {sorted(set(region))}.")
    known = judged(labels, likely=likely) & np.isfinite(scores)
    inside = region.isin(regions).to_numpy()
    used = known & inside[:, None]

    pooled = _fit(scores[used], labels[used] > 0.5, method)
    if pooled is None:
        positives = int((labels[used] > 0.5).sum())
        raise ValueError(
            f"Layer {layer!r} cannot be calibrated by the truth of region(s) {', '.join(map(repr, regions))}: it needs "
            f"positive and negative cells with higher scores in the positive ones; there are {positives} positive "
            f"and {int(used.sum()) - positives} negative ones."
        )
    own: list[_Map | None] = [None] * adata.n_vars
    if per_channel:
        own = [_own_fit(scores[used[:, i], i], labels[used[:, i], i] > 0.5, method) for i in range(adata.n_vars)]
    borrowed = [str(name) for name, fit in zip(adata.var_names, own, strict=True) if fit is None]
    result = np.full(scores.shape, np.nan, np.float32)
    for i, fit in enumerate(own):
        there = np.isfinite(scores[:, i])
        result[there, i] = (pooled if fit is None else fit)(scores[there, i])

    adata.layers[key_added] = result
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {
            "layer": layer,
            "truth": truth,
            "method": method,
            "per_channel": per_channel,
            "likely": likely,
            "region_key": str(region.name),
        },
        "fitted_on": list(regions),
        "cells": int(used.sum()),
        "positives": int((labels[used] > 0.5).sum()),
        "pooled": borrowed,
    }
    if per_channel and borrowed:
        warnings.warn(
            f"Channel(s) {', '.join(map(repr, borrowed))} got the fit of all channels: too few cells of a class (under "
            f"{_FEWEST}), or no higher scores in positive cells, in the regions used to fit.",
            UserWarning,
            stacklevel=2,
        )
    if worse := _worse(scores, result, labels, used, adata.var_names):
        warnings.warn(
            f"The fit makes {', '.join(map(repr, worse))} worse (larger Brier score in the regions used to fit): their "
            f"scores err in another way than those of the other channels. {_WAY_OUT[per_channel]}",
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
    logger.info("added layers[%r]: fitted on %d cells of %d regions", key_added, int(used.sum()), len(regions))


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


def _own_fit(scores: NDArray, positive: NDArray[np.bool_], method: str) -> _Map | None:
    enough = min(int(positive.sum()), int((~positive).sum())) >= _FEWEST
    return _fit(scores, positive, method) if enough else None


def _fit(scores: NDArray, positive: NDArray[np.bool_], method: str) -> _Map | None:
    """Fit a map that does not fall; None where there is none but a constant."""
    if not 0 < positive.sum() < positive.size:
        return None
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, positive)
        return isotonic.predict if np.ptp(isotonic.y_thresholds_) > 0 else None
    from sklearn.linear_model import LogisticRegression

    platt = LogisticRegression(C=np.inf).fit(_logits(scores), positive)
    return (lambda one: platt.predict_proba(_logits(one))[:, 1]) if platt.coef_[0, 0] > 0 else None


def _logits(scores: NDArray) -> NDArray[np.float64]:
    return logit(np.clip(np.asarray(scores, np.float64), 1e-4, 1 - 1e-4))[:, None]
