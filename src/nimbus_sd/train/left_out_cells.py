"""Which cells the noise-robust selection leaves out: as a table, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from nimbus_sd.models import Card, UNet
from nimbus_sd.train.batches import cut, read_batches
from nimbus_sd.train.loop import read_checkpoint
from nimbus_sd.train.objective import Selector, cell_figures, labelled_cells
from nimbus_sd.train.recipe import Selection
from nimbus_sd.train.store import TRAIN, Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BATCH = 4
_OUTLINE = "#E69F00"


@torch.no_grad()
def left_out(folder: str | Path, store: Store | str | Path) -> pd.DataFrame:
    """List the cells of the training regions, and which of them a run would learn from as it is.

    Parameters
    ----------
    folder
        Of a run that has reached its noise-robust phase; its last checkpoint is used.
    store
        The tiles that it was trained on.

    Returns
    -------
    DataFrame with a row for each judged cell, marker and tile that it lies in: ``data_set``, ``region``,
    ``instance_id``, ``channel``, ``window``, ``label``, ``score`` and ``loss`` (means over the pixels that it is
    learned by), ``kept``.

    Raises
    ------
    FileNotFoundError
        There is no run.
    ValueError
        It is of another store, or has not selected cells yet.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> cells = ns.train.left_out("runs/first", "tiles.zarr")  # doctest: +SKIP
    >>> cells.groupby("channel")["kept"].mean()  # doctest: +SKIP
    """
    store, folder = store if isinstance(store, Store) else Store(store), Path(folder)
    if not (folder / "last.ckpt").is_file():
        raise FileNotFoundError(f"There is no run in {folder}: it has no last.ckpt, as `nimbus_sd.train.train` writes.")
    state = read_checkpoint(folder / "last.ckpt", {"store": store.described()})
    card, recipe = Card.read(folder / "model.json"), state["inputs"]["recipe"]
    network = UNet(card.root_filters, card.depth, card.padding, card.patch).eval()
    network.load_state_dict(state["network"])
    selector = Selector(Selection(**recipe["selection"]), len(store.strata))
    selector.load_state_dict(state["selector"])
    if not torch.isfinite(selector.threshold).any():
        raise ValueError(f"The run in {folder} has not reached its noise-robust phase; it has selected no cells yet.")
    batches, parts = cut(store.tiles(TRAIN), _BATCH), []
    for tiles, batch in zip(batches, read_batches(store, batches), strict=True):
        losses, scores, areas = cell_figures(network(batch.inputs), batch, recipe["boundary"])
        labelled = labelled_cells(batch) & (areas > 0)
        kept = batch.trusted | selector.keep(losses, scores, batch.labels, batch.stratum[batch.tile])
        places = zip(tiles[batch.tile[labelled]], batch.rows[labelled].tolist(), strict=True)
        regions = [(store.regions[number], row, channel, window) for (number, window, channel), row in places]
        names = [(r.data_set, r.region, r.ids[row], r.channels[channel], window) for r, row, channel, window in regions]
        cells = pd.DataFrame(names, columns=["data_set", "region", "instance_id", "channel", "window"])
        for name, values in (("label", batch.labels), ("score", scores), ("loss", losses), ("kept", kept)):
            cells[name] = values[labelled].numpy()
        parts.append(cells)
    return pd.concat(parts, ignore_index=True)


def show_left_out(
    cells: pd.DataFrame,
    store: Store | str | Path,
    *,
    n_cells: int = 12,
    width: int = 48,
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show the cells that were left out, those with the highest loss first, each in the tile that has most of it.

    Parameters
    ----------
    cells
        From :func:`left_out`; or some of its rows, such as one marker's.
    store
        The tiles that they lie in.
    n_cells
        Number of crops at most.
    width
        Side of a crop in model pixels.
    ax
        Axes to draw on, one a crop; a new figure by default.

    Returns
    -------
    Array of Axes. A title names marker, label and score; the cell's outline is orange, the image's scale is that of
    the network (0 to 1).
    """
    import matplotlib.pyplot as plt

    store = store if isinstance(store, Store) else Store(store)
    # A cell that lies in several tiles is listed for each of them.
    place = ["data_set", "region", "instance_id"]
    shown = cells[~cells["kept"].astype(bool)].sort_values("loss", ascending=False, kind="stable")
    shown = shown.drop_duplicates([*place, "channel"]).head(n_cells)
    if shown.empty:
        raise ValueError(f"None of the {len(cells)} cells was left out: there is nothing to show.")
    if ax is None:
        columns = min(4, len(shown))
        rows = -(-len(shown) // columns)
        size = (1.9 * columns, 2.1 * rows)
        ax = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)[1].ravel().tolist()
    used = np.array(list(ax)[: len(shown)], dtype=object)
    regions = {(region.data_set, region.region): region for region in store.regions}
    windows = cells.groupby(place, observed=True)["window"].unique()
    for cell, axes in zip(shown.itertuples(), used, strict=False):
        region = regions[cell.data_set, cell.region]
        number = 1 + int(np.flatnonzero(region.ids == cell.instance_id)[0])
        candidates = windows[cell.data_set, cell.region, cell.instance_id]
        masks = {window: np.asarray(region.arrays["cells"][int(window)]) == number for window in candidates}
        window, mask = max(masks.items(), key=lambda item: int(item[1].sum()))
        middle = [int(np.mean(axis)) for axis in np.nonzero(mask)]
        box = tuple(slice(max(0, at - width // 2), at + width // 2) for at in middle)
        image = np.asarray(region.arrays["image"][int(window), region.channels.index(cell.channel)])
        axes.imshow(image[box], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.contour(mask[box], levels=[0.5], colors=_OUTLINE, linewidths=1)
        axes.set_title(f"{cell.channel}: label {cell.label:g}, score {cell.score:.2f}", fontsize=7)
    for axes in ax:
        axes.set_axis_off()
    return used
