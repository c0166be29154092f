"""What is learned from which cells, and how well a network calls cells: losses, selection, F1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nimbus_sd import _table
from nimbus_sd.metrics import rates
from nimbus_sd.train.batches import Batch, cut, read_batches
from nimbus_sd.train.recipe import Selection
from nimbus_sd.train.store import Store

OfTensor = Callable[[Tensor], Tensor]
_THRESHOLD = 0.5
# Losses by the upper edges of a histogram's bins; from a sure and right to a sure and wrong score.
_EDGES = np.geomspace(1e-5, 20.0, 400)


def judged(labels: Tensor) -> Tensor:
    """Where a label says positive or negative."""
    return torch.isfinite(labels) & (labels != 0.5)


def labelled_cells(batch: Batch) -> Tensor:
    """Cells that are labelled positive or negative; (n + 1,) bool."""
    labelled = judged(batch.labels)
    labelled[0] = False
    return labelled


def cell_scores(logits: Tensor, cells: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Mean confidence over each cell, as inference computes it, and the cell's area; (n_cells,) each.

    ``logits`` are (B, 1, h, w), ``cells`` (B, h, w) int64, numbered through the batch. Row 0 is background; a cell
    without a pixel has score 0 and area 0.
    """
    return _cell_means(torch.sigmoid(logits.float()), cells, n_cells)


