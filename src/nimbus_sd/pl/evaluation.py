"""Results of :mod:`nimbus_sd.metrics`: curves, metrics with their intervals, and densities of scores."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nimbus_sd import keys
from nimbus_sd._table import as_list, judged, scaled_arcsinh
from nimbus_sd._table import layer as read_layer
from nimbus_sd.metrics import density
from nimbus_sd.pl._common import COLORS, GREY, axes, channel_names, holds_scores, legend_beside, say_empty, title

# The last two are lengths of dashes and gaps: long dashes, and a dash with two dots.
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 3)), (0, (5, 1.5, 1, 1.5, 1, 1.5)))
_WIDTHS = (1.4, 0.7, 2.4, 3.4)
_LEGEND_ROWS = 20
# Cells of a bin of reliability that are few.
_FEW = 10
# Columns of x and y of the curves that are drawn in a square, and why there may be none.
_SQUARE = {
    ("false_positive_rate", "true_positive_rate"): "no channel has both classes",
    ("recall", "precision"): "no channel has positive cells",
    ("score", "observed"): "no scores",
}


def curve(
    table: pd.DataFrame, *, metrics: str | Sequence[str] = ("precision", "recall", "f1"), ax: Axes | None = None
) -> Axes:
    """Draw the curves in a table: ROC, precision against recall, metrics against the threshold, or reliability.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.roc_curve`, :func:`nimbus_sd.metrics.pr_curve`,
        :func:`nimbus_sd.metrics.threshold_curve` or :func:`nimbus_sd.metrics.calibration_curve`; its columns say which.
    metrics
        Columns of a table of thresholds. With several channels only the last of them is drawn.
    {ax}

    Returns
    -------
    Axes
        A colour per channel (and a line style beyond seven), a line style or width per layer; of one channel, a
        colour per layer, or per metric. Channels without a curve are named below. Of reliability, the area of a dot
        goes with its number of cells, dots of fewer than 10 cells are faded, and on the dotted line a score is the
        share of positive cells.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.curve(ns.metrics.roc_curve(adata, "gold"))
    >>> ax = ns.pl.curve(ns.metrics.threshold_curve(adata, "gold", average="pooled"), metrics="f1")
    """
    source = "`metrics.roc_curve`, `pr_curve`, `threshold_curve` or `calibration_curve`"
    _check_source(table, ["layer", "channel"], source)
    for (x, y), why in _SQUARE.items():
        if {x, y} <= set(table) and "f1" not in table:
            ax = _draw_lines(table, x, y, ax, why)
            ax.set(xlim=(-0.02, 1.02), aspect="equal")
            if ax.lines and y != "precision":
                ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=":", zorder=0)
            return ax
    metrics = as_list(metrics)
    if not metrics:
        raise ValueError("`metrics` is empty; name at least one column of the table, such as 'f1'.")
    _check_source(table, ["threshold", *metrics], source)
    spans = table.groupby("layer", sort=False)["threshold"].agg(["min", "max"]).dropna()
    within = (spans["min"] >= 0) & (spans["max"] <= 1)
    if within.any() and not within.all():
        names = f"{list(spans.index[within])} are in [0, 1], those of {list(spans.index[~within])} in other units"
        raise ValueError(f'Thresholds of {names}. Draw one layer at a time: table[table["layer"] == "..."].')
    y = metrics[-1]
    if len(metrics) > 1 and table["channel"].nunique() <= 1:
        table, y = table.melt(["layer", "threshold"], metrics, "channel", "value"), "value"
    return _draw_lines(table, "threshold", y, ax, "no labelled cell with a value")


def metrics(table: pd.DataFrame, *, metric: str = "f1", ax: Axes | None = None) -> Axes:
    """Show metrics of markers, differences from baselines, or information of confounders, with their intervals.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.marker_metrics` (one row per marker, and group of ``by``; one colour per layer),
        :func:`nimbus_sd.metrics.compare_baselines` (by how much the scores' F1 is above that of each baseline, one
        colour per rule; ``"oracle"`` is the best that a threshold can reach, since it knows the labels) or
        :func:`nimbus_sd.metrics.confounder_information` (as in Fig. 4d of Rumberger et al.; a short grey line marks the
        95 % quantile of the null, and where there is no estimate, the reason stands in its row); its columns say which.
    metric
        Column of a table of markers.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.metrics(ns.metrics.marker_metrics(adata, "gold"), metric="recall")
    """
    flat = table.reset_index()
    if "confounder" in flat:
        _check_source(flat, ["layer", "information", "null_95"], "`metrics.confounder_information`")
        flat["row"] = flat["confounder"].map(title)
        ax = _draw_intervals(flat, "information", "mutual information with errors (nats)", ax)
        ax.set_xlim(left=min(0, ax.get_xlim()[0]))
        for number, (_, part) in enumerate(flat.groupby("row", sort=False)):
            if "reason" in part and part["information"].isna().all():
                style: dict[str, Any] = {"fontsize": "x-small", "color": GREY, "va": "center"}
                ax.text(0.02, -number, part["reason"].iloc[0], transform=ax.get_yaxis_transform(), **style)
        return ax
    if "baseline" in flat:
        _check_source(flat, ["rule", "difference"], "`metrics.compare_baselines`")
        rules = flat["rule"].replace("oracle", "best possible (knows the labels)")
        flat = flat.assign(row=flat["baseline"].map(title), layer=rules)
        ax = _draw_intervals(flat, "difference", "F1 of scores minus F1 of baseline", ax, width=7.0)
        ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        for text, side in (("← intensity better ", "right"), (" scores better →", "left")):
            style = {"ha": side, "va": "bottom", "fontsize": "small", "color": GREY}
            ax.text(0, 1.02, text, transform=ax.get_xaxis_transform(), **style)
        return ax
    _check_source(flat, [metric], "`metrics.marker_metrics`, `compare_baselines` or `confounder_information`")
    places = [name for name in table.index.names if name and name != "layer"] or [flat.columns[0]]
    flat["row"] = flat[places].astype(str).agg(", ".join, axis=1)
    return _draw_intervals(flat, metric, title(metric), ax)


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
    """Show the kernel density of a layer, of positive and of negative cells apart, as in Fig. 5 of Rumberger et al.

    The estimate is that behind ``overlap`` of :func:`nimbus_sd.metrics.score_shape`: Gaussian kernels, Scott's
    bandwidth for each class, mirrored at the ends of the range, on 256 bins.

    Parameters
    ----------
    {adata}
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
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.score_shape(adata, "gold", channel="CD3")
    """
    if scale not in ("auto", "linear", "arcsinh"):
        raise ValueError(f"`scale` is {scale!r}; it must be 'auto', 'linear' or 'arcsinh'.")
    part = adata if channel is None else adata[:, channel_names(adata, channel)]
    values = read_layer(part, pred)
    curved = scale == "arcsinh" or (scale == "auto" and not holds_scores(pred, read_layer(adata, pred)))
    values = scaled_arcsinh(values) if curved else values
    finite = np.isfinite(values)
    classes = [(finite, GREY, "cells")]
    if truth is not None:
        labels = read_layer(part, truth)
        used = finite & judged(labels, likely=likely)
        classes = [(used & (labels < 0.5), COLORS[0], "negative"), (used & (labels > 0.5), COLORS[1], "positive")]
    ax = axes(ax)
    low, high = 0.0, 1.0
    if finite.any() and (curved or not holds_scores(pred, values)):
        low, high = float(values[finite].min()), float(values[finite].max())
    for cells, color, name in classes:
        if cells.any():
            edges, heights = density(values[cells], low, high)
            x = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
            y = np.pad(heights, 1, mode="edge")
            ax.fill_between(x, y, color=color, alpha=0.25, linewidth=0)
            ax.plot(x, y, color=color, linewidth=1.2, label=f"{name} ({int(cells.sum()):,})")
    ax.set_ylim(bottom=0)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize="small")
    else:
        say_empty(ax, f"no {title(pred)}")
    ax.set(xlabel=f"arcsinh({title(pred)} / c)" if curved else title(pred), ylabel="density", title=channel or "")
    return ax


def _check_source(table: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Raise a ValueError if the table lacks a column that the result of a function has."""
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"The table lacks {missing}; it must be the result of {source}. It has {list(table)}.")


