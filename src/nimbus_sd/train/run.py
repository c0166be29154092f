"""A run: the training loop, the state on disk from which it goes on exactly, and the cells that it leaves out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import cos, isnan, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from nimbus_sd._disk import replacing
from nimbus_sd.engine import differences
from nimbus_sd.models import Card, Model, UNet, read_archive, save
from nimbus_sd.train.batches import Augment, Order, cut, read_batches
from nimbus_sd.train.objective import Selector, cell_figures, count_calls, figures, labelled_cells, masked_loss, mean_f1
from nimbus_sd.train.recipe import Recipe, Selection
from nimbus_sd.train.store import TRAIN, VALIDATION, Store, StoreOrPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger("nimbus_sd")

_KEPT = "The last checkpoint, if there is one, is kept"


def fit(
    store: Store, model: Model, recipe: Recipe, folder: Path, inputs: Mapping[str, Any], fabric: Fabric, progress: bool
) -> Path:
    """Train a network in place, from the folder's checkpoint on if there is one; return the path of the best model.

    ``model`` has the network at the start, and the card of the models that are written. ``inputs`` are what
    distinguishes this run from others, as JSON can hold it; among it ``seed``, and ``start`` if it has one. ``fabric``
    is launched, and ``recipe.boundary`` set; all else is as for :func:`nimbus_sd.train.train`.
    """
    path, last, log = folder / "model.safetensors", folder / "last.ckpt", folder / "metrics.csv"
    boundary, rank, ranks, is_main = str(recipe.boundary), fabric.global_rank, fabric.world_size, fabric.is_global_zero
    # Channels last is faster on processors, and on GPUs in half precision.
    network = model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    # The same network, whose gradients are means over all devices.
    shared, optimizer = fabric.setup(network, adam)
    weights = [weight.data for weight in network.parameters()]
    start = [weight.clone() for weight in weights]
    selector = Selector(recipe.selection, len(store.strata))
    seed, tiles = inputs["seed"], store.tiles(TRAIN)
    augment = Augment(recipe.augmentation, seed, store.settings.tile_size)
    order = Order(len(tiles), recipe.batch_size, seed)

    # The state of a run: all that its next step depends on, as tiles and augmentation follow from seed and step.
    step, best, best_step, rows = 0, -1.0, 0, []
    parts = {"network": network, "optimizer": optimizer, "selector": selector}
    if last.exists():
        state = read_checkpoint(last, inputs)
        step, best, best_step = state["step"], state["best"], state["best_step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        # What was logged after the checkpoint is repeated.
        logged = pd.read_csv(log, dtype=str).to_dict("records") if log.exists() else []
        rows = [row for row in logged if int(row["step"]) <= step]
        if is_main and (card := path.with_suffix(".json")).exists():
            replace(Card.read(card), license=model.card.license, description=model.card.description).write(card)
    board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) if is_main else None

    def gather(values: Tensor) -> Tensor:
        gathered: Any = fabric.all_gather(values)
        # One device alone adds no dimension.
        return gathered.view(-1, *values.shape)  # type: ignore[no-any-return]

    @torch.no_grad()
    def look(images: Tensor) -> Tensor:
        # On this device alone: others may have fewer regions, and would be waited for.
        network.eval()
        with fabric.autocast():
            return network(images)  # type: ignore[no-any-return]

    def validate() -> float:
        """Return F1 on the validation regions; write the model if it is the best so far."""
        nonlocal best, best_step
        counts = count_calls(look, store, VALIDATION, recipe.batch_size, fabric.device, rank, ranks)
        total: Any = fabric.all_reduce(torch.from_numpy(counts), reduce_op="sum")
        f1 = mean_f1(figures(total.cpu().numpy(), store))
        if isnan(f1):
            what = f"After step {step} no cell for validation that is labelled positive has a finite score"
            raise FloatingPointError(f"{what}. {_KEPT}. Train with a smaller learning rate, in another folder.")
        if f1 > best:
            best, best_step = f1, step
            if is_main:
                save(network, replace(model.card, figures={"validation_f1": round(f1, 6), "step": step}), path)
        return f1

    def learning_rate() -> float:
        return recipe.learning_rate * (1 + cos(pi * step / recipe.steps)) / 2

    def is_over() -> bool:
        # A model to start with first gets worse where it is to believe wrong labels: that phase does not count.
        since = step - max(best_step, recipe.naive_steps if recipe.robust_steps else 0)
        stale = recipe.patience is not None and since >= recipe.patience * recipe.validate_every
        return step >= recipe.steps or stale

    if not step and inputs["start"]:
        # Whoever starts with a model wants one that is better.
        validate()
    sums, bar = np.zeros(3), tqdm(total=recipe.steps, initial=step, disable=not (progress and is_main))
    batches = read_batches(store, (tiles[order(n, rank, ranks)] for n in range(step, recipe.steps)))
    for batch in () if is_over() else batches:
        batch = batch.to(fabric.device)
        # The first phase believes all labels, the second selects by the network as it is and the tiles as they are.
        labelled = keep = labelled_cells(batch)
        robust = step >= recipe.naive_steps
        if robust:
            keep = selector.select(look(batch.inputs), batch, boundary, step - recipe.naive_steps, gather)

        shown, rate = augment(batch, step, rank), learning_rate()
        shared.train()
        loss = masked_loss(shared(shown.inputs), shown, keep, boundary)
        optimizer.zero_grad()
        fabric.backward(loss)
        norm: Any = fabric.clip_gradients(shared, optimizer, max_norm=recipe.clip, error_if_nonfinite=False)
        total: Any = fabric.all_reduce(loss.detach() + norm, reduce_op="sum")
        if not torch.isfinite(total):
            # Before any weight is changed.
            batch_tiles = [(store.regions[n], window, channel) for n, window, channel in tiles[order(step)]]
            names = [f"{r.data_set}/{r.region}/{r.channels[c]}, window {window}" for r, window, c in batch_tiles]
            what = f"The loss of step {step + 1} is {float(loss.detach()):g}, the norm of its gradient {float(norm):g}"
            advice = f"Train with a smaller learning rate, or look at these tiles: {'; '.join(names)}."
            raise FloatingPointError(f"{what}. {_KEPT}. {advice}")
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        if recipe.pull:
            # Towards the start, apart from Adam's scales, as AdamW draws weights towards 0.
            torch._foreach_lerp_(weights, start, min(1.0, rate * recipe.pull))
        step += 1
        sums += float(loss.detach()), float(keep.sum() / labelled.sum().clamp(min=1)), 1.0
        bar.update()
        if step % recipe.validate_every and step < recipe.steps:
            continue

        f1 = validate()
        if is_main:
            values = {"loss": sums[0] / sums[2], "learning_rate": learning_rate(), "kept": sums[1] / sums[2]}
            values["validation_f1"] = f1
            rows.append({"step": step, "phase": "robust" if robust else "naive", **values})
            with replacing(log) as (file,):
                pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\r\n")
            for name, value in values.items():
                board.add_scalar(name, value, step)
            board.flush()
            # Last: after a stop at any moment, the run goes on from here.
            states = {name: part.state_dict() for name, part in parts.items()}
            write_checkpoint(last, {"step": step, "best": best, "best_step": best_step, **states}, inputs)
        bar.set_postfix(f1=f"{f1:.3f}")
        sums[:] = 0
        if is_over():
            break
    bar.close()
    if is_main:
        board.close()
    fabric.barrier()
    logger.info("validation F1 %.3f after %d steps: %s", best, best_step, path)
    return path


def read_checkpoint(path: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Read the state of a run that has these inputs; ``"inputs"`` in it are all of the run's."""
    try:
        state = read_archive(path.read_bytes(), str(path))
        old, new = dict(json.loads(state["inputs"])), json.loads(json.dumps(inputs))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no state of a training run: {error}. To start anew, delete it.") from error
    if (before := {key: old.get(key) for key in new}) != new:
        changed = "; ".join(differences(before, new))
        raise ValueError(f"{path} is of another run: {changed}. Call with the same inputs, or name another folder.")
    return state | {"inputs": old}