def _cell_means(values: Tensor, cells: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    values, cells = values.flatten(), cells.flatten()
    sums = values.new_zeros(n_cells).index_add(0, cells, values)
    areas = values.new_zeros(n_cells).index_add(0, cells, torch.ones_like(values))
    return sums / areas.clamp(min=1), areas


def _pixel_losses(logits: Tensor, batch: Batch, boundary: str) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each pixel, (B, h, w), and the cell that it is learned with; 0: background.

    The target is 1 in the pixels of positive cells and 0 elsewhere. The inner boundary may be background, too.
    """
    cells = batch.cells if boundary == "cell" else torch.where(batch.inputs[:, 1] > 0.5, batch.cells, 0)
    target = (batch.labels > 0.5).float()[cells]
    return functional.binary_cross_entropy_with_logits(logits[:, 0].float(), target, reduction="none"), cells


def masked_loss(logits: Tensor, batch: Batch, keep: Tensor, boundary: str) -> Tensor:
    """Mean cross-entropy of the pixels inside that are background or in a cell that is kept.

    ``keep`` is (n + 1,) bool; ``boundary``, ``"background"`` or ``"cell"``, says what inner boundaries are.
    """
    losses, cells = _pixel_losses(logits, batch, boundary)
    learned = keep.clone()
    learned[0] = True
    mask = (learned[cells] & batch.inside).float()
    return (mask * losses).sum() / mask.sum().clamp(min=1)


@torch.no_grad()
def cell_figures(logits: Tensor, batch: Batch, boundary: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss, score and area of each cell in the pixels that it is learned with, (n + 1,) each; row 0 unused."""
    losses, cells = _pixel_losses(logits, batch, boundary)
    scores, areas = cell_scores(logits, cells, len(batch.labels))
    return _cell_means(losses, cells, len(batch.labels))[0], scores, areas


class Selector(nn.Module):
    """Thresholds of the loss, one for each data set and marker, that follow the losses as training goes on.

    The paper's rule ("Noise-robust training procedure"; ProMix, Wang et al. 2022): a cell is kept if its loss is at
    most the threshold, or its label and a sure score agree. The first tile of a data set and marker sets the
    threshold; each later one moves it by the share ``rate`` towards its own quantile. Its state is in the checkpoint.
    """

    threshold: Tensor
    counts: Tensor

    def __init__(self, settings: Selection, n_strata: int) -> None:
        super().__init__()
        self.settings, self.n_classes = settings, 2 if settings.per_class else 1
        shape, bins = (n_strata, self.n_classes), len(_EDGES) if settings.histogram else 0
        self.register_buffer("threshold", torch.full(shape, torch.nan, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros((*shape, bins), dtype=torch.float64))

    def keep(self, losses: Tensor, scores: Tensor, labels: Tensor, stratum: Tensor) -> Tensor:
        """Say which cells are learned from: (n,) bool of the loss, mean score, label and stratum of each, (n,)."""
        low, high = self.settings.sure
        sure = torch.where(labels > 0.5, scores > high, scores < low)
        threshold = self.threshold.float().to(losses.device)[stratum, self._class(labels)]
        return judged(labels) & (sure | (losses <= threshold))

    def update(
        self, losses: Tensor, labels: Tensor, tile: Tensor, stratum: Tensor, step: int, gather: OfTensor
    ) -> None:
        """Move the thresholds by the loss, label and tile of each cell of a batch, (n,), and each tile's stratum, (B,).

        ``step`` counts from the start of this phase; ``gather`` stacks a tensor of all devices, so that their
        thresholds stay the same.
        """
        used, quantile = judged(labels).cpu().numpy(), self.settings.quantile_at(step)
        group = (tile * self.n_classes + self._class(labels)).cpu().numpy()[used]
        values = losses.double().cpu().numpy()[used]
        of_groups = [values[group == number] for number in range(len(stratum) * self.n_classes)]
        if self.settings.histogram:
            summaries = [np.bincount(np.searchsorted(_EDGES[:-1], v), minlength=len(_EDGES)) for v in of_groups]
        else:
            summaries = [np.quantile(v, [quantile]) if len(v) else np.array([np.nan]) for v in of_groups]
        shared = gather(torch.from_numpy(np.array(summaries, np.float32)).to(losses.device)).cpu().numpy()
        rate = self.settings.rate
        for strata, of_device in zip(gather(stratum).cpu().tolist(), shared, strict=True):
            for number, summary in enumerate(of_device):
                place = strata[number // self.n_classes], number % self.n_classes
                if self.settings.histogram and summary.any():
                    self.counts[place] = (1 - rate) * self.counts[place] + torch.from_numpy(summary).to(self.counts)
                    total = np.cumsum(self.counts[place].cpu().numpy())
                    above = np.searchsorted(total, quantile * total[-1])
                    self.threshold[place] = float(_EDGES[min(above, len(_EDGES) - 1)])
                elif not self.settings.histogram and np.isfinite(summary[0]):
                    new, old = float(summary[0]), float(self.threshold[place])
                    self.threshold[place] = new if np.isnan(old) else (1 - rate) * old + rate * new

    @torch.no_grad()
    def select(self, logits: Tensor, batch: Batch, boundary: str, step: int, gather: OfTensor) -> Tensor:
        """Move the thresholds by a batch, and say which of its cells are learned from; as for :meth:`update`."""
        losses, scores, areas = cell_figures(logits, batch, boundary)
        labels = torch.where(labelled_cells(batch) & (areas > 0), batch.labels, torch.nan)
        # Proofread labels are believed, and say nothing about how wrong the others are.
        doubted = torch.where(batch.trusted, torch.nan, labels)
        self.update(losses, doubted, batch.tile, batch.stratum, step, gather)
        return self.keep(losses, scores, doubted, batch.stratum[batch.tile]) | (batch.trusted & judged(labels))

    def _class(self, labels: Tensor) -> Tensor:
        return (labels > 0.5).long() * (self.n_classes - 1)


@torch.no_grad()
def region_scores(
    network: OfTensor, store: Store, tiles: NDArray[np.int64], batch_size: int, device: torch.device
) -> NDArray[np.float64]:
    """Score the cells of a region from its tiles (rows of ``store.tiles``); cells x channels, NaN without a pixel.

    As in inference, a score is the mean over all of a cell's pixels, here in all of its tiles.
    """
    region, first = store.regions[tiles[0, 0]], store.stratum(tiles[0, 0])
    sums, areas = np.zeros((2, len(region.ids), len(region.channels)))
    for batch in read_batches(store, cut(tiles, batch_size)):
        batch = batch.to(device)
        means, pixels = cell_scores(network(batch.inputs), batch.cells, len(batch.labels))
        place = batch.rows[1:].cpu().numpy(), (batch.stratum[batch.tile[1:]] - first).cpu().numpy()
        for total, values in ((sums, means * pixels), (areas, pixels)):
            np.add.at(total, place, values[1:].double().cpu().numpy())
    return np.divide(sums, areas, out=np.full(sums.shape, np.nan), where=areas > 0)


def count_calls(
    network: OfTensor, store: Store, split: str, batch_size: int, device: torch.device, rank: int = 0, ranks: int = 1
) -> NDArray[np.int64]:
    """Count true negatives, false positives, false negatives and true positives of each stratum, shape (n, 4).

    This device takes every ``ranks``-th region. Those without evaluation gold do not count for a marker that has some
    elsewhere in the split.
    """
    counts = np.zeros((len(store.strata), 4), np.int64)
    gold, tiles = store.gold_strata(split), store.tiles(split)
    counted = [store.regions[n].evaluation or store.stratum(n) + channel not in gold for n, _, channel in tiles]
    tiles = tiles[np.array(counted, bool)]
    for number in np.unique(tiles[:, 0])[rank::ranks]:
        of_region = tiles[tiles[:, 0] == number]
        scores = region_scores(network, store, of_region, batch_size, device)
        for channel in np.unique(of_region[:, 2]):
            labels = store.regions[number].truth(channel)
            scored = _table.judged(labels) & ~np.isnan(scores[:, channel])
            outcome = 2 * (labels[scored] > _THRESHOLD) + (scores[scored, channel] >= _THRESHOLD)
            counts[store.stratum(number) + channel] += np.bincount(outcome.astype(np.int64), minlength=4)
    return counts


def figures(counts: NDArray[np.int64], store: Store) -> pd.DataFrame:
    """Turn counts into rates at a score of 0.5, NaN as in :func:`nimbus_sd.metrics.marker_metrics`.

    A row for each data set and marker that has a judged cell: ``cells``, ``positives``, ``precision``, ``recall``,
    ``specificity`` and ``f1``.
    """
    table = pd.DataFrame(rates(*counts.T), pd.MultiIndex.from_tuples(store.strata, names=["data_set", "channel"]))
    table["cells"], table["positives"] = counts.sum(axis=1), counts[:, 2:].sum(axis=1)
    return table.loc[table["cells"] > 0, ["cells", "positives", "precision", "recall", "specificity", "f1"]]


def mean_f1(table: pd.DataFrame) -> float:
    """Average F1 over the markers of each data set, then over data sets (the paper's way)."""
    return float(table["f1"].groupby(level="data_set").mean().mean())
