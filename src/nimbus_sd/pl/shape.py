"""Densities of scores, of positive and of negative cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from nimbus_sd import keys
from nimbus_sd._table import judged, layer, scaled_arcsinh
from nimbus_sd.pl._layers import holds_scores
from nimbus_sd.pl._lines import say_empty
from nimbus_sd.pl._style import COLORS, GREY, axes, title

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_GRID = 256


def score_shape(
    adata: AnnData,
    pred: str = keys.NIMBUS,
    truth: str | None = None,
    *,
    channel: str | None = None,
    scale: Literal["auto", "linear", "arcsinh"] = "auto",
    likely: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Show the kernel density of a layer, of positive and of negative cells apart.

    As in Fig. 5 of Rumberger et al.

    The estimate is that behind ``overlap`` of :func:`nimbus_sd.metrics.score_shape`: Gaussian kernels, Scott's
    bandwidth for each class, mirrored at the ends of the range, on 256 bins.

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
    scale
        ``"arcsinh"`` draws arcsinh(x / c) with c the median of the channel's values above 0, so that channels of any
        brightness can be pooled. ``"auto"`` does so for intensities and where values are outside [0, 1], and draws
        scores as they are.
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
    ValueError
        If ``scale`` is another.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.score_shape(adata, "gold", channel="CD3")
    """
    if scale not in ("auto", "linear", "arcsinh"):
        raise ValueError(f"`scale` is {scale!r}; it must be 'auto', 'linear' or 'arcsinh'.")
    if channel is not None and channel not in adata.var_names:
        raise KeyError(f"There is no channel {channel!r}; there are {list(adata.var_names)}.")
    part = adata if channel is None else adata[:, [channel]]
    values = layer(part, pred)
    curved = scale == "arcsinh" or (scale == "auto" and not holds_scores(pred, layer(adata, pred)))
    values = scaled_arcsinh(values) if curved else values
    known = np.isfinite(values)
    ax = axes(ax)
    if known.any():
        low, high = (
            (0.0, 1.0)
            if not curved and holds_scores(pred, values)
            else (float(values[known].min()), float(values[known].max()))
        )
        for group, color, name in _classes(part, truth, known, likely):
            if group.any():
                x, y = density(values[group], low, high)
                ax.fill_between(x, y, color=color, alpha=0.25, linewidth=0)
                ax.plot(x, y, color=color, linewidth=1.2, label=f"{name} ({int(group.sum()):,})")
        ax.set_ylim(bottom=0)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize="small")
    else:
        say_empty(ax, f"no {title(pred)}")
    ax.set(xlabel=f"arcsinh({title(pred)} / c)" if curved else title(pred), ylabel="density", title=channel or "")
    return ax


def density(values: NDArray, low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate a density by Gaussian kernels that are mirrored at both ends of a range.

    Parameters
    ----------
    values
        Finite values in [low, high], shape (n,), n > 0.
    low, high
        The range.

    Returns
    -------
    Points from ``low`` to ``high`` and the density there, both of shape (258,); the area under it is 1.
    """
    values = values.astype(np.float64)
    counts, edges = np.histogram(values, _GRID, (low, high if high > low else low + 1))
    step = edges[1] - edges[0]
    bandwidth = values.std() * values.size**-0.2
    # Not finer than the grid.
    smooth = gaussian_filter1d(counts / (values.size * step), max(1.0, bandwidth / step), mode="reflect")
    return np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]]), np.pad(smooth, 1, mode="edge")


def _classes(adata: AnnData, truth: str | None, known: NDArray, likely: bool) -> list[tuple[NDArray, str, str]]:
    if truth is None:
        return [(known, GREY, "cells")]
    labels = layer(adata, truth)
    known = known & judged(labels, likely=likely)
    return [(known & (labels < 0.5), COLORS[0], "negative"), (known & (labels > 0.5), COLORS[1], "positive")]
