"""Tiles to train the bundled model on: crops of the corpus with silver labels, and simulated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import torch
from corpus import DENOISED, PIXEL_SIZE
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.segmentation import expand_labels

from nimbus_sd.pixels import (
    BOUNDARY_UM,
    OTSU_LEVELS,
    Grid,
    interior,
    normalize,
    resize_image,
    resize_interior,
    resize_labels,
)

#: Side of a tile in pixels of the model, and their width in um.
SIZE, MODEL_PIXEL = 192, 0.5
#: Share of a batch that is simulated.
SIMULATED = 0.35


@dataclass
class Batch:
    """Tiles of a step.

    Parameters
    ----------
    inputs
        (B, 2 + K, h, w) float32: normalised image, cell interior, and K constant planes of the channel's level.
    cells
        (B, h, w) int64, numbered through the batch from 1; 0 for background.
    labels, weights, tile
        (n + 1,): label (0.5 undetermined), weight and tile of each cell; row 0 unused.
    trusted
        (n + 1,) bool: judged by eye or simulated, so that the label is believed.
    """

    inputs: torch.Tensor
    cells: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    tile: torch.Tensor
    trusted: torch.Tensor


@dataclass
class Tile:
    """One tile and the labels of its cells; row 0 of the labels is unused."""

    image: NDArray[np.float32]
    interior: NDArray[np.bool_]
    cells: NDArray[np.int64]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    trusted: NDArray[np.bool_]
    level: NDArray[np.float32]


class Source:
    """Fields of a data set as arrays on disk, their labels, and the factor of each channel.

    Parameters
    ----------
    dataset
        Name of the data set.
    arrays, labels
        Folders with its images and cells as ``.npy``, and with the files of ``silver.py``.
    factors
        Normalisation factor by channel, of the data set as a whole.
    channels
        Names of the channels of each field.
    levels
        By channel, what further planes tell of it; empty for none.
    """

    def __init__(
        self,
        dataset: str,
        arrays: Path,
        labels: Path,
        factors: dict[str, float],
        channels: dict[str, list[str]],
        levels: dict[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.pixel_size, self.factors, self.levels = PIXEL_SIZE[dataset.removesuffix(DENOISED)], factors, levels or {}
        self.fields, self.by_channel = {}, {}
        for name, names in channels.items():
            with np.load(labels / f"{dataset}__{name}.npz") as stored:
                states, weights = stored["states"], stored["weights"]
            if not np.isfinite(states).any():
                continue
            image = np.load(arrays / f"{dataset}__{name}__image.npy", mmap_mode="r")
            cells = np.load(arrays / f"{dataset}__{name}__labels.npy")
            ids = np.setdiff1d(np.unique(cells), 0)
            numbered = np.searchsorted(np.concatenate([[0], ids]), cells)
            size = np.maximum(np.bincount(numbered.ravel()), 1)[1:]
            y, x = np.divmod(np.arange(cells.size), cells.shape[1])
            centres = np.stack(
                [np.bincount(numbered.ravel(), axis.astype(float))[1:] / size for axis in (y, x)], axis=1
            )
            self.fields[name] = (image, numbered, centres, states, weights)
            for i, channel in enumerate(names):
                known = np.isfinite(states[:, i]) & (states[:, i] != 0.5)
                if known.any() and factors.get(channel, 0) > 0:
                    self.by_channel.setdefault(channel, []).append((name, i))

    def draw(self, rng: np.random.Generator) -> Tile:
        """Draw a tile around a labelled cell: positive ones, and those near the gates, more often than they occur."""
        channel = str(rng.choice(list(self.by_channel)))
        places = self.by_channel[channel]
        name, i = places[rng.integers(len(places))]
        image, cells, centres, states, weights = self.fields[name]
        kind = rng.random()
        wanted = states[:, i] == (1.0 if kind < 0.4 else 0.5 if kind < 0.6 else 0.0)
        known = np.flatnonzero(wanted if wanted.any() else np.isfinite(states[:, i]))
        centre = centres[rng.choice(known)]
        pixel_size = self.pixel_size * float(np.exp(rng.uniform(-0.25, 0.25)))
        scale = pixel_size / MODEL_PIXEL
        side = ceil(SIZE / scale) + 1
        offset = rng.uniform(0.2, 0.8, 2) * side
        start = [int(np.clip(c - o, 0, max(n - side, 0))) for c, o, n in zip(centre, offset, cells.shape, strict=True)]
        window = tuple(slice(s, s + side) for s in start)
        crop = np.asarray(image[i][window], np.float32)
        masks = cells[window]
        # A field smaller than a tile is mirrored, as inference does beyond an edge; what is mirrored has no label.
        short = [(0, side - n) for n in crop.shape]
        outside = np.pad(np.zeros(crop.shape, bool), short, constant_values=True)
        crop, masks = np.pad(crop, short, mode="symmetric"), np.pad(masks, short, mode="symmetric")
        return self._tile(crop, masks, outside, Grid((side, side), scale, 1), channel, states[:, i], weights[:, i], rng)

    def _tile(self, crop, masks, outside, grid, channel, states, weights, rng) -> Tile:  # type: ignore[no-untyped-def]
        image, factor = _other_background(crop, self.factors[channel], rng)
        image, masks = _disturbed(image, masks, rng)
        factor *= float(np.exp(rng.normal(0, 0.25)))
        index = (np.arange(SIZE), np.arange(SIZE))
        scaled = resize_image(normalize(image[None], np.array([factor])), grid, index, (0, 0))[0]
        inside = resize_interior(masks, grid, index, (0, 0), BOUNDARY_UM / MODEL_PIXEL)
        placed = resize_labels(np.where(outside, 0, masks), grid, index, (0, 0))
        seen, numbers = np.unique(placed, return_inverse=True)
        if seen[0] != 0:
            seen, numbers = np.append(0, seen), numbers + 1
        labels = np.append(0.5, states[seen[1:] - 1]).astype(np.float32)
        weight = np.append(0.0, weights[seen[1:] - 1]).astype(np.float32)
        labels[~np.isfinite(labels)] = 0.5
        numbers = numbers.reshape(placed.shape)
        level = self.levels.get(channel, np.zeros(0, np.float32))
        return Tile(scaled, inside, numbers, labels, weight, weight > 1, level)


def _other_background(
    image: NDArray[np.float32], factor: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], float]:
    """Take the background off, or add some, and move the factor as its rule would."""
    kind, level = rng.random(), factor / OTSU_LEVELS
    if kind < 0.25:
        shift = -min(float(np.quantile(image, rng.uniform(0.05, 0.6))), 0.6 * level)
    elif kind < 0.35:
        shift = rng.uniform(0, 0.4) * level
    else:
        return image, factor
    return np.maximum(image + np.float32(shift), 0), OTSU_LEVELS * (level + shift)


def _disturbed(image: NDArray[np.float32], masks: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Change a crop as other microscopes and segmentations would: blur, noise, masks grown, eroded or shifted."""
    kind = rng.random()
    if kind < 0.15:
        image = gaussian_filter(image, rng.uniform(0.4, 1.2))
    elif kind < 0.3:
        image = np.maximum(image + rng.normal(0, rng.uniform(0, 0.1) * (image.std() + 1e-6), image.shape), 0)
    elif kind < 0.4:
        image = image * np.exp(rng.normal(0, 0.1))
        image = rng.poisson(np.minimum(image / max(image.mean(), 1e-6) * rng.uniform(2, 20), 1e4)) * (
            max(image.mean(), 1e-6) / 10
        )
    kind = rng.random()
    if kind < 0.15:
        masks = expand_labels(masks, 1)
    elif kind < 0.25:
        masks = np.where(interior(masks), masks, 0)
    elif kind < 0.35:
        masks = np.roll(masks, tuple(rng.integers(-1, 2, 2)), (0, 1))
    return image.astype(np.float32), masks


