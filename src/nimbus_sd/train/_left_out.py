"""Which cells the noise-robust selection leaves out: as a table, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from nimbus_sd.models import Card, UNet
from nimbus_sd.train.checkpoint import read_state
from nimbus_sd.train.objective import cell_figures, known_cells
from nimbus_sd.train.recipe import Selection
from nimbus_sd.train.select import Selector
from nimbus_sd.train.splits import TRAIN
from nimbus_sd.train.store import Store
from nimbus_sd.train.stored_region import StoredRegion
from nimbus_sd.train.tiles import StoredBatch, read_batches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BATCH = 4
_OUTLINE = "#E69F00"
_CELL = ["data_set", "region", "instance_id", "channel"]


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
    store = store if isinstance(store, Store) else Store(store)
    network, selector, boundary = _restored(Path(folder), store)
    listed = store.tiles(TRAIN)
    plan = [listed[start : start + _BATCH] for start in range(0, len(listed), _BATCH)]
    parts = []
    for tiles, batch in zip(plan, read_batches(store, plan), strict=True):
        cells = cell_figures(network(batch.inputs), batch, boundary)
        known = known_cells(batch, cells.areas)
        kept = batch.trusted | selector.keep(cells.losses, cells.scores, batch.labels, batch.stratum[batch.tile])
        figures = {"label": batch.labels, "score": cells.scores, "loss": cells.losses, "kept": kept}
        values = {name: one[known].numpy() for name, one in figures.items()}
        parts.append(pd.DataFrame(_places(store, tiles, batch, known.numpy()) | values))
    return pd.concat(parts, ignore_index=True)


def show_left_out(
    cells: pd.DataFrame,
    store: Store | str | Path,
    *,
    n_cells: int = 12,
    width: int = 48,
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show the cells that were left out, those whose label costs most first, each in the tile that has most of it.

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

    Raises
    ------
    ValueError
        No cell was left out.
    """
    import matplotlib.pyplot as plt

    store = store if isinstance(store, Store) else Store(store)
    # A cell that lies in several tiles is listed for each of them.
    shown = cells[~cells["kept"].astype(bool)].sort_values("loss", ascending=False, kind="stable")
    shown = shown.drop_duplicates(_CELL).head(n_cells)
    if shown.empty:
        raise ValueError(f"None of the {len(cells)} cells was left out: there is nothing to show.")
    if ax is None:
        columns = min(4, len(shown))
        rows = -(-len(shown) // columns)
        _, grid = plt.subplots(rows, columns, figsize=(1.9 * columns, 2.1 * rows), layout="constrained", squeeze=False)
        ax = list(grid.ravel())
    used = np.array(list(ax)[: len(shown)], dtype=object)
    regions = {(one.data_set, one.region): one for one in store.regions}
    windows = cells.groupby(_CELL[:3], observed=True)["window"].unique()
    for one, axes in zip(shown.itertuples(), used, strict=False):
        region = regions[one.data_set, one.region]
        own, window = _whole(region, one.instance_id, windows[one.data_set, one.region, one.instance_id])
        y, x = (int(np.mean(along)) for along in np.nonzero(own))
        box = tuple(slice(max(0, at - width // 2), at + width // 2) for at in (y, x))
        image = np.asarray(region.arrays["image"][window, region.channels.index(one.channel)])
        axes.imshow(image[box], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.contour(own[box], levels=[0.5], colors=_OUTLINE, linewidths=1)
        axes.set_title(f"{one.channel}: label {one.label:g}, score {one.score:.2f}", fontsize=7)
    for axes in ax:
        axes.set_axis_off()
    return used


def _whole(region: StoredRegion, instance_id: int, windows: Iterable[int]) -> tuple[np.ndarray, int]:
    """Return a cell's mask in that of some windows which has most of it, and this window."""
    number = 1 + int(np.flatnonzero(region.ids == instance_id)[0])
    masks = ((np.asarray(region.arrays["cells"][window]) == number, int(window)) for window in windows)
    return max(masks, key=lambda found: int(found[0].sum()))


def _restored(folder: Path, store: Store) -> tuple[UNet, Selector, str]:
    """Return the network and the selection of a run's last checkpoint."""
    if not (folder / "last.ckpt").is_file():
        raise FileNotFoundError(f"There is no run in {folder}: it has no last.ckpt, as `nimbus_sd.train.train` writes.")
    state, inputs = read_state(folder / "last.ckpt")
    if inputs["store"] != json.loads(json.dumps(store.described())):
        raise ValueError(f"The run in {folder} was on other tiles than those of {store.path}.")
    card, recipe = Card.read(folder / "model.json"), inputs["recipe"]
    network = UNet(card.root_filters, card.depth, card.padding, card.patch).eval()
    network.load_state_dict(state["network"])
    settings = recipe["selection"]
    ramp = settings["ramp"] and tuple(settings["ramp"])
    selector = Selector(Selection(**settings | {"ramp": ramp, "sure": tuple(settings["sure"])}), len(store.strata))
    selector.load_state_dict(state["selector"])
    if not torch.isfinite(selector.threshold).any():
        raise ValueError(f"The run in {folder} has not reached its noise-robust phase; it has selected no cells yet.")
    return network, selector, str(recipe["boundary"])


def _places(store: Store, tiles: np.ndarray, batch: StoredBatch, known: np.ndarray) -> dict[str, np.ndarray]:
    """Say where the known cells of a batch lie."""
    tile, rows = batch.tile.numpy()[known], batch.rows.numpy()[known]
    regions = [store.regions[number] for number in tiles[:, 0]]

    def of_tile(values: Iterator[object]) -> np.ndarray:
        return np.array(list(values), dtype=object)[tile]

    return {
        "data_set": of_tile(one.data_set for one in regions),
        "region": of_tile(one.region for one in regions),
        "instance_id": np.array([regions[i].ids[row] for i, row in zip(tile, rows, strict=True)], np.int64),
        "channel": of_tile(one.channels[c] for one, c in zip(regions, tiles[:, 2], strict=True)),
        "window": tiles[tile, 1],
    }
