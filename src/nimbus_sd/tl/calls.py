"""From scores to calls: which cells are positive."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import at_or_above, outside_unit_interval
from nimbus_sd._table import layer as read_layer
from nimbus_sd.metrics import ChannelThreshold, auto_threshold, given_thresholds
from nimbus_sd.tl._results import check_key_added, log_overwritten
from nimbus_sd.tl.flags import channel_flags, source_of, trained_ranges

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "call_positive"
_MOVED = 0.1


def call_positive(
    adata: AnnData,
    *,
    layer: str = keys.NIMBUS,
    threshold: float | Literal["auto"] | Mapping[str, float] | pd.Series = 0.5,
    key_added: str = "positive",
    n_boot: int = 100,
    rng: int | np.random.Generator = 0,
) -> None:
    """Call cells positive, marker by marker, and say how far each call can be trusted.

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Layer of scores. Any values will do for given thresholds; ``"auto"`` and the flag for markers without
        separation are for scores in [0, 1].
    threshold
        A cell at or above it is positive. A number for all channels, a mapping that names each channel's, or
        ``"auto"``: per channel the valley between two modes of the scores; else where two fitted beta distributions
        cross; else 0.5. It stays within 0.1 to 0.9. A number must be in [0, 1] where all values of the layer are.
    key_added
        Name of the results.
    n_boot
        Resamples of the cells, each with the whole rule, for the 95 % interval of ``"auto"``; 0 for none.
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
        - ``var[f"{key_added}_flag"]``: why a channel should not be called without a look at its image, empty if
          nothing speaks against it. ``empty``. ``no separation``: no two groups, and more scores between 0.25 and 0.75
          than on the smaller side, and than 5 %. ``saturated``: over 1 % of the cells are as bright as the
          normalisation factor. ``unlike the training``: an image statistic, see
          :func:`nimbus_sd.metrics.image_statistics`, is outside the central 99 % of the images that the model was
          trained on; the text states how often that happens on such images. ``unstable``, for ``"auto"``: within the
          threshold's interval the share of positive cells changes by more than 10 %
        - ``uns[key_added]``: ``params``, and ``trained_range`` ("compared", or "not known" where the model's card
          does not tell it)

    Raises
    ------
    KeyError
        If the layer does not exist, or the mapping lacks a channel or names one that does not exist.
    ValueError
        If a threshold is not a number or ``"auto"``, or is outside [0, 1] for a layer with values in [0, 1] only; if
        ``"auto"`` meets values outside [0, 1]; if ``key_added`` holds something else already or is kept for it.

    Warns
    -----
    UserWarning
        Names the flagged channels and why. Also if one threshold as for scores meets a layer of other values.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.tl.call_positive(adata, layer="gold", threshold="auto")
    >>> adata.varm["positive"].loc["CD3", "reason"]
    'valley between two modes'
    """
    scores = read_layer(adata, layer)
    earlier = check_key_added(adata, key_added, _TOOL)
    within = ~outside_unit_interval(scores)
    automatic = isinstance(threshold, str) and threshold == "auto"
    if automatic and not within.all():
        raise ValueError(
            f"threshold='auto' is for scores in [0, 1], but layers[{layer!r}] has other values in channel(s) "
            f"{', '.join(repr(str(name)) for name in adata.var_names[~within])}. Pass numbers as `threshold`, "
            "or call the layer of scores."
        )
    boots = n_boot if automatic else 0
    draws = np.random.default_rng(rng).spawn(adata.n_vars)
    found = [
        auto_threshold(scores[:, i], n_boot=boots, rng=draws[i]) if within[i] else None for i in range(adata.n_vars)
    ]
    two_groups = np.array([one is None or one.two_groups for one in found])
    if automatic:
        used = [one for one in found if one is not None]
    else:
        cuts = given_thresholds(scores, layer, list(adata.var_names), threshold)  # type: ignore[arg-type]
        if within.all() and (beyond := [cut for cut in cuts if not 0 <= cut <= 1]):
            raise ValueError(
                f"`threshold` is {beyond[0]:g}, but all values of layers[{layer!r}] are in [0, 1]: each cell would be "
                "called the same. Pass a number in [0, 1], or name the layer that it is meant for."
            )
        used = [ChannelThreshold(cut, cut, cut, "given", True) for cut in cuts]

    calls = np.full(scores.shape, np.nan, np.float32)
    for i, one in enumerate(used):
        calls[:, i] = np.where(np.isfinite(scores[:, i]), at_or_above(scores[:, i], one.value), np.nan)
    flags = channel_flags(adata, layer, scores, two_groups)
    if automatic:
        flags = ["; ".join(filter(None, pair)) for pair in zip(flags, _unstable(scores, used), strict=True)]
    adata.layers[key_added] = calls
    adata.varm[key_added] = _table(used, calls, adata.var_names)
    # Categories, unlike texts, can be stored and extended with channels that have none.
    adata.var[f"{key_added}_flag"] = pd.Categorical(flags)
    compared = trained_ranges(adata, layer) is not None
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {
            "layer": layer,
            "threshold": "one per channel, see varm" if isinstance(threshold, Mapping | pd.Series) else threshold,
            "n_boot": boots,
        },
        "trained_range": "compared" if compared else "not known",
    }
    if flagged := [f"{str(name)!r} ({flag})" for name, flag in zip(adata.var_names, flags, strict=True) if flag]:
        warnings.warn(f"Look at the image before using the calls of {', '.join(flagged)}.", UserWarning, stacklevel=2)
    if not compared:
        logger.warning(
            "no channel was compared with the images that the model was trained on: uns[%r] does not say which",
            source_of(adata, layer),
        )
    log_overwritten(earlier, _TOOL)
    logger.info("added layers[%r]: %d of %d markers flagged", key_added, len(flagged), adata.n_vars)


def _unstable(scores: NDArray, used: list[ChannelThreshold]) -> list[str]:
    """Say of each channel whether its call hangs on where in the interval the threshold is."""
    found = []
    for column, one in zip(scores.T, used, strict=True):
        known = column[np.isfinite(column)]
        share = [float((known >= cut).mean()) if known.size else 0.0 for cut in (one.high, one.low)]
        moved = np.isfinite(one.low) and share[1] - share[0] > _MOVED
        found.append(f"unstable: from {share[0]:.0%} to {share[1]:.0%} of the cells are positive" if moved else "")
    return found


def _table(used: list[ChannelThreshold], calls: NDArray[np.float32], names: pd.Index) -> pd.DataFrame:
    judged = np.isfinite(calls).sum(axis=0)
    share = np.divide(np.nansum(calls, axis=0), judged, out=np.full(len(used), np.nan), where=judged > 0)
    return pd.DataFrame(
        {
            "threshold": [one.value for one in used],
            "low": [one.low for one in used],
            "high": [one.high for one in used],
            "share_positive": share,
            "reason": pd.Categorical([one.reason for one in used]),
        },
        index=names,
    )