class Simulated:
    """Simulated tiles, drawn once by ``prepare.py`` and kept on disk.

    Parameters
    ----------
    folder
        Where they are.
    level
        Makes the planes of a channel from the mean intensities of its cells over the factor; None for none.
    """

    def __init__(self, folder: Path, level: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None) -> None:
        self.files, self.level = sorted(folder.glob("*.npz")), level
        self._open: list[dict[str, NDArray]] = []

    def draw(self, rng: np.random.Generator) -> Tile:
        """Draw a part of a tile; a few files are kept in memory, and one in fifty draws renews one of them."""
        if len(self._open) < 12 or rng.random() < 0.02:
            path = self.files[rng.integers(len(self.files))]
            with np.load(path) as stored:
                entry = dict(stored)
            entry["start"] = np.cumsum(np.append(0, entry["n"]))
            entry["level"] = np.stack([self._level(entry, k) for k in range(len(entry["n"]))])
            self._open = [*self._open[-23:], entry]
        entry = self._open[rng.integers(len(self._open))]
        k = int(rng.integers(len(entry["n"])))
        top, left = rng.integers(0, entry["image"].shape[1] - SIZE + 1, 2)
        window = (k, slice(top, top + SIZE), slice(left, left + SIZE))
        cells = entry["cells"][window].astype(np.int64)
        seen, numbers = np.unique(cells, return_inverse=True)
        if seen[0] != 0:
            seen, numbers = np.append(0, seen), numbers + 1
        labels = entry["labels"][entry["start"][k] : entry["start"][k + 1]][seen].astype(np.float32)
        labels[0] = 0.5
        image = np.clip(entry["image"][window].astype(np.float32) * np.exp(rng.normal(0, 0.1)), 0, 1).astype(np.float32)
        ones = np.ones(len(seen), np.float32)
        return Tile(
            image, entry["interior"][window], numbers.reshape(cells.shape), labels, ones, ones > 0, entry["level"][k]
        )

    def _level(self, entry: dict[str, NDArray], k: int) -> NDArray[np.float32]:
        """Two tissues after each other share a marker and its level."""
        if self.level is None:
            return np.zeros(0, np.float32)
        first = k - k % 2
        return self.level(entry["expression"][entry["start"][first] : entry["start"][first + 2]])


