"""Tiles for training on disk: data sets, their regions, and the windows of these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain, product
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr import Group

from nimbus_sd._table import judged
from nimbus_sd.engine import BadPixels, TileReader, channel_groups, differences, model_grid
from nimbus_sd.models import Card
from nimbus_sd.pixels import overlapping_tiles
from nimbus_sd.spatial import Region, watched
from nimbus_sd.train.recipe import check_settings

SPLITS: Final = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = SPLITS
_FORMAT = "nimbus_sd tiles 3"
# Normalisation factor of each channel.
Factors = NDArray[np.float64]
# Windows whose masks are written together, and channels whose images are: one file each.
_WINDOWS, _CHANNELS = 8, 32


@dataclass(frozen=True)
class StoreSettings:
    """What all tiles of a store have in common; lengths in model pixels, see :class:`~nimbus_sd.models.Card`."""

    tile_size: int
    overlap: int
    pixel_size: float
    rule: str
    quantile: float | None

    def __post_init__(self) -> None:
        check_settings(self, tile_size="[1, inf)", overlap=f"[0, {self.tile_size})")


class Labels(NamedTuple):
    """Labels of n cells in C channels, NaN = not judged."""

    ids: NDArray[np.int64]  # (n,)
    training: NDArray[np.float32]  # (n, C), silver labels or what somebody proofread
    gold: NDArray[np.float32]  # (n, C), for evaluation
    trusted: NDArray[np.bool_]  # (n, C), whether somebody proofread the label for training


@dataclass(frozen=True, eq=False)
class StoredRegion:
    """A region of a store; ``region`` is its labels element, ``group`` the image or patient that it shares."""

    data_set: str
    region: str
    image: str
    split: str
    group: str
    channels: tuple[str, ...]
    #: Normalisation factor of each channel; 0 where it has none.
    factors: tuple[float, ...]
    #: Cells labelled positive or negative, and positive, in each channel: by evaluation gold if there is some.
    judged: tuple[int, ...]
    positive: tuple[int, ...]
    #: Whether it has evaluation gold.
    evaluation: bool
    #: Model pixels that cover it, and number of its tiles per channel.
    shape: tuple[int, int]
    windows: int
    #: Digests of its labels, of its images and masks as they are written, and those by which it is recognised.
    sha256: str
    pixels: str
    marks: tuple[str, ...]
    node: Group

    @cached_property
    def arrays(self) -> dict[str, zarr.Array]:
        """Its arrays on disk.

        ``image`` (windows, channels, y, x) float32 in [0, 1]; ``interior`` (windows, y, x) bool; ``cells`` (windows, y,
        x): row of ``ids`` from 1, 0 = background; ``labels`` and ``gold`` (cells, channels) float32; ``trusted``
        (cells, channels) bool, labels that somebody proofread; ``corner`` (windows, 2), model row and column.
        """
        return {name: watched(array) for name, array in self.node.arrays()}

    @cached_property
    def corners(self) -> NDArray[np.int64]:
        """Model row and column of each window's first pixel, shape (windows, 2)."""
        return np.asarray(self.arrays["corner"][:], np.int64)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Instance id of each cell."""
        return np.asarray(self.arrays["ids"][:], np.int64)

    def truth(self, channel: int) -> NDArray[np.float32]:
        """Labels by which it is judged, one per row of ``ids``."""
        return np.asarray(self.arrays["gold" if self.evaluation else "labels"][:, channel], np.float32)

    def trusted(self, channel: int) -> NDArray[np.bool_]:
        """Whether somebody proofread the label for training, one per row of ``ids``."""
        return np.asarray(self.arrays["trusted"][:, channel], bool)


class Store:
    """Tiles for training on disk, as :func:`build_store` writes them.

    Parameters
    ----------
    path
        The store's folder.

    Attributes
    ----------
    settings
        What all tiles have in common: ``tile_size``, ``overlap``, ``pixel_size``, ``rule``, ``quantile``.
    regions, strata
        All regions, data set by data set; and all pairs of data set and marker.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "zarr.json").is_file():
            raise FileNotFoundError(f"There is no store of tiles at {path}; `nimbus_sd.train.build_store` writes one.")
        root = zarr.open_group(self.path, mode="r")
        if root.attrs.get("format") != _FORMAT:
            raise ValueError(f"{path} is no store of tiles of this version; `build_store` writes one to a new folder.")
        self.settings = StoreSettings(**root.attrs["settings"])  # type: ignore[arg-type]
        self.regions: list[StoredRegion] = []
        self.strata: list[tuple[str, str]] = []
        for group in _numbered(root):
            # A call that was stopped leaves a data set without attributes.
            if attrs := _attributes(group):
                self.strata += [(attrs["data_set"], channel) for channel in attrs["channels"]]
                self.regions += [StoredRegion(node=node, **attrs, **_attributes(node)) for node in _numbered(group)]

    @property
    def data_sets(self) -> list[str]:
        """Names of the data sets."""
        return list(dict.fromkeys(data_set for data_set, _ in self.strata))

    def stratum(self, region: int) -> int:
        """Position in ``strata`` of a region's first channel; the others follow."""
        return self.strata.index((self.regions[region].data_set, self.regions[region].channels[0]))

    def gold_strata(self, split: str) -> set[int]:
        """Positions in ``strata`` of the markers that evaluation gold judges in a split."""
        return {self.stratum(n) + channel for n, _, channel in self.tiles(split).tolist() if self.regions[n].evaluation}

    def tiles(self, split: str) -> NDArray[np.int64]:
        """List tiles of the channels that have labels: region, window and channel, shape (n, 3)."""
        if split not in SPLITS:
            raise ValueError(f"`split` is {split!r}; it must be one of {', '.join(SPLITS)}.")
        regions = [(number, region) for number, region in enumerate(self.regions) if region.split == split]
        tiles = (product([n], range(r.windows), np.flatnonzero(r.judged)) for n, r in regions)
        return np.array([*chain(*tiles)], np.int64).reshape(-1, 3)

    def to_frame(self) -> pd.DataFrame:
        """Return what there is, one row per region and marker."""
        rows = [
            (r.data_set, r.region, r.split, r.group, channel, r.windows, n_judged, n_positive, r.evaluation)
            for r in self.regions
            for channel, n_judged, n_positive in zip(r.channels, r.judged, r.positive, strict=True)
        ]
        names = ["data_set", "region", "split", "group", "channel", "tiles", "judged", "positive", "evaluation"]
        return pd.DataFrame(rows, columns=names)

    def described(self) -> dict[str, Any]:
        """Return settings and contents, pixels as a digest: runs on two stores that differ here must not be mixed."""
        names = ("data_set", "region", "split", "channels", "factors", "shape", "sha256", "pixels")
        return {**asdict(self.settings), "content": [[getattr(r, name) for name in names] for r in self.regions]}


