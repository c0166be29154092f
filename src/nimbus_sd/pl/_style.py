"""Colours that colour-blind people can tell apart, and names that a reader of a paper understands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nimbus_sd import keys

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe and Ito 2008, darkest first; the yellow is too pale for lines on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"

_TITLES = {
    keys.NIMBUS: "scores",
    keys.INTEGRATED: "integrated expression",
    keys.SILVER: "silver labels",
    keys.GOLD: "gold labels",
    keys.GOLD_TRAINING: "gold labels for training",
    "f1": "F1",
    "auroc": "AUROC",
}


def title(name: str) -> str:
    """Return what a layer or a column is called in a picture."""
    return _TITLES.get(name, str(name).replace("_", " "))


def color_of(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour; they repeat after seven."""
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}


def axes(ax: Axes | None, width: float = 3.5, height: float = 3.0) -> Axes:
    """Return the axes, or those of a new figure of that size in inches, without the upper and the right frame."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def literal(drawn: Artist) -> None:
    """Let ``$`` in names stand for itself: two of them would make a formula, or an error where they are none."""
    from matplotlib.text import Text

    for text in drawn.findobj(Text):
        text.set_parse_math(False)


def need(table: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Check that a table is the one that a picture is of.

    Raises
    ------
    ValueError
        If a column or a level of the index is missing.
    """
    there = [*map(str, table.columns), *(str(name) for name in table.index.names if name)]
    missing = [name for name in columns if name not in there]
    if missing:
        raise ValueError(f"The table lacks {missing}; it must be the result of `{source}`. It has {there}.")
