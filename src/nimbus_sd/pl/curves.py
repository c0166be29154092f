"""Curves: metrics against threshold, ROC, precision against recall, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nimbus_sd.pl._lines import STYLES, legend_beside, legend_width, line_looks, note_below, say_empty
from nimbus_sd.pl._style import COLORS, GREY, axes, need, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_FEW = 10


def threshold_curve(
    table: pd.DataFrame, metrics: Sequence[str] = ("precision", "recall", "f1"), *, ax: Axes | None = None
) -> Axes:
    """Show metrics against the threshold.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.threshold_curve`. Of one channel, one colour per metric and one line style per
        layer. Of several channels only the last metric is drawn, a colour and line style per channel.
    metrics
        Columns of the table.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Channels without a curve are named below.

    Raises
    ------
    ValueError
        If the table is another one, or its layers have different units: thresholds of one in [0, 1], of another not.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.threshold_curve(ns.metrics.threshold_curve(adata, "gold", average="pooled"))
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if not metrics:
        raise ValueError("`metrics` is empty; name at least one column of the table, such as 'f1'.")
    need(table, ["layer", "channel", "threshold", *metrics], "metrics.threshold_curve")
    _check_units(table)
    if table["channel"].nunique() > 1:
        ax = _channel_lines(table, "threshold", metrics[-1], ax, "no labelled cell with a value")
    else:
        ax = _metric_lines(table, metrics, axes(ax, 4.8))
    ax.set(xlabel="threshold", ylim=(-0.02, 1.02))
    return ax


def roc_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show ROC curves.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.roc_curve`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        A colour per channel (and a line style beyond seven), a line style or width per layer; of one channel, a
        colour per layer. Channels without a curve are named below.

    Raises
    ------
    ValueError
        If the table is another one.
    """
    need(table, ["layer", "channel", "false_positive_rate", "true_positive_rate"], "metrics.roc_curve")
    return _square(table, "false_positive_rate", "true_positive_rate", ax, "no channel has both classes", diagonal=True)


def pr_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show precision against recall.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.pr_curve`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Lines as for :func:`roc_curve`.

    Raises
    ------
    ValueError
        If the table is another one.
    """
    need(table, ["layer", "channel", "recall", "precision"], "metrics.pr_curve")
    return _square(table, "recall", "precision", ax, "no channel has positive cells")


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
        Lines as for :func:`roc_curve`. The area of a dot goes with its number of cells; dots of fewer than 10 cells
        are faded. On the dotted line a score is the share of positive cells.

    Raises
    ------
    ValueError
        If the table is another one.
    """
    need(table, ["layer", "channel", "score", "observed", "cells"], "metrics.calibration_curve")
    ax = _square(table, "score", "observed", ax, "no scores", diagonal=True)
    lines, _ = _looks_of(table)
    for (layer, channel), part in table.groupby(["layer", "channel"], sort=False):
        size = 8 + 80 * part["cells"] / max(1, part["cells"].max())
        alpha: Any = np.where(part["cells"] < _FEW, 0.15, 0.55)
        color = lines[layer, channel]["color"]
        ax.scatter(part["score"], part["observed"], s=size, color=color, alpha=alpha, linewidth=0, zorder=1)
    ax.set_ylabel("share of positive cells")
    return ax


def _check_units(table: pd.DataFrame) -> None:
    spans = table.groupby("layer", sort=False)["threshold"].agg(["min", "max"]).dropna()
    within = (spans["min"] >= 0) & (spans["max"] <= 1)
    if within.any() and not within.all():
        raise ValueError(
            f"Thresholds of {list(spans.index[within])} are in [0, 1], those of {list(spans.index[~within])} are in "
            "other units and do not share an axis with them. Draw one layer at a time: "
            'table[table["layer"] == "..."].'
        )


def _metric_lines(table: pd.DataFrame, metrics: Sequence[str], ax: Axes) -> Axes:
    """Lines of one channel: a colour per metric, a style per layer."""
    layers = list(dict.fromkeys(table["layer"]))
    entries: dict[str, dict[str, Any]] = {
        metric: {"color": COLORS[i % len(COLORS)]} for i, metric in enumerate(metrics)
    }
    styles: dict[str, dict[str, Any]] = {
        layer: {"linestyle": STYLES[i % len(STYLES)]} for i, layer in enumerate(layers)
    }
    for layer, part in table.groupby("layer", sort=False):
        for metric, look in entries.items():
            ax.plot(part["threshold"], part[metric], linewidth=1.2, **look, **styles[layer], label=title(metric))
    if not table[metrics].notna().any(axis=None):
        say_empty(ax, "no labelled cell with a value")
    several = {layer: {"color": GREY, **look} for layer, look in styles.items()} if len(layers) > 1 else {}
    legend_beside(ax, entries | several)
    if len(metrics) == 1:
        ax.set_ylabel(title(metrics[0]))
    return ax


def _channel_lines(table: pd.DataFrame, x: str, y: str, ax: Axes | None, why: str) -> Axes:
    """Lines of all channels and layers, a legend beside them, and a note on those that have none."""
    known = table.dropna(subset=[x, y])
    without = [name for name in dict.fromkeys(table["channel"]) if name not in set(known["channel"])]
    lines, entries = _looks_of(table)
    entries = {name: look for name, look in entries.items() if name not in without}
    ax = axes(ax, 3.6 + legend_width(entries), 3.4)
    ax.set(xlabel=title(x), ylabel=title(y))
    if known.empty:
        say_empty(ax, why)
        return ax
    for (layer, channel), part in known.groupby(["layer", "channel"], sort=False):
        ax.plot(part[x], part[y], **{"linewidth": 1.2, **lines[layer, channel]})
    legend_beside(ax, entries)
    note_below(ax, without, "no curve")
    return ax


def _square(table: pd.DataFrame, x: str, y: str, ax: Axes | None, why: str, *, diagonal: bool = False) -> Axes:
    ax = _channel_lines(table, x, y, ax, why)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if diagonal and ax.lines:
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=":", zorder=0)
    return ax


def _looks_of(table: pd.DataFrame) -> tuple[dict, dict]:
    return line_looks(list(dict.fromkeys(table["channel"])), list(dict.fromkeys(table["layer"])))
