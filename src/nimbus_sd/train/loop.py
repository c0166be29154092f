"""The training loop, on one device or on several, and what it keeps on disk to go on exactly where it was stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from math import cos, isnan, pi
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from nimbus_sd._disk import replacing
from nimbus_sd.models import Card, Model, read_archive, save
from nimbus_sd.train.batches import Augment, Order, read_batches
from nimbus_sd.train.objective import Selector, alone, count_calls, figures, labelled_cells, masked_loss, mean_f1
from nimbus_sd.train.recipe import Recipe
from nimbus_sd.train.store import TRAIN, VALIDATION, Store

logger = logging.getLogger("nimbus_sd")

_KEPT = "The last checkpoint, if there is one, is kept"


def fit(
    store: Store, model: Model, recipe: Recipe, folder: Path, inputs: Mapping[str, Any], fabric: Fabric, progress: bool
) -> Path:
    """Train a network in place, from the folder's checkpoint on if there is one; return the path of the best model.

    Parameters
    ----------
    store, recipe, folder, progress
        As for :func:`nimbus_sd.train.train`; ``recipe.boundary`` is set.
    model
        The network at the start, and the card of the models that are written.
    inputs
        What distinguishes this run from others, as JSON can hold it; among it ``seed``, and ``start`` if it has one.
    fabric
        Launched: device, precision and the other processes.
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
    gather: Any = fabric.all_gather if ranks > 1 else alone
    augment, tiles = Augment(recipe.augmentation, inputs["seed"]), store.tiles(TRAIN)
    order = Order(len(tiles), recipe.batch_size, inputs["seed"])

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
        if ranks > 1:
            total: Any = fabric.all_reduce(torch.from_numpy(counts).to(fabric.device), reduce_op="sum")
            counts = total.cpu().numpy()
        f1 = mean_f1(figures(counts, store))
        if isnan(f1):
            raise FloatingPointError(
                f"After step {step} no cell for validation that is labelled positive has a finite score: the weights "
                f"are out of bounds. {_KEPT}. Train with a smaller learning rate, in another folder."
            )
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
        total: Any = loss.detach() + norm
        if ranks > 1:
            total = fabric.all_reduce(total, reduce_op="sum")
        if not torch.isfinite(total):
            # Before any weight is changed.
            batch_tiles = [(store.regions[n], window, channel) for n, window, channel in tiles[order(step)]]
            names = [f"{r.data_set}/{r.region}/{r.channels[c]}, window {window}" for r, window, c in batch_tiles]
            raise FloatingPointError(
                f"The loss of step {step + 1} is {float(loss.detach()):g} and the norm of its gradient {float(norm):g} "
                f"in the batch of {'; '.join(names)}. {_KEPT}; the step was not taken. Look at these tiles, or train "
                "with a smaller learning rate."
            )
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
    except ValueError as error:
        raise ValueError(f"{error} To start anew, delete it.") from error
    try:
        old, new = dict(json.loads(state["inputs"])), json.loads(json.dumps(inputs))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no state of a training run. To start anew, delete it.") from error
    if differing := [_difference(key, old.get(key), new[key]) for key in new if old.get(key) != new[key]]:
        raise ValueError(
            f"{path} is of another run: {'; '.join(differing)}. Call with the same inputs to go on with it, or name "
            "another folder."
        )
    return state | {"inputs": old}


def write_checkpoint(path: Path, state: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Write the state of a run."""
    with replacing(path) as (file,):
        torch.save({**state, "inputs": json.dumps(inputs)}, file)


def _difference(key: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        return "; ".join(_difference(f"{key}.{k}", old.get(k), v) for k, v in new.items() if old.get(k) != v)
    was, now = (text if len(text := repr(value)) < 60 else "..." for value in (old, new))
    return f"{key} was {was}, now {now}" if was != now else f"{key} differs"
