"""Why a number of metaclusters was suggested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nimbus_sd.pl._style import COLORS, GREY, axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_NEAR = 0.02


def metacluster_suggestion(adata: AnnData, key: str = "flowsom_nimbus", *, ax: Axes | None = None) -> Axes:
    """Show how well nodes fall into each number of metaclusters, and the number that was suggested.

    Shaded are the numbers that do about as well (a mean silhouette within 0.02 of the best): where there are several,
    the data do not decide between them.

    Parameters
    ----------
    adata
        Table after :func:`nimbus_sd.tl.flowsom` without ``n_metaclusters``.
    key
        Name of the map.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If there is no such map, or its number of metaclusters was given.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.tl.flowsom(adata, layer="gold", xdim=5, ydim=5, engine="minisom")
    >>> ax = ns.pl.metacluster_suggestion(adata)
    """
    from matplotlib.ticker import MaxNLocator

    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or "codes" not in entry:
        raise KeyError(f"There is no uns[{key!r}] of `tl.flowsom`.")
    if "suggestion" not in entry:
        raise KeyError(f"uns[{key!r}] has no suggestion, as `n_metaclusters` was given; `tl.flowsom` without it has.")
    found = entry["suggestion"]
    numbers, silhouette = np.asarray(found["n_metaclusters"]), np.asarray(found["silhouette"])
    suggested = int(found["suggested"])
    best = silhouette[numbers == suggested][0]
    ax = axes(ax)
    for i, number in enumerate(numbers[silhouette >= best - _NEAR]):
        label = "about as well" if i == 0 else None
        ax.axvspan(number - 0.5, number + 0.5, color=GREY, alpha=0.15, linewidth=0, label=label)
    ax.plot(numbers, silhouette, color=COLORS[0], marker=".", linewidth=1.2, markersize=4)
    ax.plot([suggested], [best], "o", color=COLORS[1], markersize=6, label=f"suggested: {suggested}")
    ax.set(xlabel="metaclusters", ylabel="mean silhouette of the nodes", xlim=(numbers[0] - 0.5, numbers[-1] + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(y=0.1)
    ax.legend(frameon=False, fontsize="small")
    return ax
