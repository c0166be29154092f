"""Noise-robust selection: which cells' labels are believed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nimbus_sd.train.recipe import Selection

# Losses by the upper edges of a histogram's bins; from a sure and right to a sure and wrong score.
_EDGES = np.geomspace(1e-5, 20.0, 400)


def judged(labels: Tensor) -> Tensor:
    """Where a label says positive or negative."""
    return torch.isfinite(labels) & (labels != 0.5)


class Selector(nn.Module):
    """Thresholds of the loss, one for each data set and marker, that follow the losses as training goes on.

    The paper's rule ("Noise-robust training procedure"; ProMix, Wang et al. 2022): a cell is kept if its loss is at
    most the threshold, or its label and a sure score agree. The first tile of a data set and marker sets the
    threshold; each later one moves it by the share ``rate`` towards its own quantile. Its state is in the checkpoint.

    Parameters
    ----------
    settings
        The rule.
    n_strata
        Number of pairs of data set and marker.
    """

    threshold: Tensor
    counts: Tensor

    def __init__(self, settings: Selection, n_strata: int) -> None:
        super().__init__()
        self.settings = settings
        shape = (n_strata, 2 if settings.per_class else 1)
        self.register_buffer("threshold", torch.full(shape, torch.nan, dtype=torch.float64))
        bins = len(_EDGES) if settings.histogram else 0
        self.register_buffer("counts", torch.zeros((*shape, bins), dtype=torch.float64))

    def keep(self, losses: Tensor, scores: Tensor, labels: Tensor, stratum: Tensor) -> Tensor:
        """Say which cells are learned from.

        Parameters
        ----------
        losses, scores, labels, stratum
            (n,) each: loss, mean score, label, and data set and marker of each cell.

        Returns
        -------
        (n,) bool; False where a cell is not judged.
        """
        low, high = self.settings.sure
        positive = labels > 0.5
        sure = torch.where(positive, scores > high, scores < low)
        threshold = self.threshold.float().to(losses.device)[stratum, self._class(positive)]
        return judged(labels) & (sure | (losses <= threshold))

    def update(
        self,
        losses: Tensor,
        labels: Tensor,
        tile: Tensor,
        stratum: Tensor,
        step: int,
        gather: Callable[[Tensor], Tensor] = lambda one: one[None],
    ) -> None:
        """Move the thresholds by the cells of a batch.

        Parameters
        ----------
        losses, labels, tile
            (n,): loss, label and tile of each cell.
        stratum
            (B,): data set and marker of each tile.
        step
            Steps of this phase so far.
        gather
            Stacks a tensor of all devices, so that their thresholds stay the same.
        """
        known = judged(labels).cpu().numpy()
        group = (tile * self.threshold.shape[1] + self._class(labels > 0.5)).cpu().numpy()
        values, of, n = losses.double().cpu().numpy()[known], group[known], len(stratum) * self.threshold.shape[1]
        parts = [values[of == one] for one in range(n)]
        if self.settings.histogram:
            summary = np.stack([np.bincount(np.searchsorted(_EDGES[:-1], v), minlength=len(_EDGES)) for v in parts])
        else:
            quantile = self.settings.quantile_at(step)
            summary = np.array([[np.quantile(v, quantile) if len(v) else np.nan] for v in parts])
        shared = gather(torch.from_numpy(summary.astype(np.float32)).to(losses.device)).cpu().numpy()
        strata = gather(stratum).cpu().numpy()
        for tiles, summaries in zip(strata, shared, strict=True):
            for number, found in enumerate(summaries):
                place = (int(tiles[number // self.threshold.shape[1]]), number % self.threshold.shape[1])
                self._move(place, found, step)

    def _move(self, place: tuple[int, int], found: NDArray[np.float64], step: int) -> None:
        """Take in a tile: the quantile of its losses, or their histogram."""
        rate = self.settings.rate
        if self.settings.histogram:
            if found.any():
                self.counts[place] = (1 - rate) * self.counts[place] + torch.from_numpy(found).to(self.counts)
                share = np.cumsum(self.counts[place].cpu().numpy())
                bin_ = np.searchsorted(share, self.settings.quantile_at(step) * share[-1])
                self.threshold[place] = float(_EDGES[min(bin_, len(_EDGES) - 1)])
        elif np.isfinite(found[0]):
            old = float(self.threshold[place])
            self.threshold[place] = float(found[0]) if np.isnan(old) else (1 - rate) * old + rate * float(found[0])

    def _class(self, positive: Tensor) -> Tensor:
        return positive.long() if self.settings.per_class else torch.zeros_like(positive, dtype=torch.long)
