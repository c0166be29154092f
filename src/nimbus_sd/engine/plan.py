"""What is computed: the tiles of all regions, and the inputs that their sums depend on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from numbers import Integral
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.engine.tile import TileReader
from nimbus_sd.models import Card, Scorer
from nimbus_sd.pixels import Grid, tiles
from nimbus_sd.spatial import Region

# Side of a tile's core in image pixels: its labels take about 1.5 GB to work on.
_MAX_CORE = 4096


def model_grid(region: Region, card: Card) -> Grid:
    """Grid of model pixels that covers a region."""
    return Grid(region.shape, region.pixel_size / card.pixel_size, card.stride)


def find_tile_size(tile_size: int | None, card: Card, regions: Sequence[Region]) -> int:
    """Side of a core in model pixels: as asked for, or one that fits.

    Larger ones waste less halo, but need more memory: a wide network for the model's pixels, a fine image for its own.
    """
    if tile_size is not None:
        if not isinstance(tile_size, Integral) or tile_size < 1:
            raise ValueError(f"`tile_size` is {tile_size!r}; give a whole number of model pixels, 1 or more, or None.")
        return int(tile_size)
    side = card.patch * (1024 if card.root_filters <= 32 else 512)
    finest = min(region.pixel_size for region in regions) / card.pixel_size
    return max(card.stride, min(side, int(_MAX_CORE * finest)))


class Plan:
    """The tiles of all regions, numbered in the order in which their sums are added up.

    Whoever computes them, in whatever order: the scores are the same, to the last byte on the same machine with the
    same number of threads. Another number changes the order in which a convolution adds up: the last digits.

    Parameters
    ----------
    regions, factors
        All regions have the same c channels; a channel whose factor, of shape (c,), is NaN is not scored (NaN).
    card, tile_size
        Of the model; side of a tile's core in model pixels.
    identify
        Whether to store hashes of the input pixels with each tile.

    Attributes
    ----------
    tiles
        Position of the region, and window, of each tile that labels reach into; those of a region follow each other.
    """

    def __init__(
        self, regions: Sequence[Region], factors: NDArray, card: Card, tile_size: int, *, identify: bool = False
    ) -> None:
        self.regions, self.factors, self.card = regions, factors, card
        self.tile_size, self.identify = tile_size, identify
        self._grids = [model_grid(region, card) for region in regions]
        self.tiles = [
            (i, tile)
            for i, (region, grid) in enumerate(zip(regions, self._grids, strict=True))
            for tile in tiles(grid, tile_size, card.halo)
            if region.reaches(*(grid.image_range(core.start, core.stop, axis) for axis, core in enumerate(tile.core)))
        ]

    def reader(self, number: int) -> TileReader:
        """Return what reads a tile; nothing is read yet."""
        position, tile = self.tiles[number]
        return TileReader(self.regions[position], self._grids[position], tile, identify=self.identify)

    def sample(self) -> tuple[int, NDArray[np.uint8]]:
        """Find a tile with a cell, as near to the middle of the plan as there is one; its number and hashes."""
        middle = len(self.tiles) // 2
        for number in sorted(range(len(self.tiles)), key=lambda number: abs(number - middle)):
            reader = self.reader(number)
            if reader.region.read_labels(reader.rows, reader.cols).any():
                break
        return number, np.stack([now for _, now in reader.named_digests()])


def describe_inputs(plan: Plan, scorer: Scorer) -> dict[str, Any]:
    """List what the sums of a plan's tiles depend on, except for the pixels, as plain JSON.

    Where and in which batches they are made is not part of it.
    """
    card = scorer.card
    content = {
        "version": version("nimbus-sd"),
        "model": {"sha256": card.sha256, "pixel_size": card.pixel_size, "padding": card.padding},
        "views": 8 if scorer.tta else 1,
        "precision": scorer.precision,
        "channels": plan.regions[0].channels,
        "factors": dict(zip(plan.regions[0].channels, plan.factors, strict=True)),
        "tile_size": plan.tile_size,
        "labels": [region.labels_key for region in plan.regions],
        "regions": {
            region.labels_key: {
                "image": region.image_key,
                "dtype": str(region.dtype),
                "shape": region.shape,
                "pixel_size": region.pixel_size,
                "repeats": (region.image_repeat, region.labels_repeat),
                "origin": region.labels_origin,
                "grow": region.grow,
            }
            for region in plan.regions
        },
    }
    return json.loads(json.dumps(content))


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Say in words what differs between two descriptions of inputs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{name} {key!r}" if name else key)
    # NaN, the factor of a channel without one, is not equal to itself.
    elif repr(before) != repr(now):
        yield f"{name}: {shorten(str(before), 80)} then, {shorten(str(now), 80)} now"


def provenance(scorer: Scorer, regions: Sequence[Region], *, given: bool) -> dict[str, Any]:
    """List, for the table, how scores were made; ``given``: factors were passed, not measured."""
    card = scorer.card
    return {
        "model": card.name,
        "model_description": card.description,
        "sha256": card.sha256,
        "revision": card.revision,
        "model_pixel_size": card.pixel_size,
        "image": {region.labels_key: region.image_key for region in regions},
        "pixel_size": {region.labels_key: region.pixel_size * region.image_repeat for region in regions},
        "grow": {region.labels_key: region.grow for region in regions},
        "normalization": "given" if given else card.rule,
        "quantile": None if given else card.quantile,
        "views": 8 if scorer.tta else 1,
        "precision": scorer.precision,
        "version": version("nimbus-sd"),
        # Compared with the images by `tl.call_positive`, which loads no model.
        "ranges": card.ranges or None,
    }
