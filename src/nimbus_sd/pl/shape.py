"""Densities of scores, of positive and of negative cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nimbus_sd import keys
from nimbus_sd.metrics._layers import judged, layer
from nimbus_sd.pl._style import COLORS, GREY, axes, title

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_BINS = 50


def score_shape(
    adata: AnnData,
    pred: str = keys.NIMBUS,
    truth: str | None = None,
    *,
    channel: str | None = None,
    likely: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Show the distribution of a layer, of positive and of negative cells apart (Rumberger et al., Fig. 5).

    Parameters
    ----------
    adata
        Cells x channels.
    pred
        Layer of scores, or of other values.
    truth
        Layer of labels; None shows all cells together. Each class has the area 1, however rare it is.
    channel
        Which one; all together by default.
    likely
        Whether to use the labels 0.25 and 0.75 (likely negative and positive).
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If a layer or the channel does not exist.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.score_shape(adata, "gold", channel="CD3")
    """
    if channel is not None and channel not in adata.var_names:
        raise KeyError(f"There is no channel {channel!r}; there are {list(adata.var_names)}.")
    part = adata if channel is None else adata[:, [channel]]
    values = layer(part, pred)
    known = np.isfinite(values)
    ax = axes(ax)
    if known.any():
        low, high = float(values[known].min()), float(values[known].max())
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1).tolist()
        for group, color, name in _classes(part, truth, known, likely):
            if group.any():
                ax.hist(values[group], edges, density=True, histtype="stepfilled", color=color, alpha=0.25)
                label = f"{name} ({int(group.sum()):,})"
                ax.hist(values[group], edges, density=True, histtype="step", color=color, linewidth=1.2, label=label)
        ax.legend(frameon=False, fontsize="small")
    ax.set(xlabel=title(pred), ylabel="density", title=channel or "")
    return ax


def _classes(adata: AnnData, truth: str | None, known: np.ndarray, likely: bool) -> list[tuple[np.ndarray, str, str]]:
    if truth is None:
        return [(known, GREY, "cells")]
    labels = layer(adata, truth)
    known = known & judged(labels, likely=likely)
    return [(known & (labels < 0.5), COLORS[0], "negative"), (known & (labels > 0.5), COLORS[1], "positive")]
