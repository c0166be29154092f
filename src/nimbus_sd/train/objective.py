"""What is learned: the cross-entropy of pixels against maps of whole cells."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nimbus_sd.train.select import judged
from nimbus_sd.train.tiles import StoredBatch


class CellFigures(NamedTuple):
    """Mean loss and mean confidence over the pixels by which cells are learned; (n + 1,) each, row 0 unused."""

    losses: Tensor
    scores: Tensor
    areas: Tensor


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


def pixel_cells(batch: StoredBatch, boundary: str) -> Tensor:
    """Say which cell each pixel is learned with, (B, h, w); 0: background, which the inner boundary may belong to."""
    return batch.cells if boundary == "cell" else torch.where(batch.inputs[:, 1] > 0.5, batch.cells, 0)


def pixel_losses(logits: Tensor, batch: StoredBatch, boundary: str) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each pixel, (B, h, w), and the cell it is learned with.

    The target is 1 in the pixels of positive cells and 0 elsewhere.
    """
    cells = pixel_cells(batch, boundary)
    target = (batch.labels > 0.5).float()[cells]
    return functional.binary_cross_entropy_with_logits(logits[:, 0].float(), target, reduction="none"), cells


def masked_loss(logits: Tensor, batch: StoredBatch, keep: Tensor, boundary: str) -> Tensor:
    """Mean cross-entropy of the pixels of cells that are kept and of the background.

    Parameters
    ----------
    logits
        (B, 1, h, w).
    batch
        Tiles and labels.
    keep
        (n + 1,) bool: cells whose labels are believed.
    boundary
        ``"background"`` or ``"cell"``: what inner boundaries are.

    Returns
    -------
    Scalar: sum(M l) / sum(M), with M the pixels inside that are background or in a cell that is kept.
    """
    losses, cells = pixel_losses(logits, batch, boundary)
    learned = keep.clone()
    learned[0] = True
    mask = (learned[cells] & batch.inside).float()
    return (mask * losses).sum() / mask.sum().clamp(min=1)


def known_cells(batch: StoredBatch, areas: Tensor | None = None) -> Tensor:
    """Cells that are labelled positive or negative, and have a pixel; (n + 1,) bool."""
    known = judged(batch.labels)
    known[0] = False
    return known if areas is None else known & (areas > 0)


@torch.no_grad()
def cell_figures(logits: Tensor, batch: StoredBatch, boundary: str) -> CellFigures:
    """Loss and score of each cell, by which the noise-robust phase selects; logits as for :func:`masked_loss`."""
    losses, cells = pixel_losses(logits, batch, boundary)
    n = len(batch.labels)
    scores, areas = cell_scores(logits, cells, n)
    sums = losses.new_zeros(n).index_add(0, cells.flatten(), losses.flatten())
    return CellFigures(sums / areas.clamp(min=1), scores, areas)
