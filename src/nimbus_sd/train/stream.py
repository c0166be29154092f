"""Batches of simulated tiles, drawn while the network trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from nimbus_sd.simulate import TrainingTile, training_tiles


class Labelled(Protocol):
    """A tile and the labels of its cells, as :class:`~nimbus_sd.simulate.TrainingTile`."""

    @property
    def image(self) -> NDArray[np.float32]:
        """See there."""

    @property
    def interior(self) -> NDArray[np.bool_]:
        """See there."""

    @property
    def cells(self) -> NDArray:
        """See there."""

    @property
    def labels(self) -> NDArray[np.float32]:
        """See there."""


@dataclass
class Batch:
    """Tiles of a training step.

    Parameters
    ----------
    inputs
        (B, 2, h, w) float32: normalised image and cell interior.
    cells
        (B, h, w) int64: cell at each model pixel, numbered through the whole batch from 1; 0 for background.
    labels
        (n + 1,) float32 per cell: 1, 0 or 0.5 (undetermined); row 0 unused.
    tile
        (n + 1,) int64 per cell: the tile that it lies in, from 0.
    """

    inputs: torch.Tensor
    cells: torch.Tensor
    labels: torch.Tensor
    tile: torch.Tensor


def collate(tiles: Sequence[Labelled]) -> Batch:
    """Stack tiles and number their cells through."""
    inputs = np.stack([np.stack([t.image, t.interior.astype(np.float32)]) for t in tiles])
    starts = np.cumsum([0] + [len(t.labels) - 1 for t in tiles])
    cells = np.stack([np.where(t.cells > 0, t.cells + s, 0) for t, s in zip(tiles, starts, strict=False)])
    labels = np.concatenate([[0.5], *(t.labels[1:] for t in tiles)])
    tile = np.repeat(np.arange(len(tiles)), [len(t.labels) - 1 for t in tiles])
    return Batch(
        torch.from_numpy(inputs),
        torch.from_numpy(cells.astype(np.int64)),
        torch.from_numpy(labels).float(),
        torch.from_numpy(np.concatenate([[0], tile])),
    )


class SimulatedTiles(IterableDataset[TrainingTile]):
    """Endless stream of simulated tiles, each drawn once and shown a few times in another orientation and brightness.

    Drawing a tile costs about as much as training on it, so a pool of recent tiles is kept and each new one makes room
    for ``reuse`` draws from the pool.

    Parameters
    ----------
    seed
        Start of all randomness; workers draw different tiles.
    size
        Side of a tile in model pixels.
    pool
        Number of tiles kept.
    reuse
        Times that a tile is shown on average.
    counterstain
        As for :func:`~nimbus_sd.simulate.training_tiles`.
    """

    def __init__(
        self,
        seed: int,
        size: int = 288,
        pool: int = 384,
        reuse: int = 4,
        *,
        counterstain: float = 0.0,
    ) -> None:
        super().__init__()
        self.seed, self.size, self.pool, self.reuse = seed, size, pool, reuse
        self.counterstain = counterstain

    def __iter__(self) -> Iterator[TrainingTile]:
        """Yield tiles without end."""
        info = get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        kept: list[TrainingTile] = []
        while True:
            for tile in training_tiles(rng, self.size, counterstain=self.counterstain):
                if len(kept) < self.pool:
                    kept.append(tile)
                    yield turned(tile, rng)
                    continue
                kept[rng.integers(self.pool)] = tile
                for choice in rng.integers(self.pool, size=self.reuse):
                    yield turned(kept[choice], rng)


def turned(tile: TrainingTile, rng: np.random.Generator) -> TrainingTile:
    """One of the eight views of a tile, at times a little brighter or dimmer."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))

    def view(array: NDArray) -> NDArray:
        array = np.rot90(array, quarter)
        return np.ascontiguousarray(array[:, ::-1] if flip else array)

    gain = float(np.exp(rng.normal(0, 0.1)))
    image = np.minimum(view(tile.image) * np.float32(gain), 1)
    return TrainingTile(image, view(tile.interior), view(tile.cells), tile.labels, tile.expression)
