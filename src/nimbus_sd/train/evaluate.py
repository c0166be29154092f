"""How well a network calls the cells of a split, by the score that inference gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from nimbus_sd.metrics import rates
from nimbus_sd.train.objective import cell_scores
from nimbus_sd.train.select import judged
from nimbus_sd.train.store import Store
from nimbus_sd.train.tiles import StoredBatch, read_batches, to_device

THRESHOLD = 0.5


@torch.no_grad()
def count_calls(
    network: Callable[[Tensor], Tensor],
    store: Store,
    split: str,
    *,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    ranks: int = 1,
) -> NDArray[np.int64]:
    """Compare calls with labels, region by region; this device takes every ``ranks``-th of them.

    A cell's score is the mean confidence over all of its pixels, as in inference, wherever it lies in several tiles.
    Regions without evaluation gold do not count for a marker that has some elsewhere in the split.

    Returns
    -------
    True negatives, false positives, false negatives, true positives of each of the store's strata, shape (n, 4).
    """
    counts = np.zeros((len(store.strata), 4), np.int64)
    listed = store.tiles(split)
    silver = [not store.regions[number].evaluation for number in listed[:, 0]]
    strata = [store.stratum(number) + channel for number, _, channel in listed]
    listed = listed[~(np.array(silver, bool) & np.isin(strata, list(store.gold_strata(split))))]
    for number in np.unique(listed[:, 0])[rank::ranks]:
        tiles = listed[listed[:, 0] == number]
        region, scores = store.regions[number], region_scores(network, store, tiles, batch_size, device)
        for channel in np.unique(tiles[:, 2]):
            labels = torch.from_numpy(region.truth(channel))
            known = judged(labels).numpy() & ~np.isnan(scores[:, channel])
            outcome = 2 * (labels.numpy()[known] > THRESHOLD) + (scores[known, channel] >= THRESHOLD)
            counts[store.stratum(number) + channel] += np.bincount(outcome.astype(np.int64), minlength=4)
    return counts


@torch.no_grad()
def region_scores(
    network: Callable[[Tensor], Tensor], store: Store, tiles: NDArray[np.int64], batch_size: int, device: torch.device
) -> NDArray[np.float64]:
    """Score the cells of a region from its tiles (rows of ``store.tiles``); cells x channels, NaN where none was."""
    region = store.regions[tiles[0, 0]]
    # Sums of confidence and pixels of each cell in each channel.
    sums = np.zeros((2, len(region.ids), len(region.channels)))
    plan = [tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size)]
    for batch in read_batches(store, plan):
        _add(sums, network, batch, store.stratum(tiles[0, 0]), device)
    return np.divide(sums[0], sums[1], out=np.full(sums[0].shape, np.nan), where=sums[1] > 0)


def _add(
    sums: NDArray[np.float64],
    network: Callable[[Tensor], Tensor],
    batch: StoredBatch,
    first: int,
    device: torch.device,
) -> None:
    batch = to_device(batch, device)
    scores, areas = cell_scores(network(batch.inputs), batch.cells, len(batch.labels))
    rows, channels = batch.rows[1:].cpu().numpy(), (batch.stratum[batch.tile[1:]] - first).cpu().numpy()
    for total, values in zip(sums, (scores * areas, areas), strict=True):
        np.add.at(total, (rows, channels), values[1:].double().cpu().numpy())


def figures(counts: NDArray[np.int64], store: Store) -> pd.DataFrame:
    """Turn counts into figures.

    Parameters
    ----------
    counts
        From :func:`count_calls`, of all regions.
    store
        Whose strata they are of.

    Returns
    -------
    DataFrame with a row for each data set and marker that has a judged cell: ``cells``, ``positives``, ``precision``,
    ``recall``, ``specificity`` and ``f1`` at a score of 0.5, NaN as in :func:`nimbus_sd.metrics.marker_metrics`.
    """
    found = rates(*counts.T)
    index = pd.MultiIndex.from_tuples(store.strata, names=["data_set", "channel"])
    columns = {"cells": counts.sum(axis=1), "positives": counts[:, 2:].sum(axis=1)}
    columns |= {name: found[name] for name in ("precision", "recall", "specificity", "f1")}
    table = pd.DataFrame(columns, index=index)
    return table[table["cells"] > 0]


def mean_f1(table: pd.DataFrame) -> float:
    """Average F1 over the markers of each data set, then over data sets (the paper's way)."""
    return float(table["f1"].groupby(level="data_set").mean().mean())
