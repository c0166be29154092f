"""Batches of stored tiles, in an order that depends on the step alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from nimbus_sd.engine import read_ahead
from nimbus_sd.train.store import Store


@dataclass(frozen=True)
class StoredTile:
    """A tile and the labels of its n cells, as :class:`~nimbus_sd.simulate.TrainingTile`.

    Parameters
    ----------
    image, interior, cells, labels
        As there; labels may also be 0.25, 0.75, and NaN (not judged). Outside of the region, image and interior are
        mirrored, as in inference, and there is no cell.
    inside
        (h, w) bool: pixels that lie in the region.
    stratum
        Position of its data set and marker in the store's ``strata``.
    rows
        (n + 1,): row of each cell in the region; row 0 unused.
    trusted
        (n + 1,) bool: cells whose label for training somebody proofread; row 0 unused.
    """

    image: NDArray[np.float32]
    interior: NDArray[np.bool_]
    cells: NDArray[np.int64]
    labels: NDArray[np.float32]
    inside: NDArray[np.bool_]
    stratum: int
    rows: NDArray[np.int64]
    trusted: NDArray[np.bool_]


@dataclass
class StoredBatch:
    """Tiles of a training step.

    Parameters
    ----------
    inputs
        (B, 2, h, w) float32: normalised image and cell interior.
    cells
        (B, h, w) int64: cell at each model pixel, numbered through the whole batch from 1; 0 for background.
    labels
        (n + 1,) float32 per cell: 1, 0.75, 0.5 (undetermined), 0.25, 0, NaN (not judged); row 0 unused.
    tile
        (n + 1,) int64 per cell: the tile that it lies in, from 0.
    inside
        (B, h, w) bool: pixels to learn from; those outside of the region are not.
    stratum
        (B,) int64: data set and marker of each tile.
    rows
        (n + 1,) int64: row of each cell in its region.
    trusted
        (n + 1,) bool: cells whose label is believed whatever the network says.
    """

    inputs: torch.Tensor
    cells: torch.Tensor
    labels: torch.Tensor
    tile: torch.Tensor
    inside: torch.Tensor
    stratum: torch.Tensor
    rows: torch.Tensor
    trusted: torch.Tensor


def to_device(batch: StoredBatch, device: torch.device) -> StoredBatch:
    """Move a batch."""
    return StoredBatch(**{one.name: getattr(batch, one.name).to(device) for one in fields(batch)})


def read_tile(store: Store, region: int, window: int, channel: int) -> StoredTile:
    """Read a tile from disk."""
    stored = store.regions[region]
    arrays, size = stored.arrays, store.settings.tile_size
    numbers = np.asarray(arrays["cells"][window], np.int64)
    # The first is the background, whether there is some or not.
    codes, seen = pd.factorize(np.concatenate([[0], numbers.ravel()]))
    labels = stored.truth(channel)[seen - 1]
    labels[0] = np.nan
    rows, cols = (np.arange(size) + stored.corners[window, axis] < stored.shape[axis] for axis in (0, 1))
    inside = rows[:, None] & cols
    return StoredTile(
        image=np.asarray(arrays["image"][window, channel], np.float32),
        interior=np.asarray(arrays["interior"][window], bool),
        cells=np.where(inside, codes[1:].reshape(numbers.shape), 0),
        labels=labels,
        inside=inside,
        stratum=store.stratum(region) + channel,
        rows=seen - 1,
        trusted=stored.trusted(channel)[seen - 1],
    )


def collate_stored(tiles: Sequence[StoredTile]) -> StoredBatch:
    """Stack tiles and number their cells through."""
    counts = [len(t.labels) - 1 for t in tiles]
    starts = np.cumsum([0, *counts[:-1]])
    cells = np.stack([np.where(t.cells > 0, t.cells + s, 0) for t, s in zip(tiles, starts, strict=True)])
    return StoredBatch(
        inputs=torch.from_numpy(np.stack([np.stack([t.image, t.interior.astype(np.float32)]) for t in tiles])),
        cells=torch.from_numpy(cells.astype(np.int64)),
        labels=torch.from_numpy(np.concatenate([[0.5], *(t.labels[1:] for t in tiles)])).float(),
        tile=torch.from_numpy(np.concatenate([[0], np.repeat(np.arange(len(tiles)), counts)])),
        inside=torch.from_numpy(np.stack([tile.inside for tile in tiles])),
        stratum=torch.tensor([tile.stratum for tile in tiles]),
        rows=torch.from_numpy(np.concatenate([[-1], *(tile.rows[1:] for tile in tiles)])),
        trusted=torch.from_numpy(np.concatenate([[False], *(tile.trusted[1:] for tile in tiles)])),
    )


def read_batches(store: Store, plan: Iterable[NDArray[np.int64]], readers: int = 4) -> Iterator[StoredBatch]:
    """Read batches of tiles, each given as (B, 3): region, window, channel; the next while the caller works on one."""
    with ThreadPoolExecutor(readers) as pool:
        yield from read_ahead(
            collate_stored(list(pool.map(lambda tile: read_tile(store, *map(int, tile)), tiles))) for tiles in plan
        )


class Order:
    """Which tiles a step shows: all of them in a random order, then in another one, and so on.

    It depends on seed and step only, so that a run which was stopped goes on with the same tiles.

    Parameters
    ----------
    n_tiles
        Number of tiles.
    batch_size
        Tiles per step, over all devices.
    seed
        Of the orders.
    """

    def __init__(self, n_tiles: int, batch_size: int, seed: int) -> None:
        self.n_tiles, self.batch_size, self.seed = n_tiles, batch_size, seed
        self._shuffled = lru_cache(2)(self._shuffle)

    def __call__(self, step: int, rank: int = 0, ranks: int = 1) -> NDArray[np.int64]:
        """Positions of the tiles of a step that one of some devices works on."""
        numbers = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rank::ranks]
        return np.array([self._shuffled(int(n // self.n_tiles))[n % self.n_tiles] for n in numbers])

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.n_tiles)
