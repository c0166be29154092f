"""Compares a tile that was computed before with the pixels that are there now."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.engine.plan import Plan
from nimbus_sd.engine.read import Windows, digest, groups


def check_unchanged(plan: Plan, number: int, digests: NDArray[np.uint8]) -> None:
    """Read a tile's pixels again and compare them with those that it was made of.

    Parameters
    ----------
    plan, number
        The tile.
    digests
        As in :class:`~nimbus_sd.engine.plan.TileSums`.

    Raises
    ------
    ValueError
        They differ.
    """
    for before, (what, now) in zip(digests, _digests(plan, number), strict=False):
        if not np.array_equal(before, now):
            raise ValueError(
                f"The checkpoint was made of other {what}: tile {number + 1} of {len(plan.tiles)} differs. Restore "
                "them to go on, or pass another `checkpoint` to begin anew."
            )


def _digests(plan: Plan, number: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and digest of the labels, then of each channel."""
    region, grid, tile = plan.locate(number)
    windows = Windows.of(grid, tile)
    yield f"labels {region.labels_key!r}", digest(region.read_labels(windows.rows, windows.cols))
    for group in groups(len(region.channels), windows.pixels):
        image = region.read_image(group, windows.rows, windows.cols)
        for name, channel in zip([region.channels[i] for i in group], image, strict=True):
            yield f"pixels in channel {name!r} of image {region.image_key!r}", digest(channel)
