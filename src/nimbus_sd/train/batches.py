"""Batches of stored tiles: their order, reading, and augmentation, each of which depends on seed and step alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import kornia.augmentation as K
import numpy as np
import pandas as pd
import torch
from kornia.constants import DataKey, Resample
from numpy.typing import NDArray
from torch import Tensor

from nimbus_sd.engine import read_ahead
from nimbus_sd.models import turn
from nimbus_sd.train.recipe import Augmentation
from nimbus_sd.train.store import Store

# Smoothness of elastic deformations, in pixels.
_SIGMA = 16.0


@dataclass
class Batch:
    """B tiles of h x w model pixels and their n cells; row 0 of what is (n + 1,) is unused."""

    #: (B, 2, h, w) float32: normalised image and cell interior, mirrored outside of the region as in inference.
    inputs: Tensor
    #: (B, h, w) int64: cell at each pixel, numbered through the whole batch from 1; 0 for background, and outside.
    cells: Tensor
    #: (n + 1,) float32 per cell: 1, 0.75, 0.5 (undetermined), 0.25, 0, NaN (not judged).
    labels: Tensor
    #: (n + 1,) int64: the tile that a cell lies in, from 0.
    tile: Tensor
    #: (B, h, w) bool: pixels to learn from; those outside of the region are not.
    inside: Tensor
    #: (B,) int64: position of each tile's data set and marker in the store's ``strata``.
    stratum: Tensor
    #: (n + 1,) int64: row of each cell in its region.
    rows: Tensor
    #: (n + 1,) bool: cells whose label somebody proofread, so that it is believed whatever the network says.
    trusted: Tensor

    def to(self, device: torch.device) -> Batch:
        """Move all tensors to a device."""
        return Batch(**{name: values.to(device) for name, values in vars(self).items()})


def read_tile(store: Store, region: int, window: int, channel: int) -> Batch:
    """Read a tile from disk, as a batch of one."""
    stored, size = store.regions[region], store.settings.tile_size
    numbers = np.asarray(stored.arrays["cells"][window], np.int64)
    # The first is the background, whether there is some or not.
    codes, seen = pd.factorize(np.concatenate([[0], numbers.ravel()]))
    rows = seen - 1
    labels, trusted = stored.truth(channel)[rows], stored.trusted(channel)[rows]
    labels[0], trusted[0] = 0.5, False
    in_rows, in_cols = (np.arange(size) + stored.corners[window, axis] < stored.shape[axis] for axis in (0, 1))
    inside = in_rows[:, None] & in_cols
    inputs = np.stack([stored.arrays["image"][window, channel], stored.arrays["interior"][window]])
    return Batch(
        inputs=torch.from_numpy(inputs[None].astype(np.float32)),
        cells=torch.from_numpy(np.where(inside, codes[1:].reshape(numbers.shape), 0)[None]),
        labels=torch.from_numpy(labels),
        tile=torch.zeros(len(rows), dtype=torch.long),
        inside=torch.from_numpy(inside[None]),
        stratum=torch.tensor([store.stratum(region) + channel]),
        rows=torch.from_numpy(rows),
        trusted=torch.from_numpy(trusted),
    )


def collate(tiles: Sequence[Batch]) -> Batch:
    """Make one batch of tiles, and number their cells through."""
    parts, n_cells = {name: [getattr(tile, name) for tile in tiles] for name in vars(tiles[0])}, 0
    for number, tile in enumerate(tiles):
        parts["cells"][number] = torch.where(tile.cells > 0, tile.cells + n_cells, 0)
        parts["tile"][number] = tile.tile + number
        n_cells += len(tile.labels) - 1
        if number:
            for name in ("labels", "tile", "rows", "trusted"):
                parts[name][number] = parts[name][number][1:]
    return Batch(**{name: torch.cat(values) for name, values in parts.items()})


def read_batches(store: Store, batches: Iterable[NDArray[np.int64]], readers: int = 4) -> Iterator[Batch]:
    """Read batches of tiles, each given as (B, 3): region, window, channel; the next while the caller works on one."""
    with ThreadPoolExecutor(readers) as pool:
        yield from read_ahead(
            collate(list(pool.map(lambda tile: read_tile(store, *map(int, tile)), tiles))) for tiles in batches
        )


def cut(tiles: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Cut a list of tiles (n, 3) into batches, the last of which may be smaller."""
    return [tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size)]