StoreOrPath = Store | str | Path


def _numbered(group: Group) -> list[Group]:
    return [inner for _, inner in sorted(group.groups(), key=lambda item: int(item[0]))]


def _attributes(group: Group) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in group.attrs.asdict().items()}


def open_store(path: str | Path, settings: StoreSettings) -> Store:
    """Open a store of these settings to add to it, or make one; leave a folder of something else as it is."""
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        zarr.create_group(path, attributes={"format": _FORMAT, "settings": asdict(settings)}, zarr_format=3)
    elif not (path / "zarr.json").is_file():
        raise ValueError(f"{path} holds something else than tiles, and is left as it is; name a new folder.")
    store = Store(path)
    if not store.regions and store.settings != settings:
        # A build that failed leaves its settings, and no tile that has them.
        zarr.open_group(path, mode="r+").attrs["settings"] = asdict(settings)
        store = Store(path)
    if store.settings != settings:
        changed = "; ".join(differences(asdict(store.settings), asdict(settings)))
        raise ValueError(f"{path} has other settings: {changed}. Use its `model` and `tile_size`, or another path.")
    return store


@contextmanager
def new_data_set(store: Store, name: str, channels: list[str], factors: Factors) -> Iterator[Group]:
    """Add a data set, whose regions the caller writes; it is part of the store if no error occurs."""
    root = zarr.open_group(store.path, mode="r+")
    for key, group in list(root.groups()):
        if "data_set" not in group.attrs:
            # What a call wrote that was stopped.
            del root[key]
    group = root.create_group(str(1 + max((int(key) for key in root.group_keys()), default=-1)))
    yield group
    group.attrs.update({"channels": list(channels), "factors": np.nan_to_num(factors).tolist(), "data_set": name})


