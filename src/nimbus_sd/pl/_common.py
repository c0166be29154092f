"""What pictures share: descriptions of parameters, reading of tables, colours, axes and legends."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of, layer
from nimbus_sd.tl import GREYS

# Okabe and Ito 2008, darkest first; the yellow is too pale for lines on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"
NO_CLUSTER = "#d9d9d9"
_ROWS = 26
_INTENSITIES = (keys.INTEGRATED, keys.MEDIAN, keys.ERODED)

_TITLES = {
    keys.NIMBUS: "scores",
    keys.INTEGRATED: "integrated expression",
    keys.SILVER: "silver labels",
    keys.GOLD: "gold labels",
    keys.GOLD_TRAINING: "gold labels for training",
    "f1": "F1",
    "auroc": "AUROC",
}

_PARAMETERS = {
    "adata": "Cells x channels.",
    "ax": "Where to draw; a new figure by default.",
    "channels": "Channels to draw; all by default.",
    "cmap": "Colour map.",
    "crop": "Rows and columns to show, two slices, in pixels of the finer of image and labels; by default all labels.",
    "groupby": "Column of ``obs`` with clusters.",
    "image_key": "Image; may be left out where only one shares a coordinate system with the labels.",
    "labels_key": "Labels element of the cells; may be left out where there is only one.",
    "layer": "Layer of scores.",
    "located_sdata": 'Images, labels and a table with scores, whose ``obsm["spatial"]`` holds x and y in pixels.',
    "scaled_layer": "Layer of scores. Of intensities, each marker is scaled from its lowest to its highest cluster.",
    "sdata": "Images, labels and a table of the cells.",
    "table_key": "Name of the table in ``sdata``.",
    "width": "Side of a crop, in pixels of the finer of image and labels.",
}


def public(draw: Any) -> Any:
    """Put shared descriptions in the place of ``{parameter}`` in a docstring, and draw names literally."""

    def describe(match: re.Match[str]) -> str:
        indent, key = match.groups()
        return f"{indent}{re.sub('^(located|scaled)_', '', key)}\n{indent}    {_PARAMETERS[key]}"

    @wraps(draw)
    def draw_literally(*args: Any, **kwargs: Any) -> Any:
        drawn = draw(*args, **kwargs)
        for ax in np.ravel(np.asarray(drawn, object)):
            literal(ax)
        return drawn

    draw_literally.__doc__ = re.sub(r"^( *)\{(\w+)\}$", describe, draw.__doc__ or "", flags=re.MULTILINE)
    return draw_literally


def literal(drawn: Artist) -> None:
    """Let ``$`` in names stand for itself: two of them would make a formula, or an error where they are none."""
    for text in drawn.findobj(Text):
        text.set_parse_math(False)


def select(names: str | Sequence[str] | None, available: Iterable[Any], nothing: str) -> list[str]:
    """Return the names asked for, or all; raise a KeyError, which begins with ``nothing``, if one does not exist."""
    available = [str(name) for name in available]
    names = available if names is None else [str(name) for name in as_list(names)]
    if missing := [name for name in names if name not in available]:
        raise KeyError(f"{nothing} {', '.join(map(repr, missing))}; there are {available}.")
    return names


def channel_names(adata: AnnData, channels: str | Sequence[str] | None) -> list[str]:
    """Return the channels asked for, or all."""
    return select(channels, adata.var_names, "The table has no channel")


def column(adata: AnnData, name: str, channel: str) -> NDArray:
    """Return one channel of a layer, shape (cells,), without a dense copy of the others."""
    return layer(adata[:, channel_names(adata, channel)], name)[:, 0]


def holds_scores(name: str, values: NDArray) -> bool:
    """Say whether values of a layer are scores or labels, in [0, 1], rather than intensities or the like."""
    return name not in _INTENSITIES and not ((values < 0) | (values > 1)).any()


def factor_of(adata: AnnData, channel: str) -> float | None:
    """Return the normalisation factor of a channel; None where there is none above 0."""
    tables = {key: table for key, table in adata.varm.items() if str(key).endswith("_normalization")}
    table = tables.get(f"{keys.NIMBUS}_normalization", next(iter(tables.values()), None))
    if table is None or channel not in table.index or not table.loc[channel, "factor"] > 0:
        return None
    return float(table.loc[channel, "factor"])


def high_end(values: NDArray) -> float:
    """Return the 99.9 % quantile of values, or 1 where it is not above 0 or there are none."""
    top = float(np.quantile(values, 0.999)) if values.size else 0.0
    return top if top > 0 else 1.0


def cluster_means(adata: AnnData, groupby: str, values: pd.DataFrame) -> pd.DataFrame:
    """Average cells x channels over the cells of each cluster that have a value: clusters x channels."""
    clusters = clusters_of(adata, groupby)
    means = values.groupby(np.asarray(clusters.codes)).mean()
    return means.reindex(range(len(clusters.categories))).set_axis(clusters.categories)


def title(name: str) -> str:
    """Return what a layer or a column is called in a picture."""
    return _TITLES.get(name, str(name).replace("_", " "))


def axes(ax: Axes | None, width: float = 3.5, height: float = 3.0) -> Axes:
    """Return the axes, or those of a new figure of that size in inches, without the upper and the right frame."""
    ax = ax or plt.subplots(figsize=(width, height), layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def say_empty(ax: Axes, why: str) -> None:
    """Write into axes why there is nothing in them."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=GREY)


def distinct(n: int) -> list[str]:
    """Take n colours from scanpy's palettes; of that for more than 20, those that are no greys, pale or nearly black.

    Its palette of 28 is left out, since a third of it is grey or pale.
    """
    from scanpy.pl import palettes

    large = [c for c in palettes.default_102 if np.ptp(to_rgb(c)) > 0.2 and 0.22 < brightness(to_rgb(c)) < 0.85]
    palette = palettes.default_20 if n <= len(palettes.default_20) else large
    return [str(palette[i % len(palette)]) for i in range(n)]


def brightness(rgb: ArrayLike) -> NDArray[np.float64]:
    """Return how bright colours are, shape (..., 3), from 0 to 1."""
    return np.asarray(rgb) @ (0.3, 0.6, 0.1)


def colors_of(adata: AnnData, groupby: str) -> dict[str, str]:
    """Give each cluster a colour: that in ``uns[f"{groupby}_colors"]``, where scanpy keeps them, else one of a palette.

    Of the palette, cells that :func:`nimbus_sd.tl.cell_types` gave no type are grey.
    """
    names = list(clusters_of(adata, groupby).categories)
    column, stored = adata.obs[groupby], adata.uns.get(f"{groupby}_colors")
    if (
        isinstance(column.dtype, pd.CategoricalDtype)
        and stored is not None
        and len(stored) == column.cat.categories.size
    ):
        pairs = zip(map(str, column.cat.categories), stored, strict=True)
        return {name: str(color) for name, color in pairs if name in names}
    typed = [name for name in names if name not in GREYS]
    palette = dict(zip(typed, distinct(len(typed)), strict=True)) | GREYS
    return {name: palette[name] for name in names}


def legend_size(names: Iterable[str]) -> tuple[float, float]:
    """Return the inches, rather too many, that a legend of these names and a title take."""
    names = list(names)
    columns = max(1, -(-len(names) // _ROWS))
    return columns * (0.5 + 0.08 * max(map(len, names), default=0)), 0.3 + 0.2 * -(-len(names) // columns)


def patches(colors: Mapping[str, str], **style: Any) -> list[Artist]:
    """Make the entries of a legend of colours."""
    return [Patch(color=color, label=name, **style) for name, color in colors.items()]


def legend_beside(ax: Axes, handles: Sequence[Artist], gap: float = 0.08, rows: int = _ROWS, **style: Any) -> Legend:
    """Put a legend to the right of the axes, in as many columns as it takes, with a gap in inches."""
    beside = ax.transAxes + ScaledTranslation(gap, 0, ax.figure.dpi_scale_trans)
    look: dict[str, Any] = {"fontsize": "small", "handlelength": 1, "handleheight": 1, "loc": "upper left"} | style
    place: dict[str, Any] = {"bbox_to_anchor": (1, 1), "bbox_transform": beside, "borderaxespad": 0}
    return ax.legend(handles=handles, ncols=-(-len(handles) // rows), frameon=False, **place, **look)
