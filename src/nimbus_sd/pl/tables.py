"""Figures with their intervals: of each marker, against baselines, and what errors go along with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nimbus_sd.pl._style import GREY, axes, color_of, need, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def marker_metrics(table: pd.DataFrame, metric: str = "f1", *, ax: Axes | None = None) -> Axes:
    """Show a metric of each marker, with its interval where there is one.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.marker_metrics`, of one layer or several. Groups of ``by`` become part of a
        row's name.
    metric
        Column of the table.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        One row per marker in the table's order, one colour per layer.

    Raises
    ------
    ValueError
        If the table lacks the metric.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ax = ns.pl.marker_metrics(ns.metrics.marker_metrics(adata, "gold"))
    """
    need(table, [metric], "metrics.marker_metrics")
    flat = table.reset_index()
    places = [name for name in table.index.names if name and name != "layer"]
    flat["row"] = flat[places].astype(str).agg(", ".join, axis=1) if places else flat.iloc[:, 0].astype(str)
    return _dots(flat, "row", metric, title(metric), ax)


def compare_baselines(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show by how much the scores' F1 is above that of each baseline and threshold rule.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.compare_baselines`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        One row per baseline, one colour per rule; to the right of 0 the scores are better. The rule ``"oracle"`` is
        the best that a threshold can reach, since it knows the labels.

    Raises
    ------
    ValueError
        If the table is another one.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.layers["gold"]
    >>> ax = ns.pl.compare_baselines(ns.metrics.compare_baselines(adata, pred="gold", n_boot=0))
    """
    need(table, ["baseline", "rule", "difference"], "metrics.compare_baselines")
    flat = table.reset_index().rename(columns={"rule": "layer"})
    flat["row"] = flat["baseline"].map(title)
    flat["layer"] = flat["layer"].replace("oracle", "best possible (knows the labels)")
    ax = _dots(flat, "row", "difference", "F1 of scores minus F1 of baseline", ax, width=7.0)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    for text, side in (("← intensity better ", "right"), (" scores better →", "left")):
        ax.text(0, 1.02, text, transform=ax.get_xaxis_transform(), ha=side, va="bottom", fontsize="small", color=GREY)
    return ax


def confounder_information(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show how much each confounder tells about being wrong.

    As in Fig. 4d of Rumberger et al.

    Parameters
    ----------
    table
        From :func:`nimbus_sd.metrics.confounder_information`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        One row per confounder, one colour per layer; a short grey line marks the 95 % quantile of the
        null. Where there is no estimate, the reason stands in its row.

    Raises
    ------
    ValueError
        If the table is another one.
    """
    need(table, ["layer", "confounder", "information", "null_95"], "metrics.confounder_information")
    flat = table.reset_index()
    flat["row"] = flat["confounder"].map(title)
    ax = _dots(flat, "row", "information", "mutual information with errors (nats)", ax, beside="null_95")
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    for number, name in enumerate(dict.fromkeys(flat["row"])):
        part = flat[flat["row"] == name]
        if part["information"].isna().all() and "reason" in part:
            ax.text(
                0.02,
                -number,
                part["reason"].iloc[0],
                transform=ax.get_yaxis_transform(),
                fontsize="x-small",
                color=GREY,
                va="center",
            )
    return ax


def _dots(
    flat: pd.DataFrame,
    row: str,
    value: str,
    label: str,
    ax: Axes | None,
    *,
    beside: str | None = None,
    width: float = 4.5,
) -> Axes:
    """Dots with intervals, rows from top to bottom, one colour per layer."""
    rows = list(dict.fromkeys(flat[row]))
    layers = list(dict.fromkeys(flat["layer"])) if "layer" in flat else [""]
    ax = axes(ax, width, 0.9 + 0.16 * len(rows) * (1 + len(layers)) / 2)
    place = {name: -i for i, name in enumerate(rows)}
    colors = color_of(layers)
    for number, name in enumerate(layers):
        part = flat[flat["layer"] == name] if "layer" in flat else flat
        y = part[row].map(place).to_numpy(float) + 0.7 * ((len(layers) - 1) / 2 - number) / len(layers)
        x = part[value].to_numpy(float)
        if f"{value}_low" in part:
            ends = part[[f"{value}_low", f"{value}_high"]].to_numpy(float).T
            ax.hlines(y, *ends, color=colors[name], linewidth=1.2)
        if beside is not None:
            ax.plot(part[beside], y, "|", color=GREY, markersize=6)
        ax.plot(x, y, "o", color=colors[name], markersize=4, label=title(name))
    ax.set_yticks(list(place.values()), rows)
    ax.set_ylim(0.5 - len(rows), 0.5)
    ax.set_xlabel(label)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    if len(layers) > 1:
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    if not np.isfinite(flat[value]).any():
        ax.text(0.5, 0.5, "nothing could be computed", transform=ax.transAxes, ha="center")
    return ax