def write_region(
    node: Group, region: Region, labels: Labels, factors: Factors, card: Card, settings: StoreSettings, bad: BadPixels
) -> dict[str, Any]:
    """Write the tiles of a region, some windows at a time, count its bad pixels, and return its attributes."""
    grid, size, n = model_grid(region, card), settings.tile_size, len(factors)
    tiles = list(overlapping_tiles(grid.model_shape, size, settings.overlap))

    def create(name: str, dtype: str, per_file: tuple[int, ...], *channels: int) -> zarr.Array:
        # A chunk is a tile, or its mask; a file has several.
        shape, chunk = (len(tiles), *channels, size, size), (*(1 for _ in per_file), size, size)
        return node.create_array(name, shape=shape, chunks=chunk, shards=(*per_file, size, size), dtype=dtype)

    masks_per_file = (min(_WINDOWS, len(tiles)),)
    interior, cells = create("interior", "bool", masks_per_file), create("cells", "uint32", masks_per_file)
    images, ids, pixels = create("image", "float32", (1, min(_CHANNELS, n)), n), labels.ids, sha256()
    for first in range(0, len(tiles), _WINDOWS):
        readers = [TileReader.open(region, grid, tile) for tile in tiles[first : first + _WINDOWS]]
        # Cells that the table does not have follow those that it has.
        seen = np.unique(np.concatenate([pd.unique(reader.cells.ravel()) for reader in readers]))
        ids = np.concatenate([ids, np.setdiff1d(seen[seen > 0], ids)])
        inside = np.stack([reader.interior for reader in readers])
        rows = np.stack([_rows_from_1(reader.cells, ids) for reader in readers])
        interior[first : first + _WINDOWS], cells[first : first + _WINDOWS] = inside, rows
        pixels.update(inside.tobytes() + rows.tobytes())
        for number, reader in enumerate(readers, first):
            for start in range(0, n, _CHANNELS):
                # As many channels at a time as are written together and fit into memory.
                together = np.arange(start, min(start + _CHANNELS, n))
                parts = [together[list(part)] for part in channel_groups(len(together), reader.n_pixels)]
                image = np.concatenate([reader.channels(part.tolist(), factors[part], bad)[0] for part in parts])
                # Channels without a factor have no pixel above 0.
                image = np.ascontiguousarray(np.nan_to_num(image, copy=False))
                images[number, start : start + _CHANNELS] = image
                pixels.update(image.tobytes())
    node.create_array("ids", data=ids)
    for name, values in (("labels", labels.training), ("gold", labels.gold), ("trusted", labels.trusted)):
        missing = False if name == "trusted" else np.nan
        padded = np.pad(values, ((0, len(ids) - len(labels.ids)), (0, 0)), constant_values=missing)
        # Read marker by marker.
        node.create_array(name, data=padded, chunks=(max(1, len(ids)), 1), shards=(max(1, len(ids)), n))
    node.create_array("corner", data=np.array([[axis.start for axis in tile.window] for tile in tiles], np.int64))
    evaluation = bool(np.isfinite(labels.gold).any())
    truth = labels.gold if evaluation else labels.training
    return {
        "shape": list(grid.model_shape),
        "windows": len(tiles),
        "evaluation": evaluation,
        "judged": judged(truth).sum(axis=0).tolist(),
        "positive": (truth > 0.5).sum(axis=0).tolist(),
        "pixels": pixels.hexdigest(),
        "sha256": sha256(b"".join(array.tobytes() for array in labels)).hexdigest(),
    }


def _rows_from_1(cells: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Replace ids by their place among the region's cells, from 1; 0 for background."""
    seen, code = np.unique(cells, return_inverse=True)
    rows = np.where(seen > 0, pd.Index(ids).get_indexer(pd.Index(seen)) + 1, 0)
    return rows[code.reshape(cells.shape)].astype(np.uint32)