def _draw_lines(table: pd.DataFrame, x: str, y: str, ax: Axes | None, why: str) -> Axes:
    """Draw lines of all channels and layers, a legend beside them, and a note on those that have none."""
    drawn = table.dropna(subset=[x, y])
    without = [name for name in table["channel"].unique() if name not in set(drawn["channel"])]
    looks, entries = _looks(table)
    entries = {name: look for name, look in entries.items() if name not in without}
    several = len(entries) > 1
    ax = axes(ax, 3.6 + 1.8 * several * -(-len(entries) // _LEGEND_ROWS), 3.4)
    label = {"observed": "share of positive cells", "value": ""}.get(y, title(y))
    ax.set(xlabel=title(x), ylabel=label, ylim=(-0.02, 1.02))
    if drawn.empty:
        say_empty(ax, why)
        return ax
    for key, part in drawn.groupby(["layer", "channel"], sort=False):
        ax.plot(part[x], part[y], **looks[key])
        if y == "observed":
            dots: dict[str, Any] = {"alpha": np.where(part["cells"] < _FEW, 0.15, 0.55), "linewidth": 0, "zorder": 1}
            ax.scatter(part[x], part[y], 8 + 80 * part["cells"] / part["cells"].max(), looks[key]["color"], **dots)
    if several:
        handles = [Line2D([], [], **look, label=title(name)) for name, look in entries.items()]
        legend_beside(ax, handles, rows=_LEGEND_ROWS, fontsize="x-small", handlelength=3.5)
    if without:
        style: dict[str, Any] = {"textcoords": "offset points", "va": "top", "fontsize": "x-small", "color": GREY}
        text = textwrap.fill(f"no curve: {', '.join(without)}", 60)
        ax.annotate(text, (0, 0), (0, -34), xycoords="axes fraction", **style)
    return ax


def _looks(table: pd.DataFrame) -> tuple[dict[Any, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Give keywords for ``Axes.plot`` to each (layer, channel), and to each name in the legend.

    Channels have colours, and beyond seven line styles; layers have line styles, or widths where channels take the
    styles. Of a single channel, layers have the colours.
    """
    channels, layers = (list(table[name].unique()) for name in ("channel", "layer"))
    single, n = len(channels) == 1, len(COLORS)
    entries: dict[str, dict[str, Any]] = {
        name: {"color": COLORS[i % n], "linestyle": _STYLES[i // n % len(_STYLES)], "linewidth": 1.2}
        for i, name in enumerate(layers if single else channels)
    }
    what, values = ("linestyle", _STYLES) if len(entries) <= n else ("linewidth", _WIDTHS)
    shared = [] if single or len(layers) == 1 else layers
    of_layer = {layer: {what: values[i % len(values)]} for i, layer in enumerate(shared)}
    names = [(layer, channel) for layer in layers for channel in channels]
    looks = {key: entries[key[0] if single else key[1]] | of_layer.get(key[0], {}) for key in names}
    return looks, entries | {layer: {"color": GREY, "linewidth": 1.2} | look for layer, look in of_layer.items()}


def _draw_intervals(flat: pd.DataFrame, value: str, label: str, ax: Axes | None, width: float = 4.5) -> Axes:
    """Draw dots with intervals, a row for each ``row`` from top to bottom, one colour per ``layer``."""
    flat = flat if "layer" in flat else flat.assign(layer="")
    rows, layers = list(flat["row"].unique()), list(flat["layer"].unique())
    ax = axes(ax, width, 0.9 + 0.16 * len(rows) * (1 + len(layers)) / 2)
    for number, (name, part) in enumerate(flat.groupby("layer", sort=False)):
        color = COLORS[number % len(COLORS)]
        y = -part["row"].map(rows.index) + 0.7 * ((len(layers) - 1) / 2 - number) / len(layers)
        if f"{value}_low" in part:
            ax.hlines(y, part[f"{value}_low"], part[f"{value}_high"], color=color, linewidth=1.2)
        if "null_95" in part:
            ax.plot(part["null_95"], y, "|", color=GREY, markersize=6)
        ax.plot(part[value], y, "o", color=color, markersize=4, label=title(name))
    ax.set_yticks(-np.arange(len(rows)), rows)
    ax.set(ylim=(0.5 - len(rows), 0.5), xlabel=label)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    if len(layers) > 1:
        legend_beside(ax, ax.get_legend_handles_labels()[0])
    if not np.isfinite(flat[value]).any():
        say_empty(ax, "nothing could be computed")
    return ax
