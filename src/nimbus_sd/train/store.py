"""A store of tiles on disk: data sets, their regions, and the tiles of these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from nimbus_sd.train._settings import check_numbers
from nimbus_sd.train.splits import SPLITS
from nimbus_sd.train.stored_region import StoredRegion, regions_of

_FORMAT = "nimbus_sd tiles 3"


@dataclass(frozen=True)
class StoreSettings:
    """What all tiles of a store have in common; lengths in model pixels, see :class:`~nimbus_sd.models.Card`.

    Raises
    ------
    ValueError
        If a length is no number of its kind, a tile has no pixel, or all of them are shared with its neighbour.
    """

    tile_size: int
    overlap: int
    pixel_size: float
    rule: str
    quantile: float | None

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.overlap < self.tile_size:
            raise ValueError(
                f"`tile_size` is {self.tile_size} and `overlap` {self.overlap}; the overlap must be at least 0 and "
                "smaller than the tile."
            )


class Store:
    """Tiles for training on disk, as :func:`build_store` writes them.

    Parameters
    ----------
    path
        The store's folder.

    Attributes
    ----------
    settings
        What all tiles have in common.
    regions
        All regions, data set by data set.
    strata
        Data set and marker, one for each pair that there is.

    Raises
    ------
    FileNotFoundError
        There is no store.
    ValueError
        The folder holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "zarr.json").is_file():
            raise FileNotFoundError(f"There is no store of tiles at {path}; `nimbus_sd.train.build_store` writes one.")
        self._root = zarr.open_group(self.path, mode="r")
        if self._root.attrs.get("format") != _FORMAT:
            raise ValueError(f"{path} is no store of tiles of this version; `build_store` writes one to a new folder.")
        self.settings = StoreSettings(**self._root.attrs["settings"])  # type: ignore[arg-type]
        self._refresh()

    @classmethod
    def create(cls, path: str | Path, settings: StoreSettings) -> Store:
        """Open a store of these settings, or make one.

        Raises
        ------
        ValueError
            It has other settings, or the folder holds something else.
        """
        path = Path(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            zarr.create_group(path, attributes={"format": _FORMAT, "settings": asdict(settings)}, zarr_format=3)
        elif not (path / "zarr.json").is_file():
            raise ValueError(f"{path} holds something else than tiles, and is left as it is; name a new folder.")
        store = cls(path)
        if not store.regions and store.settings != settings:
            # A build that failed leaves its settings, and no tile that has them.
            zarr.open_group(path, mode="r+").attrs["settings"] = asdict(settings)
            store = cls(path)
        there, wanted = asdict(store.settings), asdict(settings)
        if differing := [f"{key} {there[key]!r}, now {wanted[key]!r}" for key in there if there[key] != wanted[key]]:
            raise ValueError(
                f"The store {path} was built with other settings: {'; '.join(differing)}. Use the same ones (`model`, "
                "`tile_size`, `overlap`), or another path."
            )
        return store

    def check_new(self, data_set: str) -> None:
        """Refuse a data set that is there already."""
        if not isinstance(data_set, str) or not data_set:
            raise ValueError(f"`data_set` is {data_set!r}; give it a name.")
        if data_set in self.data_sets:
            raise ValueError(f"{self.path} has data set {data_set!r} already; use another name, or another path.")

    @contextmanager
    def new_data_set(self, name: str, channels: list[str], factors: NDArray[np.float64]) -> Iterator[zarr.Group]:
        """Add a data set, whose regions the caller writes; without an error it is there at the end, else not."""
        root = zarr.open_group(self.path, mode="r+")
        for key, group in list(root.groups()):
            if "data_set" not in group.attrs:
                # What a call wrote that was stopped.
                del root[key]
        number = 1 + max((int(key) for key in root.group_keys()), default=-1)
        group = root.create_group(str(number))
        yield group
        group.attrs.update({"channels": list(channels), "factors": np.nan_to_num(factors).tolist(), "data_set": name})
        self._refresh()

    @property
    def data_sets(self) -> list[str]:
        """Names of the data sets."""
        return list(dict.fromkeys(region.data_set for region in self.regions))

    def stratum(self, region: int) -> int:
        """Position in ``strata`` of a region's first channel; the others follow."""
        return self._first[self.regions[region].data_set]

    def gold_strata(self, split: str) -> set[int]:
        """Positions in ``strata`` of the markers that evaluation gold judges in a split."""
        own = [(n, one) for n, one in enumerate(self.regions) if one.split == split and one.evaluation]
        return {self.stratum(n) + int(channel) for n, one in own for channel in np.flatnonzero(one.judged)}

    def places(self, marks: set[str]) -> dict[str, str]:
        """Split -> a region in it that has one of these marks."""
        return {r.split: f"region {r.region!r} of data set {r.data_set!r}" for r in self.regions if r.marks & marks}

    def tiles(self, split: str) -> NDArray[np.int64]:
        """List tiles of the channels that have labels: region, window and channel, shape (n, 3)."""
        if split not in SPLITS:
            raise ValueError(f"`split` is {split!r}; it must be one of {', '.join(SPLITS)}.")
        listed = [np.zeros((0, 3), np.int64)]
        for number, region in enumerate(self.regions):
            if region.split == split:
                channels = np.flatnonzero(region.judged)
                grid = np.meshgrid([number], np.arange(region.windows), channels, indexing="ij")
                listed.append(np.stack(grid, axis=-1).reshape(-1, 3))
        return np.concatenate(listed)

    def to_frame(self) -> pd.DataFrame:
        """Return what there is, one row per region and marker."""
        rows = [
            (r.data_set, r.region, r.split, r.group, channel, r.windows, judged, positive, r.evaluation)
            for r in self.regions
            for channel, judged, positive in zip(r.channels, r.judged, r.positive, strict=True)
        ]
        names = ["data_set", "region", "split", "group", "channel", "tiles", "judged", "positive", "evaluation"]
        return pd.DataFrame(rows, columns=names)

    def described(self) -> dict[str, Any]:
        """Return settings and contents, pixels as a digest: runs on two stores that differ here must not be mixed."""
        content = [
            [one.data_set, one.region, one.split, one.channels, one.factors, one.shape, one.digest, one.pixels]
            for one in self.regions
        ]
        return {**asdict(self.settings), "content": content}

    def _refresh(self) -> None:
        self._root = zarr.open_group(self.path, mode="r")
        groups = [group for _, group in sorted(self._root.groups(), key=lambda item: int(item[0]))]
        self.regions: list[StoredRegion] = []
        self.strata: list[tuple[str, str]] = []
        self._first: dict[str, int] = {}
        for group in groups:
            attrs: Any = group.attrs
            if "data_set" in attrs:
                name = str(attrs["data_set"])
                self._first[name] = len(self.strata)
                self.strata += [(name, channel) for channel in attrs["channels"]]
                self.regions += regions_of(group, name)
