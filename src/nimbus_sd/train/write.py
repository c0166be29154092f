"""From the pixels of a region to its tiles in a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from nimbus_sd.engine import BadPixels, TileReader, channel_groups, model_grid
from nimbus_sd.models import Card
from nimbus_sd.pixels import overlapping_tiles
from nimbus_sd.spatial import Region
from nimbus_sd.train.cell_labels import CellLabels
from nimbus_sd.train.store import StoreSettings

# Windows whose masks are written together, and channels whose images are: one file each.
_WINDOWS, _CHANNELS = 8, 32


def write_region(
    group: zarr.Group,
    region: Region,
    known: CellLabels,
    factors: NDArray[np.float64],
    card: Card,
    settings: StoreSettings,
    bad: BadPixels,
) -> None:
    """Write the tiles of a region, some windows at a time, and count its bad pixels."""
    grid, size, n = model_grid(region, card), settings.tile_size, len(factors)
    windows = list(overlapping_tiles(grid.model_shape, size, settings.overlap))
    square, together = (size, size), min(_WINDOWS, len(windows))
    masks = {
        name: group.create_array(
            name, shape=(len(windows), *square), chunks=(1, *square), shards=(together, *square), dtype=dtype
        )
        for name, dtype in (("interior", "bool"), ("cells", "uint32"))
    }
    images = group.create_array(
        "image",
        shape=(len(windows), n, *square),
        chunks=(1, 1, *square),
        shards=(1, min(_CHANNELS, n), *square),
        dtype="float32",
    )
    ids, written = known.ids, sha256()
    for numbers in _batched(len(windows), together):
        readers = [TileReader.open(region, grid, windows[number]) for number in numbers]
        ids = _with_new(ids, readers)
        rows = slice(numbers[0], numbers[-1] + 1)
        inside = np.stack([reader.interior for reader in readers])
        numbered = np.stack([_numbered(reader.cells, ids) for reader in readers])
        masks["interior"][rows], masks["cells"][rows] = inside, numbered
        written.update(inside.tobytes() + numbered.tobytes())
        for number, reader in zip(numbers, readers, strict=True):
            for channels, image in _images(reader, factors, bad):
                images[number, channels] = image
                written.update(np.ascontiguousarray(image).tobytes())
    unknown = ((0, len(ids) - len(known.ids)), (0, 0))
    group.create_array("ids", data=ids)
    for name, labels, none in (
        ("labels", known.training, np.nan),
        ("gold", known.gold, np.nan),
        ("trusted", known.trusted, False),
    ):
        padded = np.pad(labels, unknown, constant_values=none)
        # Read marker by marker.
        group.create_array(name, data=padded, chunks=(max(1, len(ids)), 1), shards=(max(1, len(ids)), n))
    group.create_array("corner", data=np.array([[one.start for one in tile.window] for tile in windows], np.int64))
    truth = known.gold if known.for_evaluation else known.training
    group.attrs.update(
        {
            "shape": list(grid.model_shape),
            "windows": len(windows),
            "evaluation": known.for_evaluation,
            "judged": (np.isfinite(truth) & (truth != 0.5)).sum(axis=0).tolist(),
            "positive": (truth > 0.5).sum(axis=0).tolist(),
            "pixels": written.hexdigest(),
            "sha256": sha256(b"".join(one.tobytes() for one in vars(known).values())).hexdigest(),
        }
    )


def _images(
    reader: TileReader, factors: NDArray[np.float64], bad: BadPixels
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Read a window's channels, as many at a time as are written together and fit into memory."""
    for shard in _batched(len(factors), _CHANNELS):
        parts = [
            reader.channels([shard[i] for i in group], factors[[shard[i] for i in group]], bad)[0]
            for group in channel_groups(len(shard), reader.n_pixels)
        ]
        # Channels without a factor have no pixel above 0.
        yield slice(shard[0], shard[-1] + 1), np.nan_to_num(np.concatenate(parts), copy=False)


def _batched(n: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, n)) for start in range(0, n, size))


def _with_new(ids: NDArray[np.int64], readers: Sequence[TileReader]) -> NDArray[np.int64]:
    """Add cells that the table does not have."""
    seen = pd.unique(np.concatenate([pd.unique(reader.cells.ravel()) for reader in readers]))
    return np.concatenate([ids, np.setdiff1d(seen[seen > 0], ids)])


def _numbered(cells: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Replace ids by their place among the region's cells, from 1."""
    seen, code = np.unique(cells, return_inverse=True)
    number = np.where(seen > 0, pd.Index(ids).get_indexer(pd.Index(seen)) + 1, 0)
    return number[code.reshape(cells.shape)].astype(np.uint32)
