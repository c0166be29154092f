"""From scores to calls: which cells are positive, and which markers need a look at their images first."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._table import at_or_above, outside_unit_interval
from nimbus_sd._table import layer as read_layer
from nimbus_sd.metrics import thresholds_by_channel
from nimbus_sd.tl._flags import flags_of, need_a_look, ranges_of, source_of
from nimbus_sd.tl._results import check_key_added, log_overwritten
from nimbus_sd.tl.auto_threshold import ChannelThreshold, auto_threshold

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")


def call_positive(
    adata: AnnData,
    *,
    layer: str = keys.NIMBUS,
    threshold: float | Literal["auto"] | Mapping[str, float | str] | pd.Series = 0.5,
    key_added: str = "positive",
    n_boot: int = 100,
    rng: int | np.random.Generator = 0,
) -> None:
    """Call cells positive, marker by marker, and warn of markers whose images need a look first.

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Layer of scores. Given thresholds work with any values; ``"auto"`` is for scores in [0, 1].
    threshold
        A cell at or above it is positive. A number, or ``"auto"``: per channel the valley between two modes of the
        scores; else where two fitted beta distributions cross; else 0.5; kept between 0.1 and 0.9. It was no better
        than 0.5 on gold labels (mean F1 0.950 and 0.958). Or a mapping or
        Series from channels to these, in which ``"*"`` is for all others; without it they have 0.5.
    key_added
        Name of the results.
    n_boot
        Bootstrap resamples, the threshold found again in each, for the 95 % interval of ``"auto"``; 0 for none.
    rng
        Source of all randomness.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``layers[key_added]``: float32, 1 positive, 0 negative, NaN where the layer has no score
        - ``varm[key_added]``: DataFrame channels x (``threshold``, ``low``, ``high``, ``share_positive``,
          ``reason``). ``reason`` is ``"given"``, ``"valley between two modes"``, ``"mixture of two beta
          distributions"``, ``"0.5: too few cells"`` (under 20), ``"0.5: too few cells beyond"`` (under 10 on one
          side) or ``"0.5: no two separate groups"``. A given threshold is its own interval.
        - ``var[f"{key_added}_flag"]``: why a channel needs a look, the worst first, or "". ``stop``, its scores mean
          nothing: no score, no signal, or three channels that are one photograph. ``look`` at its image before using
          its calls: nearly all cells (90 %) are positive, though it is no counterstain by its name; no separation, as
          too many scores are between 0.25 and 0.75; saturated, as over 1 % of the cells are as bright as the brightest
          or the normalisation factor; far from the training images, as a statistic of the image
          (:func:`nimbus_sd.metrics.image_statistics`) is outside the central 99 % of the training's; unstable, for
          ``"auto"``, as the share of positive cells changes by more than 10 % within the threshold's interval.
          ``note``, without a warning: nearly none (under 0.5 %) are positive, or the signal is in very few cells
        - ``uns[key_added]``: ``params``, and ``trained_range``: "compared", or "not known" without the model's ranges

    Raises
    ------
    KeyError
        If a threshold is for something that is no channel.
    ValueError
        If scores and thresholds are not on the same scale.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.tl.call_positive(adata, layer="gold", threshold="auto")
    >>> adata.varm["positive"].loc["CD3", "reason"]
    'valley between two modes'
    """
    scores = read_layer(adata, layer)
    earlier = check_key_added(adata, key_added, "call_positive")
    is_score = ~outside_unit_interval(scores)
    given = thresholds_by_channel(scores, layer, list(adata.var_names), threshold, ["auto"])
    automatic = np.array([cut == "auto" for cut in given], bool)
    if others := list(adata.var_names[automatic & ~is_score]):
        raise ValueError(f"threshold='auto' is for scores in [0, 1]; layers[{layer!r}] has other values in {others}.")
    if is_score.all() and (beyond := [cut for cut in given if not isinstance(cut, str) and not 0 <= cut <= 1]):
        raise ValueError(f"`threshold` is {beyond[0]:g}, but all values of layers[{layer!r}] are in [0, 1].")
    draws = np.random.default_rng(rng).spawn(adata.n_vars)
    # Also where thresholds are given, to flag channels whose scores do not fall into two groups.
    estimates = [
        auto_threshold(column, n_boot=n_boot if auto else 0, rng=draw)
        if fits
        else ChannelThreshold(np.nan, np.nan, np.nan)
        for column, fits, auto, draw in zip(scores.T, is_score, automatic, draws, strict=True)
    ]
    cuts = [
        estimate if isinstance(cut, str) else ChannelThreshold(cut, cut, cut)
        for cut, estimate in zip(given, estimates, strict=True)
    ]

    calls = np.full(scores.shape, np.nan, np.float32)
    for i, column in enumerate(scores.T):
        calls[:, i] = np.where(np.isfinite(column), at_or_above(column, cuts[i].threshold), np.nan)
    flags = flags_of(adata, layer, [cut.threshold for cut in cuts], estimates)
    ranges = ranges_of(adata, layer)

    table = pd.DataFrame(cuts, adata.var_names, ChannelThreshold._fields).drop(columns="two_groups")
    with np.errstate(invalid="ignore"):
        table.insert(3, "share_positive", np.nansum(calls, axis=0) / np.isfinite(calls).sum(axis=0))
    adata.layers[key_added] = calls
    adata.varm[key_added] = table.astype({"threshold": float, "low": float, "high": float, "reason": "category"})
    # Categories, unlike texts, can be stored and extended with channels that have none.
    adata.var[f"{key_added}_flag"] = pd.Categorical(flags)
    stored = "one per channel, see varm" if isinstance(threshold, Mapping | pd.Series) else threshold
    adata.uns[key_added] = {
        "tool": "call_positive",
        "params": {"layer": layer, "threshold": stored, "n_boot": n_boot if automatic.any() else 0},
        "trained_range": "not known" if ranges is None else "compared",
    }
    if flagged := need_a_look(adata.var_names, flags):
        warnings.warn(f"Look at the image before using the calls of {flagged}.", stacklevel=2)
    if ranges is None:
        logger.warning(
            "no channel was compared with the training images: uns[%r] does not say which", source_of(adata, layer)
        )
    log_overwritten(earlier, "call_positive")
    logger.info("added layers[%r]: %d of %d markers flagged", key_added, sum(map(bool, flags)), adata.n_vars)
