"""Lines of many channels and layers that can be told apart, and their legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nimbus_sd.pl._style import COLORS, GREY, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The last two are lengths of dashes and gaps: long dashes, and a dash with two dots.
STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 3)), (0, (5, 1.5, 1, 1.5, 1, 1.5)))
_WIDTHS = (1.4, 0.7, 2.4, 3.4)
_LEGEND_ROWS = 20


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each name a colour and a line style: seven colours, then the same with the next style, 42 in all."""
    return {
        name: {"color": COLORS[i % len(COLORS)], "linestyle": STYLES[i // len(COLORS) % len(STYLES)]}
        for i, name in enumerate(names)
    }


def line_looks(
    channels: Sequence[str], layers: Sequence[str]
) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, dict[str, Any]]]:
    """Say how the line of each layer and channel looks.

    Channels have colours, and beyond seven line styles; layers have line styles, or widths where channels take the
    styles. Of a single channel, layers have the colours.

    Returns
    -------
    Keywords for ``Axes.plot`` by (layer, channel), and by name those of the legend's entries.
    """
    if len(channels) == 1:
        entries = looks(layers)
        return {(layer, channels[0]): look for layer, look in entries.items()}, entries
    entries = looks(channels)
    if len(layers) == 1:
        return {(layers[0], channel): look for channel, look in entries.items()}, entries
    if len(channels) <= len(COLORS):
        of_layer = {layer: {"linestyle": STYLES[i % len(STYLES)]} for i, layer in enumerate(layers)}
    else:
        of_layer = {layer: {"linewidth": _WIDTHS[i % len(_WIDTHS)]} for i, layer in enumerate(layers)}
    lines = {(layer, channel): entries[channel] | of_layer[layer] for layer in layers for channel in channels}
    return lines, entries | {layer: {"color": GREY, **look} for layer, look in of_layer.items()}


def legend_width(entries: dict[str, dict[str, Any]]) -> float:
    """Return the inches that a legend beside the axes takes."""
    return 1.8 * -(-len(entries) // _LEGEND_ROWS) if len(entries) > 1 else 0.0


def legend_beside(ax: Axes, entries: dict[str, dict[str, Any]]) -> None:
    """Put a legend to the right of the axes where there is something to tell apart."""
    from matplotlib.lines import Line2D

    if len(entries) < 2:
        return
    handles = [Line2D([], [], **{"linewidth": 1.2, **look}, label=title(name)) for name, look in entries.items()]
    ax.legend(
        handles=handles,
        frameon=False,
        fontsize="x-small",
        handlelength=3.5,
        loc="upper left",
        bbox_to_anchor=(1, 1),
        ncols=-(-len(handles) // _LEGEND_ROWS),
    )


def note_below(ax: Axes, names: Sequence[str], why: str) -> None:
    """Name, under the axes, what has no line."""
    if not names:
        return
    text = textwrap.fill(f"{why}: {', '.join(names)}", 60)
    ax.annotate(
        text,
        (0, 0),
        xytext=(0, -34),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize="x-small",
        color=GREY,
    )


def say_empty(ax: Axes, why: str) -> None:
    """Write into axes why there is nothing in them."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=GREY)