class Order:
    """Which tiles a step shows: all of them in a random order, then in another one, and so on.

    It depends on seed and step only, so that a run which was stopped goes on with the same tiles.
    """

    def __init__(self, n_tiles: int, batch_size: int, seed: int) -> None:
        self.n_tiles, self.batch_size = n_tiles, batch_size
        self._shuffled = lru_cache(2)(lambda epoch: np.random.default_rng([seed, epoch]).permutation(n_tiles))

    def __call__(self, step: int, rank: int = 0, ranks: int = 1) -> NDArray[np.int64]:
        """Positions of the tiles of a step that one of some devices works on."""
        numbers = range(step * self.batch_size, (step + 1) * self.batch_size)[rank::ranks]
        return np.array([self._shuffled(n // self.n_tiles)[n % self.n_tiles] for n in numbers])


class Augment:
    """Draws changes of square tiles by seed, step and device; image, interior, cells and ``inside`` move together."""

    def __init__(self, strength: Augmentation, seed: int, tile_size: int) -> None:
        self.seed, by = seed, strength
        # Typical size of uniform noise in [-1, 1], smoothed by a Gaussian; kornia's unit is half a tile.
        typical = (1 / 3) ** 0.5 / (2 * _SIGMA * torch.pi**0.5)
        alpha = 2 * by.elastic / (typical * tile_size)
        elastic = K.RandomElasticTransform((49, 49), (_SIGMA, _SIGMA), (alpha, alpha), p=0.5)
        kernel = 2 * max(1, round(3 * by.blur)) + 1
        changes = [
            K.RandomAffine(by.rotation, scale=(1 - by.scale, 1 + by.scale), p=0.5) if by.rotation or by.scale else None,
            elastic if by.elastic else None,
            K.RandomGaussianBlur(kernel, (0.1, max(by.blur, 0.1)), p=0.5) if by.blur else None,
            K.RandomContrast((1 - by.contrast, 1 + by.contrast), p=0.5) if by.contrast else None,
            K.RandomBrightness((1 - by.brightness, 1 + by.brightness), p=0.5) if by.brightness else None,
            K.RandomGaussianNoise(0.0, by.noise, p=0.5) if by.noise else None,
        ]
        wanted = [change for change in changes if change is not None]
        # Without kornia's own ``align_corners`` for masks, None, of which torch warns.
        masks = {DataKey.MASK: {"resample": Resample.NEAREST}}
        keys = ["input", "mask"]
        self._changes = K.AugmentationSequential(*wanted, data_keys=keys, extra_args=masks) if wanted else None

    def __call__(self, batch: Batch, step: int, rank: int = 0) -> Batch:
        """Change a batch of tiles. Pixels from outside of a tile are background, and not ``inside``."""
        with torch.random.fork_rng([batch.inputs.device] if batch.inputs.is_cuda else []):
            torch.manual_seed(hash((self.seed, step, rank)))
            n, image = len(batch.inputs), batch.inputs[:, :1]
            masks = torch.stack([batch.inputs[:, 1], batch.inside.float(), batch.cells.float()], dim=1)
            # One of the eight views of each square; exact, unlike a rotation by a warp.
            turns, flips = torch.randint(4, (n,)).tolist(), torch.randint(2, (n,)).bool().tolist()
            image, masks = (torch.stack([*map(turn, tiles, turns, flips)]) for tiles in (image, masks))
            if self._changes is not None:
                image, masks = self._changes(image, masks)
        inside = masks[:, 1] > 0.5
        cells = torch.where(inside, masks[:, 2].round().long(), 0)
        inputs = torch.cat([image.clamp(0, 1), masks[:, :1] * inside[:, None]], dim=1)
        return replace(batch, inputs=inputs, cells=cells, inside=inside)
