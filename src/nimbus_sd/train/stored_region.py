"""A region of a store: what is known of it, and its arrays on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nimbus_sd.spatial import watched


@dataclass(frozen=True, eq=False)
class StoredRegion:
    """A region of a store.

    Parameters
    ----------
    data_set, region, image
        Its data set, its labels element and its image.
    split, group
        ``"train"``, ``"validation"`` or ``"test"``, and what it shares with other regions of that split.
    channels
        Markers.
    judged, positive
        Number of its cells that are labelled positive or negative, and positive, in each channel: by evaluation gold
        where it has some, else by the labels for training.
    evaluation
        Whether it has evaluation gold.
    shape
        Model pixels that cover it.
    windows
        Number of its tiles per channel.
    factors
        Normalisation factor of each channel; 0 where it has none.
    digest, pixels
        SHA-256 of its labels, and of its images and masks as they are written.
    marks
        By which it is recognised in another data set, see :func:`~nimbus_sd.train.together.marks_of`.
    node
        Its group on disk.
    """

    data_set: str
    region: str
    image: str
    split: str
    group: str
    channels: tuple[str, ...]
    judged: tuple[int, ...]
    positive: tuple[int, ...]
    evaluation: bool
    shape: tuple[int, int]
    windows: int
    factors: tuple[float, ...]
    digest: str
    pixels: str
    marks: frozenset[str]
    node: zarr.Group

    @cached_property
    def arrays(self) -> dict[str, zarr.Array]:
        """Its arrays on disk.

        ``image`` (windows, channels, y, x) float32 in [0, 1]; ``interior`` (windows, y, x) bool; ``cells`` (windows, y,
        x), numbers from 1 that say which row of ``ids`` the cell is, 0 = background; ``labels`` and ``gold`` (cells,
        channels) float32; ``trusted`` (cells, channels) bool, labels that somebody proofread; ``corner`` (windows, 2),
        model row and column.
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
        """Whose labels for training somebody proofread, one per row of ``ids``."""
        return np.asarray(self.arrays["trusted"][:, channel], bool)


def regions_of(group: zarr.Group, data_set: str) -> Iterator[StoredRegion]:
    """Read the regions of a data set from its group on disk."""
    common: Any = group.attrs
    for _, own in sorted(group.groups(), key=lambda item: int(item[0])):
        attrs: Any = own.attrs
        yield StoredRegion(
            data_set=data_set,
            region=attrs["region"],
            image=attrs["image"],
            split=attrs["split"],
            group=attrs["group"],
            channels=tuple(common["channels"]),
            judged=tuple(attrs["judged"]),
            positive=tuple(attrs["positive"]),
            evaluation=attrs["evaluation"],
            shape=tuple(attrs["shape"]),
            windows=attrs["windows"],
            factors=tuple(common["factors"]),
            digest=attrs["sha256"],
            pixels=attrs["pixels"],
            marks=frozenset(attrs["marks"]),
            node=own,
        )
