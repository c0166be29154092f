"""Curves: metrics against threshold, ROC, precision against recall, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nimbus_sd.pl._style import COLORS, GREY, axes, color_of, need, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")


def threshold_curve(
    table: pd.DataFrame, metrics: Sequence[str] = ("precision", "recall", "f1"), *, ax: Axes | None = None
) -> Axes:
    """Show metrics against the threshold.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.threshold_curve`: one colour per metric, one line style per layer and channel.
    metrics
        Columns of the table.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the table is another one.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.threshold_curve(ns.metrics.threshold_curve(adata, "gold", average="pooled"))
    """
    need(table, ["layer", "channel", "threshold", *metrics], "metrics.threshold_curve")
    ax = axes(ax)
    lines = list(table.groupby(["layer", "channel"], sort=False))
    for number, (names, part) in enumerate(lines):
        for metric, color in zip(metrics, COLORS, strict=False):
            label = title(metric) if len(lines) == 1 else f"{title(metric)}, {', '.join(map(title, names))}"
            ax.plot(part["threshold"], part[metric], _STYLES[number % 4], color=color, linewidth=1.2, label=label)
    ax.set(xlabel="threshold", ylim=(0, 1.02))
    ax.legend(frameon=False, fontsize="small")
    return ax


def roc_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show ROC curves, a colour per channel and a line style per layer.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.roc_curve`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the table is another one.
    """
    need(table, ["layer", "channel", "false_positive_rate", "true_positive_rate"], "metrics.roc_curve")
    ax = _square(table, "false_positive_rate", "true_positive_rate", ax)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=":", zorder=0)
    return ax


def pr_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show precision against recall, a colour per channel and a line style per layer.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.pr_curve`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the table is another one.
    """
    need(table, ["layer", "channel", "recall", "precision"], "metrics.pr_curve")
    return _square(table, "recall", "precision", ax)


def calibration_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show the share of positive cells against the score: the reliability curve.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.calibration_curve`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        The area of a dot goes with its number of cells. On the dotted line a score
        is the share of positive cells.

    Raises
    ------
    ValueError
        If the table is another one.
    """
    need(table, ["layer", "channel", "score", "observed", "cells"], "metrics.calibration_curve")
    ax = _square(table, "score", "observed", ax)
    size = 4 + 80 * table["cells"] / table.groupby(["layer", "channel"])["cells"].transform("max").clip(lower=1)
    ax.scatter(table["score"], table["observed"], s=size, color=GREY, alpha=0.5, linewidth=0, zorder=1)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=":", zorder=0)
    ax.set_ylabel("share of positive cells")
    return ax


def _square(table: pd.DataFrame, x: str, y: str, ax: Axes | None) -> Axes:
    """Lines in the unit square: a colour per channel, or per layer where there is one channel; a style per layer."""
    from matplotlib.lines import Line2D

    channels, layers = list(dict.fromkeys(table["channel"])), list(dict.fromkeys(table["layer"]))
    many = len(channels) > 1
    ax = axes(ax, 5.0 if many or len(layers) > 1 else 3.4, 3.4)
    colors = color_of(channels if many else layers)
    styles = {layer: _STYLES[i % 4 if many else 0] for i, layer in enumerate(layers)}
    for (layer, channel), part in table.dropna(subset=[x, y]).groupby(["layer", "channel"], sort=False):
        ax.plot(part[x], part[y], styles[layer], color=colors[channel if many else layer], linewidth=1.2)
    ax.set(xlabel=title(x), ylabel=title(y), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    handles = [Line2D([], [], color=color, label=title(name)) for name, color in colors.items()]
    if many and len(layers) > 1:
        handles += [Line2D([], [], color=GREY, linestyle=styles[name], label=title(name)) for name in layers]
    if len(handles) > 1:
        ax.legend(handles=handles, frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax
