"""The nodes of a self-organising map as stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import as_list
from nimbus_sd.pl._clusters import colors_of, distinct, legend_size, place_legend
from nimbus_sd.pl._style import GREY

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_NEEDED = ("codes", "counts", "channels", "metaclusters", "params")
# Of stars, in units of the grid; smaller ones cannot be read.
_SMALLEST, _LARGEST = 0.27, 0.47
# Inches of a node, and of the longer side of a small map.
_NODE, _SMALLEST_MAP = 0.42, 3.5
_HEADERS = ("marker", "metacluster")


def som_stars(
    adata: AnnData,
    key: str = "flowsom_nimbus",
    *,
    channels: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show each node of a FlowSOM as a star: a wedge per marker, as long as the node's score in it is high.

    Parameters
    ----------
    adata
        A table that ``tl.flowsom`` has clustered.
    key
        Its ``uns`` entry: ``codes`` (nodes x channels), ``counts`` (cells of each node), ``channels``, ``metaclusters``
        (of each node), and ``xdim`` and ``ydim`` in ``params``; node i lies in column ``i // ydim``, row ``i % ydim``.
    channels
        Markers to draw; all by default.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        One star per node. Wedges have the markers' colours; where codes are not within [0, 1], each marker is scaled
        from its lowest to its highest node. The area of a wedge, as a share of its place, is the value. The larger a
        star, the more cells it has; nodes without cells are crosses. The squares behind have the colour of the
        metacluster, that of :func:`clusters` where ``obs[key]`` has it too.

    Raises
    ------
    KeyError
        If the entry, something in it, or a channel does not exist.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> import nimbus_sd as ns
    >>> adata = anndata.AnnData(obs=pd.DataFrame(index=["cell"]))
    >>> adata.uns["flowsom_nimbus"] = {
    ...     "codes": np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.7]]),
    ...     "counts": np.array([50, 20, 40, 5]),
    ...     "channels": ["CD3", "CD20"],
    ...     "metaclusters": ["1", "1", "2", "2"],
    ...     "params": {"xdim": 2, "ydim": 2},
    ... }
    >>> ax = ns.pl.som_stars(adata)
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle, Rectangle, Wedge

    found = _entry(adata, key)
    names = [str(name) for name in found["channels"]]
    shown = names if channels is None else [str(name) for name in as_list(channels)]
    if missing := [name for name in shown if name not in names]:
        raise KeyError(f"uns[{key!r}] has no channel {', '.join(map(repr, missing))}; it has {names}.")
    codes = _unit(np.asarray(found["codes"], float)[:, [names.index(name) for name in shown]])
    counts = np.asarray(found["counts"], float)
    groups = pd.Series(np.asarray(found["metaclusters"])).astype(str)
    xdim, ydim = (int(found["params"][name]) for name in ("xdim", "ydim"))
    if len(codes) != xdim * ydim:
        raise ValueError(f"uns[{key!r}] has {len(codes)} nodes, which is not xdim x ydim = {xdim} x {ydim}.")
    place = np.stack(np.divmod(np.arange(len(codes)), ydim), axis=1).astype(float)

    of_group = _group_colors(adata, key, list(groups.unique()))
    of_marker = dict(zip(shown, distinct(len(shown)), strict=True))
    if ax is None:
        side = max(_NODE, _SMALLEST_MAP / max(xdim, ydim))
        wide, high = legend_size([*of_marker, *of_group, *_HEADERS])
        size = side * xdim + 0.3 + wide, max(side * ydim + 0.3, high)
        _, ax = plt.subplots(figsize=size, layout="compressed")
    squares = [Rectangle((x - 0.5, y - 0.5), 1, 1) for x, y in place]
    behind = [of_group[group] for group in groups]
    ax.add_collection(PatchCollection(squares, facecolors=behind, edgecolors="white", linewidths=0.6, alpha=0.45))
    size_of = _SMALLEST + (_LARGEST - _SMALLEST) * np.sqrt(counts / max(counts.max(), 1))
    radius = np.where(counts > 0, size_of, 0)
    discs = [Circle(tuple(at), size) for at, size in zip(place, radius, strict=True) if size > 0]
    ax.add_collection(PatchCollection(discs, facecolors="white", edgecolors=GREY, linewidths=0.4))
    turn = 360 / len(shown)
    for i, name in enumerate(shown):
        wedges = [
            # The first marker points up, the others follow clockwise.
            Wedge(tuple(at), size * length, 90 - (i + 1) * turn, 90 - i * turn)
            for at, size, length in zip(place, radius, np.sqrt(codes[:, i]), strict=True)
            if size * length > 0
        ]
        ax.add_collection(PatchCollection(wedges, facecolors=of_marker[name], edgecolors="none"))
    ax.plot(*place[counts == 0].T, "x", color=GREY, markersize=4, linestyle="")
    _outline_groups(ax, groups.to_numpy().reshape(xdim, ydim))
    ax.set(xlim=(-0.55, xdim - 0.45), ylim=(-0.55, ydim - 0.45), aspect="equal")
    ax.axis("off")
    _legend(ax, of_marker, of_group)
    return ax


def _entry(adata: AnnData, key: str) -> Mapping[str, Any]:
    found = adata.uns.get(key)
    if not isinstance(found, Mapping):
        raise KeyError(f"There is no uns[{key!r}]; run `nimbus_sd.tl.flowsom` first, or pass its `key_added` as `key`.")
    if missing := [name for name in _NEEDED if name not in found]:
        raise KeyError(f"uns[{key!r}] lacks {missing}; it must be the entry that `nimbus_sd.tl.flowsom` makes.")
    return found


def _unit(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave scores as they are, scale other values of each channel to [0, 1]."""
    codes = np.nan_to_num(codes)
    if codes.size and codes.min() >= 0 and codes.max() <= 1:
        return codes
    low, high = codes.min(axis=0), codes.max(axis=0)
    return (codes - low) / np.where(high > low, high - low, 1)


def _group_colors(adata: AnnData, key: str, groups: list[str]) -> dict[str, str]:
    """Give metaclusters the colours that they have elsewhere, in the order of the numbers in their names."""
    groups = sorted(groups, key=lambda name: (not name.isdigit(), name.zfill(9)))
    known = colors_of(adata, key) if key in adata.obs else {}
    if set(groups) <= set(known):
        return {name: known[name] for name in groups}
    return dict(zip(groups, distinct(len(groups)), strict=True))


def _legend(ax: Axes, markers: Mapping[str, str], groups: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    entries = []
    for name, colors, alpha in zip(_HEADERS, (markers, groups), (1.0, 0.45), strict=True):
        entries.append(Patch(alpha=0, label=name))
        entries += [Patch(color=color, alpha=alpha, label=label) for label, color in colors.items()]
    texts = place_legend(ax, entries).get_texts()
    for header in (texts[0], texts[len(markers) + 1]):
        header.set_fontweight("bold")


def _outline_groups(ax: Axes, grid: NDArray) -> None:
    """Draw dark lines between metaclusters."""
    from matplotlib.collections import LineCollection

    lines = []
    for x, y in zip(*np.nonzero(grid[:-1] != grid[1:]), strict=True):
        lines.append([(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)])
    for x, y in zip(*np.nonzero(grid[:, :-1] != grid[:, 1:]), strict=True):
        lines.append([(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)])
    ax.add_collection(LineCollection(lines, colors="#333333", linewidths=1.2))
