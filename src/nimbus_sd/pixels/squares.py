"""How bright cells are, measured without telling them apart: means over squares about as large as a cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Side of a square in um.
SQUARE_UM = 8.0
#: Times Otsu's threshold of squares that the rule "otsu" takes as 1.
OTSU_LEVELS = 5.0
# A square counts if cells cover at least this share of what they cover of the fullest square.
_COVERED = 0.25


def square_means(image: NDArray, inside: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Mean intensity of the cells' pixels in each square of a window.

    Parameters
    ----------
    image
        Shape (c, y, x), any real dtype, finite.
    inside
        Pixels of cells, shape (y, x).
    side
        Side of a square in pixels. Squares start at the window's corner; those at its far edges may be smaller.

    Returns
    -------
    float32 (c, n), the squares of which cells cover at least a quarter (of the fullest one, where none is full).
    """
    rows, cols = (np.arange(0, extent, side) for extent in inside.shape)
    weight = _sums(inside[None].astype(np.float32), rows, cols)[0]
    full = _sums(np.ones((1, *inside.shape), np.float32), rows, cols)[0]
    covered = weight / full
    used = (covered > 0) & (covered >= _COVERED * covered.max())
    # Channel by channel, so that no copy of the whole window is made.
    sums = (_sums(np.where(inside, channel, 0)[None], rows, cols)[0] for channel in image)
    return np.stack([total[used] / weight[used] for total in sums])


def _sums(values: NDArray, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[np.float32]:
    along = np.add.reduceat(values.astype(np.float32), rows, axis=1)
    return np.asarray(np.add.reduceat(along, cols, axis=2), np.float32)
