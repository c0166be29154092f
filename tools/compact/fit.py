"""Train the network on both worlds, resuming from the folder's last checkpoint."""

from __future__ import annotations

import copy
import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from tiles import Batch
from torch import Tensor, nn
from torch.nn import functional

from nimbus_sd.train.objective import cell_scores

logger = logging.getLogger("compact")
#: How much more a cell of a tile's rarer state counts at most.
RAREST = 3.0
#: A silver label that the network contradicts by as much is left out, once this share of the steps is done.
CONTRADICTED, ROBUST_FROM = 0.8, 0.3
BACKGROUND, EMA = 0.05, 0.998


def loss(logits: Tensor, batch: Batch, robust: bool) -> Tensor:
    """Cross-entropy of cells' scores, and half as much of their pixels; undetermined cells do not count.

    A tile's cells together count as the root of their number, and within a tile so do its positive and its negative
    cells, so that 0.5 lies between what is best for F1 and a rate of calls that follows the share of positive cells.
    """
    scores, areas = cell_scores(logits, batch.cells, len(batch.labels))
    known = (areas > 0) & (batch.labels != 0.5)
    if robust:
        known &= batch.trusted | ((scores.detach() - batch.labels).abs() < CONTRADICTED)
    known[0] = False
    positive, weights = batch.labels > 0.5, batch.weights * known
    n_positive, n_negative = (_per_tile(weights * kind, batch.tile, len(logits)) for kind in (positive, ~positive))
    n_known = n_positive + n_negative
    own = torch.where(positive, n_positive, n_negative).clamp(min=1)
    rarity = (n_known.clamp(min=1) / (2 * own)).sqrt().clamp(max=RAREST)
    share = weights * rarity / n_known.clamp(min=1).sqrt()
    entropy = functional.binary_cross_entropy(scores.clamp(1e-5, 1 - 1e-5), batch.labels, weight=share, reduction="sum")
    of_cells = entropy / share.sum().clamp(min=1e-3)
    weight = weights * rarity
    weight[0] = BACKGROUND
    target = torch.where(known, batch.labels, 0.0)
    weight, target = weight[batch.cells], target[batch.cells]
    of_pixels = functional.binary_cross_entropy_with_logits(
        logits[:, 0].float(), target, weight=weight, reduction="sum"
    )
    return of_cells + 0.5 * of_pixels / weight.sum()


def _per_tile(cells: Tensor, tile: Tensor, n_tiles: int) -> Tensor:
    return torch.zeros(n_tiles).index_add(0, tile, cells.float())[tile]


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Draw the next batches in a thread while the network works."""
    waiting: queue.Queue[Batch | Exception] = queue.Queue(3)

    def draw() -> None:
        try:
            for batch in batches:
                waiting.put(batch)
        except Exception as error:  # noqa: BLE001 (given to the reader)
            waiting.put(error)

    threading.Thread(target=draw, daemon=True).start()
    while True:
        batch = waiting.get()
        if isinstance(batch, Exception):
            raise batch
        yield batch


def fit(network: nn.Module, folder: Path, draw, *, steps: int, rate: float = 1e-3) -> nn.Module:  # type: ignore[no-untyped-def]
    """Train a network in place by one cycle of AdamW and return the average of its last weights.

    Parameters
    ----------
    network
        Where it starts.
    folder
        Of the checkpoint ``last.pt``, written every 200 steps.
    draw
        ``draw(step)`` yields the batches from a step on.
    steps
        Number of batches.
    rate
        Learning rate at the peak.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    mean, step, checkpoint = copy.deepcopy(network).requires_grad_(False), 0, folder / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        step = state["step"]
        for part, key in ((network, "network"), (mean, "mean"), (optimizer, "optimizer"), (cycle, "cycle")):
            part.load_state_dict(state[key])
    shown: list[float] = []
    stream = ahead(draw(step))
    while step < steps:
        batch = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch.inputs.to(memory_format=torch.channels_last))
        value = loss(logits, batch, robust=step > ROBUST_FROM * steps)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        cycle.step()
        step += 1
        rate_of_mean = min(EMA, step / (step + 10))
        with torch.no_grad():
            for average, own in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
                average.lerp_(own, 1 - rate_of_mean) if average.is_floating_point() else average.copy_(own)
        shown.append(float(value))
        if step % 100 == 0:
            print(f"{folder.name} step {step} loss {sum(shown[-100:]) / len(shown[-100:]):.4f}", flush=True)
        if step % 200 == 0 or step == steps:
            state = {"network": network, "mean": mean, "optimizer": optimizer, "cycle": cycle}
            torch.save({"step": step} | {key: part.state_dict() for key, part in state.items()}, folder / "new.pt")
            (folder / "new.pt").rename(checkpoint)
    return mean.eval()