def batches(sources: Sequence[Source], simulated: Simulated, size: int, seed: int, step: int = 0) -> Iterator[Batch]:
    """Yield batches without end; those from a step on depend on seed and step only.

    A data set is drawn by the root of its number of channels, so that large ones do not drown small ones.
    """
    share = np.sqrt([len(source.by_channel) for source in sources])
    while True:
        rng = np.random.default_rng([seed, step])
        tiles = [
            simulated.draw(rng)
            if rng.random() < SIMULATED
            else sources[rng.choice(len(sources), p=share / share.sum())].draw(rng)
            for _ in range(size)
        ]
        yield collate([_turned(tile, rng) for tile in tiles])
        step += 1


def _turned(tile: Tile, rng: np.random.Generator) -> Tile:
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def view(array: NDArray) -> NDArray:
        array = np.rot90(array, turns)
        return array[:, ::-1] if flip else array

    moved = (view(array) for array in (tile.image, tile.interior, tile.cells))
    return Tile(*moved, tile.labels, tile.weights, tile.trusted, tile.level)


def collate(tiles: Sequence[Tile]) -> Batch:
    """Stack tiles and number their cells through."""
    starts = np.cumsum([0] + [len(tile.labels) - 1 for tile in tiles])
    cells = np.stack([np.where(t.cells > 0, t.cells + s, 0) for t, s in zip(tiles, starts, strict=False)])
    planes = [
        np.concatenate(
            [
                t.image[None],
                t.interior[None].astype(np.float32),
                np.broadcast_to(t.level[:, None, None], (len(t.level), SIZE, SIZE)),
            ]
        )
        for t in tiles
    ]

    def rows(values: list[NDArray], first: float) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([[first], *(value[1:] for value in values)]).astype(np.float32))

    return Batch(
        torch.from_numpy(np.stack(planes).astype(np.float32)),
        torch.from_numpy(cells.astype(np.int64)),
        rows([t.labels for t in tiles], 0.5),
        rows([t.weights for t in tiles], 0.0),
        torch.from_numpy(np.concatenate([[0], np.repeat(np.arange(len(tiles)), np.diff(starts))])),
        rows([t.trusted for t in tiles], 0.0) > 0,
    )
