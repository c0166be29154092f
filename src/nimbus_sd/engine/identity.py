"""Compares the pixels of a tile as they were at another time, or are elsewhere, with those here and now."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.engine.plan import Plan
from nimbus_sd.engine.read import Windows, digest, groups


def differing(plan: Plan, number: int, digests: NDArray[np.uint8]) -> str | None:
    """Read a tile's pixels again and name the first that differ from those that it was made of.

    Parameters
    ----------
    plan, number
        The tile.
    digests
        As in :class:`~nimbus_sd.engine.plan.TileSums`.
    """
    pairs = zip(digests, _digests(plan, number), strict=False)
    return next((what for before, (what, now) in pairs if not np.array_equal(before, now)), None)


def sample(plan: Plan) -> tuple[int, NDArray[np.uint8]]:
    """Find a tile with a cell, as near to the middle of the plan as there is one; its number and digests."""
    middle = len(plan.tiles) // 2
    for number in sorted(range(len(plan.tiles)), key=lambda number: abs(number - middle)):
        region, grid, tile = plan.locate(number)
        windows = Windows.of(grid, tile)
        if region.read_labels(windows.rows, windows.cols).any():
            break
    return number, np.stack([found for _, found in _digests(plan, number)])


def _digests(plan: Plan, number: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and digest of the labels, then of each channel."""
    region, grid, tile = plan.locate(number)
    windows = Windows.of(grid, tile)
    yield f"labels {region.labels_key!r}", digest(region.read_labels(windows.rows, windows.cols))
    for group in groups(len(region.channels), windows.pixels):
        image = region.read_image(group, windows.rows, windows.cols)
        for name, channel in zip([region.channels[i] for i in group], image, strict=True):
            yield f"pixels in channel {name!r} of image {region.image_key!r}", digest(channel)