def write_checkpoint(path: Path, state: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Write the state of a run."""
    with replacing(path) as (file,):
        torch.save({**state, "inputs": json.dumps(inputs)}, file)


@torch.no_grad()
def left_out(folder: str | Path, store: StoreOrPath) -> pd.DataFrame:
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
        The run was trained on another store, or has not selected cells yet.

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
    batches, parts = cut(store.tiles(TRAIN), 4), []
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
    cells: pd.DataFrame, store: StoreOrPath, *, n_cells: int = 12, width: int = 48, ax: Sequence[Axes] | None = None
) -> np.ndarray:
    """Show the cells that were left out, those with the highest loss first, each in the tile that has most of it.

    Parameters
    ----------
    cells, store
        From :func:`left_out`, or some of its rows, such as one marker's; and the tiles that they lie in.
    n_cells, width
        Number of crops at most, and their side in model pixels.
    ax
        Axes to draw on, one a crop; a new figure by default.

    Returns
    -------
    Array of Axes. A title names marker, label and score; the cell's outline is orange, the image's scale is 0 to 1.
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
        axes.contour(mask[box], levels=[0.5], colors="#E69F00", linewidths=1)
        axes.set_title(f"{cell.channel}: label {cell.label:g}, score {cell.score:.2f}", fontsize=7)
    for axes in ax:
        axes.set_axis_off()
    return used
