"""Fit the network to tiles of known truth."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from nimbus_sd.models.unet import UNet
from nimbus_sd.train.stream import Batch, SimulatedTiles, collate

logger = logging.getLogger("nimbus_sd")


def cell_scores(logits: Tensor, cells: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Mean confidence over each cell, as inference computes it.

    Parameters
    ----------
    logits
        (B, 1, h, w).
    cells
        (B, h, w) int64, numbered through the batch; 0 for background.
    n_cells
        Number of cells, background (row 0) included.

    Returns
    -------
    scores, areas
        (n_cells,) each; a cell without a pixel has score 0 and area 0.
    """
    flat = cells.flatten()
    confidence = torch.sigmoid(logits.float()).flatten()
    sums = confidence.new_zeros(n_cells).index_add(0, flat, confidence)
    areas = confidence.new_zeros(n_cells).index_add(0, flat, torch.ones_like(confidence))
    return sums / areas.clamp(min=1), areas


def loss(logits: Tensor, batch: Batch, background: float = 0.05) -> Tensor:
    """Cross-entropy of cells' scores, and half as much of their pixels; undetermined cells do not count.

    A tile's cells together count as the root of their number, or those of a few dense tiles would be all that counts.

    Parameters
    ----------
    logits
        (B, 1, h, w).
    batch
        Cells and labels.
    background
        Weight of a pixel outside of cells, whose target is 0.

    Returns
    -------
    Scalar.
    """
    scores, areas = cell_scores(logits, batch.cells, len(batch.labels))
    known = (areas > 0) & (batch.labels != 0.5)
    known[0] = False
    share = (
        known / scores.new_zeros(len(logits)).index_add(0, batch.tile, known.float())[batch.tile].clamp(min=1).sqrt()
    )
    entropy = functional.binary_cross_entropy(scores.clamp(1e-5, 1 - 1e-5), batch.labels, weight=share, reduction="sum")
    # Without a known cell the sum is 0 over 0, which would make every weight NaN from then on.
    of_cells = entropy / share.sum().clamp(min=1e-3)
    weight = known.float()
    weight[0] = background
    target = torch.where(known, batch.labels, 0.0)
    weight, target = weight[batch.cells], target[batch.cells]
    of_pixels = functional.binary_cross_entropy_with_logits(
        logits[:, 0].float(), target, weight=weight, reduction="sum"
    )
    return of_cells + 0.5 * of_pixels / weight.sum()


class Fit(lightning.LightningModule):
    """A network, its loss and its schedule (one cycle of AdamW).

    Parameters
    ----------
    network
        To be trained, in place.
    steps
        Length of the schedule.
    learning_rate
        At its peak.
    """

    def __init__(self, network: nn.Module, steps: int, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.network, self.steps, self.learning_rate = network, steps, learning_rate

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of a batch."""
        value = loss(self.network(batch.inputs), batch)
        self.log("loss", value, prog_bar=True, batch_size=len(batch.inputs))
        return value

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch; Lightning does not know our class."""
        return Batch(*(tensor.to(device) for tensor in vars(batch).values()))

    def configure_optimizers(self) -> Any:
        """Return AdamW under one cycle of the learning rate."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.learning_rate, weight_decay=1e-3)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.steps, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def fit(
    network: UNet,
    folder: str | Path,
    tiles: SimulatedTiles,
    *,
    steps: int,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    workers: int = 1,
    progress: bool = True,
) -> UNet:
    """Train a network on simulated tiles; resumes from the folder's last checkpoint.

    Parameters
    ----------
    network
        Trained in place.
    folder
        Where the checkpoint ``last.ckpt`` is written every 100 steps.
    tiles
        What it is trained on. A resumed run draws tiles of another seed.
    steps
        Number of batches.
    batch_size
        Tiles per batch.
    learning_rate
        At the peak of its one cycle.
    workers
        Processes that draw tiles.
    progress
        Show a progress bar.

    Returns
    -------
    The network with averaged weights, in eval mode, on the CPU.

    Raises
    ------
    ValueError
        If the folder's checkpoint is of a run of another number of steps: its learning rate cannot go on.
    """
    # Faster on processors, and on GPUs in half precision.
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder = Path(folder)
    last = folder / "last.ckpt"
    tiles = copy.copy(tiles)
    tiles.seed += _steps_done(last, steps)
    loader = DataLoader(
        tiles,
        batch_size=batch_size,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        gradient_clip_val=1.0,
        callbacks=[
            EMAWeightAveraging(decay=0.995),
            ModelCheckpoint(
                folder,
                filename="step",
                every_n_train_steps=100,
                save_last=True,
                save_top_k=1,
                enable_version_counter=False,
            ),
        ],
        logger=lightning.pytorch.loggers.CSVLogger(folder),
        log_every_n_steps=20,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    trainer.fit(
        Fit(network, steps, learning_rate), loader, ckpt_path=last if last.exists() else None, weights_only=True
    )
    return network.eval().cpu()


def _steps_done(checkpoint: Path, steps: int) -> int:
    """Count a checkpoint's steps, so that a resumed run draws new tiles; 0 where there is none."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    planned = state["lr_schedulers"][0]["total_steps"]
    if planned != steps:
        raise ValueError(
            f"{checkpoint} is of a run of {planned} steps, over which its learning rate was planned. Go on with "
            f"steps={planned}, or start one of {steps} in another folder."
        )
    return int(state["global_step"])
