"""Where the cells of a region lie and how they touch, from windows of its labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nimbus_sd.pixels.numbering import numbered


class Outlines:
    """Bounding boxes and contacts of cells, to which windows are added in any order.

    A contact is a pixel edge between two pixels of different labels (4-neighbourhood). The edges of the region itself
    are none, since what lies beyond them is not known.
    """

    def __init__(self) -> None:
        self._boxes = [np.zeros((5, 0), np.int64)]
        self._contacts = [np.zeros((3, 0), np.int64)]

    def add(self, labels: NDArray[np.int64], shape: tuple[int, int], origin: tuple[int, int]) -> None:
        """Add a window.

        Parameters
        ----------
        labels
            The window, with one row and one column more at its far ends where the region goes on there; (y, x).
        shape
            Height and width of the window itself. Windows cover the region once.
        origin
            Row and column of its first pixel in the region.
        """
        height, width = shape
        own = labels[:height, :width]
        ids, code = numbered(own.ravel())
        found = ndimage.find_objects(code.reshape(own.shape) + 1)
        corners = [(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in found]
        boxes = np.array(corners, np.int64).reshape(-1, 4) + np.array(origin * 2)
        self._boxes.append(np.concatenate([ids[:, None], boxes], axis=1)[ids > 0].T)
        self._contacts.append(
            _contacts(
                (labels[:-1, :width], labels[1:, :width]),
                (labels[:height, :-1], labels[:height, 1:]),
            )
        )

    def boxes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids (n,), ascending, and bounding boxes (n, 4): top, left, bottom, right, the last two exclusive."""
        boxes = np.concatenate(self._boxes, axis=1)
        boxes = boxes[:, np.argsort(boxes[0], kind="stable")]
        ids, starts = np.unique(boxes[0], return_index=True)
        if not ids.size:
            return ids, np.zeros((0, 4), np.int64)
        low, high = np.minimum.reduceat(boxes[1:3], starts, axis=1), np.maximum.reduceat(boxes[3:], starts, axis=1)
        return ids, np.concatenate([low, high]).T

    def contacts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs of labels, the smaller first (0: background), and their edges; a pair may come repeatedly."""
        first, second, length = np.concatenate(self._contacts, axis=1)
        return first, second, length


def _contacts(*sides: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.int64]:
    """Count the edges between pixels and their neighbours for each pair of labels: (smaller, larger, count)."""
    edges = np.concatenate([np.stack([one, other])[:, one != other] for one, other in sides], axis=1)
    ids, code = np.unique(edges, return_inverse=True)
    code = np.sort(code.reshape(edges.shape), axis=0)
    pairs, counts = np.unique(code[0] * len(ids) + code[1], return_counts=True)
    if not pairs.size:
        return np.zeros((3, 0), np.int64)
    smaller, larger = np.divmod(pairs, len(ids))
    return np.stack([ids[smaller], ids[larger], counts])
