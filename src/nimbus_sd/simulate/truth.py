"""What is known about each segmented cell: the hidden state, where the image could show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nimbus_sd.simulate.detector import Detector
from nimbus_sd.simulate.marker import Stain
from nimbus_sd.simulate.tissue import Tissue

# A positive cell whose own signal, blurred as the image is, lies below this many standard deviations (noise of the
# cell's mean, a fifth of the background that it sits on, and how much cells differ in that background) cannot be told
# from a negative one by anybody: undetermined.
_DETECTABLE = 2.5
_BACKGROUND_DOUBT = 0.2
# By eye nobody calls a cell that is this much dimmer than the image's typical positive one.
_DIMMEST = 0.2


def truth(stained: Stain, tissue: Tissue, detector: Detector, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    """Label the cells of a segmentation.

    Parameters
    ----------
    stained, tissue, detector
        What was drawn.
    cells
        True cells of each label, from :func:`~nimbus_sd.simulate.segment`.

    Returns
    -------
    float32 of shape (n + 1,): 1 positive, 0 negative, 0.5 undetermined (below the detection limit, under a fifth
    of a typical positive cell's level, or two cells of different state merged into one); row 0 is 0.
    """
    n = tissue.n_cells + 1
    owner = tissue.owner.ravel()
    blurred = ndimage.gaussian_filter(stained.own, detector.blur / tissue.pixel_size, mode="nearest", truncate=3)
    sharp_level, _ = _level(stained.own, owner, n)
    blurred_level, pixels = _level(blurred, owner, n)
    # Blurring dims fine structures, but it also brings in light of neighbours.
    level = np.minimum(sharp_level, blurred_level)
    area = np.maximum(np.bincount(owner, minlength=n), 1)
    background = np.bincount(owner, stained.rest.ravel(), minlength=n) / area + detector.background
    noise = ((level + background) / detector.gain + detector.read_noise**2) / np.maximum(pixels, 1)
    seen = np.unique(owner)
    differ = _spread(background[seen[seen > 0]])
    positives = np.intersect1d(seen, np.flatnonzero(stained.positive))
    typical = float(np.median(level[positives])) if positives.size else 0.0
    visible = (level > _DIMMEST * typical) & (
        level > _DETECTABLE * np.sqrt(noise + (_BACKGROUND_DOUBT * background) ** 2 + differ**2)
    )

    state = np.where(stained.positive, np.where(visible, 1.0, 0.5), 0.0)
    state[0] = 0
    first, second = state[cells[:, 0]], state[cells[:, 1]]
    merged = cells[:, 1] > 0
    return np.where(merged & (first != second), 0.5, first).astype(np.float32)


def _spread(values: NDArray[np.float64]) -> float:
    """Estimate the standard deviation of the bulk of values, from the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0


def _level(
    signal: NDArray[np.float32], owner: NDArray[np.int32], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brightness of each cell's signal where it is bright, and on how many pixels it is so."""
    total = np.bincount(owner, signal.ravel(), minlength=n)
    squared = np.maximum(np.bincount(owner, signal.ravel() ** 2, minlength=n), 1e-12)
    return squared / np.maximum(total, 1e-9), total**2 / squared
