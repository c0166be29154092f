"""What is known about each segmented cell: the hidden state, where the image could show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nimbus_sd.simulate.detector import Detector
from nimbus_sd.simulate.marker import Stain
from nimbus_sd.simulate.tissue import Tissue

# A positive cell whose own signal, blurred as the image is, lies below this many standard deviations (noise of the cell's mean, and a fifth of the
# background that it sits on) cannot be told from a negative one by anybody: undetermined.
_DETECTABLE = 2.5
_BACKGROUND_DOUBT = 0.2


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
    float32 of shape (n + 1,): 1 positive, 0 negative, 0.5 undetermined (below the detection limit, or two cells of
    different state merged into one); row 0 is 0.
    """
    n = tissue.n_cells + 1
    owner = tissue.owner.ravel()
    seen = ndimage.gaussian_filter(stained.own, detector.blur / tissue.pixel_size, mode="nearest", truncate=3).ravel()
    own = np.bincount(owner, seen, minlength=n)
    own_squared = np.bincount(owner, seen**2, minlength=n)
    area = np.maximum(np.bincount(owner, minlength=n), 1)
    level = own_squared / np.maximum(own, 1e-9)
    pixels = own**2 / np.maximum(own_squared, 1e-9)
    background = np.bincount(owner, stained.rest.ravel(), minlength=n) / area + detector.background
    noise = ((level + background) / detector.gain + detector.read_noise**2) / np.maximum(pixels, 1)
    visible = level > _DETECTABLE * np.sqrt(noise + (_BACKGROUND_DOUBT * background) ** 2)

    state = np.where(stained.positive, np.where(visible, 1.0, 0.5), 0.0)
    state[0] = 0
    first, second = state[cells[:, 0]], state[cells[:, 1]]
    merged = cells[:, 1] > 0
    return np.where(merged & (first != second), 0.5, first).astype(np.float32)
