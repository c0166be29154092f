"""Where score and mean disagree: crops of dim positive cells, and of negative ones that are bright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd.pl.cells import image, region_of, table_of
from nimbus_sd.spatial.rows import dense

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

_OUTLINE = "#e69f00"


def disagreement(
    sdata: SpatialData,
    kind: Literal["dim", "bright"] = "dim",
    *,
    channels: Sequence[str] | None = None,
    layer: str = keys.NIMBUS,
    n_cells: int = 12,
    width: int = 60,
    table_key: str = "table",
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show the cells about which scores and integrated expression disagree most (the paper's Fig. 5).

    Parameters
    ----------
    sdata
        Images, labels and a table with scores.
    kind
        ``"dim"``: called positive though their mean is low; ``"bright"``: called negative though it is high, as
        where neighbours spill over.
    channels
        Which ones; all by default. Cells of all of them are ranked together, by their mean on a scale on which the
        median cell called negative is 0 and the median cell called positive is 1.
    layer
        Layer of scores.
    n_cells
        Number of crops. Fewer are shown where fewer cells disagree.
    width
        Side of a crop in pixels.
    table_key
        Name of the table.
    ax
        Axes to draw on, one a crop; a new figure by default.

    Returns
    -------
    Array of Axes, one for each cell, the most extreme first. Titles name the channel, the score, and the mean on
    that scale; the cell's outline is orange.

    Raises
    ------
    KeyError
        If a table, layer or channel does not exist.
    ValueError
        If ``kind`` is another, or no channel has cells called positive and negative.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3"], progress=False)
    >>> axes = ns.pl.disagreement(sdata, "bright", channels=["CD3"], n_cells=4)
    """
    if kind not in ("dim", "bright"):
        raise ValueError(f"`kind` is {kind!r}; it must be 'dim' or 'bright'.")
    picked = _pick(sdata, kind, channels, layer, n_cells, table_key)
    axes = _grid(len(picked)) if ax is None else np.asarray(ax).ravel()
    for (_, cell), here in zip(picked.iterrows(), axes, strict=False):
        region = region_of(sdata, cell["channel"], cell["region"])
        # Cells at the image's edge are off-centre rather than in a smaller crop.
        top, left = (
            max(0, min(int(at) - width // 2, size - width))
            for at, size in zip(cell[["y", "x"]], region.shape, strict=True)
        )
        crop = (slice(top, top + width), slice(left, left + width))
        image(sdata, cell["channel"], cell["region"], crop=crop, outlines=False, table_key=table_key, ax=here)
        here.contour(region.read_labels(*crop) == cell["instance"], [0.5], colors=[_OUTLINE], linewidths=1.2)
        here.set_title(f"{cell['channel']}: score {cell['score']:.2f}, mean {cell['mean']:.2f}", fontsize=8)
    for here in axes[len(picked) :]:
        here.set_visible(False)
    return axes[: len(picked)]


def _pick(
    sdata: SpatialData, kind: str, channels: Sequence[str] | None, layer: str, n_cells: int, table_key: str
) -> pd.DataFrame:
    adata = table_of(sdata, table_key)
    for needed in (layer, keys.INTEGRATED):
        if needed not in adata.layers:
            raise KeyError(f"There is no layer {needed!r} in table {table_key!r}; run `predict` first.")
    channels = list(adata.var_names) if channels is None else list(channels)
    missing = [name for name in channels if name not in adata.var_names]
    if missing:
        raise KeyError(f"Table {table_key!r} has no column {missing}; there are {list(adata.var_names)}.")
    found = []
    for channel in channels:
        column = adata.var_names.get_loc(channel)
        score = dense(adata.layers[layer], adata.shape)[:, column]
        mean = dense(adata.layers[keys.INTEGRATED], adata.shape)[:, column]
        known = np.isfinite(score) & np.isfinite(mean)
        positive, negative = known & (score >= 0.5), known & (score < 0.5)
        if not positive.any() or not negative.any():
            continue
        low, high = np.median(mean[negative]), np.median(mean[positive])
        if high <= low:
            continue
        relative = (mean - low) / (high - low)
        rows = np.flatnonzero(positive if kind == "dim" else negative)
        rows = rows[np.argsort(relative[rows] if kind == "dim" else -relative[rows], kind="stable")[:n_cells]]
        found.append(
            pd.DataFrame(
                {
                    "channel": channel,
                    "region": adata.obs[keys.REGION].to_numpy()[rows].astype(str),
                    "instance": adata.obs[keys.INSTANCE].to_numpy()[rows],
                    "x": adata.obsm[keys.SPATIAL][rows, 0],
                    "y": adata.obsm[keys.SPATIAL][rows, 1],
                    "score": score[rows],
                    "mean": relative[rows],
                }
            )
        )
    if not found:
        raise ValueError(f"None of {', '.join(channels)} has cells called positive, brighter on average, and negative.")
    return pd.concat(found).sort_values("mean", ascending=kind == "dim", kind="stable").head(n_cells)


def _grid(n: int) -> np.ndarray:
    import matplotlib.pyplot as plt

    columns = min(n, 6)
    rows = -(-n // columns)
    _, axes = plt.subplots(rows, columns, figsize=(2 * columns, 2.2 * rows), squeeze=False, layout="constrained")
    return axes.ravel()
