"""Normalisation: quantiles and thresholds of a channel's values, counted window by window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Larger values are no intensities, but mark missing data, as float32's largest number does; their sums would overflow.
LARGEST = np.float32(1e30)
#: Side of a square in um.
SQUARE_UM = 8.0
#: Multiple of the Otsu threshold of squares that the rule "otsu" takes as the factor.
OTSU_LEVELS = 5.0
# Floats are counted by the leading bits of their pattern: sign, exponent and 14 bits of the fraction, so that a bin is
# at most 2**-14 = 6e-5 of its value wide and its middle at most 3e-5 off.
_DROPPED_BITS = 23 - 14
# Share of the values that Otsu's threshold takes as equally bright.
_BRIGHTEST = 0.0005
# So many channels are counted at a time that their histograms take no more.
_WORK_BYTES = 2**29
# A square counts if cells cover at least this share of what they cover of the fullest square.
_COVERED = 0.25


class Histogram:
    """Counts of a channel's positive values, of some types, to which chunks are added in any order.

    Integers up to 16 bit are counted by value, so quantiles are exact; other types (as float32) within 5e-5 relative.
    NaN and values from ``LARGEST`` on are left out; zero and negative ones too, but for :meth:`otsu` where asked.
    """

    def __init__(self, *dtypes: np.dtype) -> None:
        self.exact = all(np.dtype(dtype).kind in "uib" and np.dtype(dtype).itemsize <= 2 for dtype in dtypes)
        self._first = 0
        self._counts = np.zeros(0, np.int64)
        self._zeros = 0

    def add(self, values: NDArray, *, zeros: bool = False) -> None:
        """Count an array of any shape; values that are not above 0 too, as zeros, where asked."""
        if zeros:
            self._zeros += int(np.count_nonzero(~(values > 0)))
        if self.exact:
            bins = values[values > 0].astype(np.int64)
        else:
            positive = values[(values > 0) & (values < LARGEST)].astype(np.float32)
            bins = (positive.view(np.uint32) >> _DROPPED_BITS).astype(np.int64)
        if bins.size:
            first = int(bins.min())
            self._merge(first, np.bincount(bins - first))

    def update(self, other: Histogram) -> None:
        """Add the counts of another histogram, made for the same dtypes."""
        self._zeros += other._zeros
        if other.total:
            self._merge(other._first, other._counts)

    def _merge(self, first: int, counts: NDArray[np.int64]) -> None:
        start = min(first, self._first) if self._counts.size else first
        stop = max(first + counts.size, self._first + self._counts.size)
        merged = np.zeros(stop - start, np.int64)
        merged[self._first - start :][: self._counts.size] += self._counts
        merged[first - start :][: counts.size] += counts
        self._first, self._counts = start, merged

    @property
    def total(self) -> int:
        """Number of positive values counted."""
        return int(self._counts.sum())

    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the positive values that occur (the middles of their bins), ascending, and their counts."""
        occurring = np.flatnonzero(self._counts)
        return self._values(self._first + occurring), self._counts[occurring]

    def end_of_bin(self, value: float) -> float:
        """Return the largest value that is counted like this one."""
        if self.exact or value == 0:
            return value
        bits = np.float32(value).view(np.uint32)
        return float((bits | np.uint32((1 << _DROPPED_BITS) - 1)).view(np.float32))

    def quantile(self, q: float) -> float:
        """Return a quantile of the positive values, interpolated as by ``numpy.quantile``; NaN if there are none."""
        total = self.total
        if total == 0:
            return float("nan")
        rank = q * (total - 1)
        low = int(np.floor(rank))
        bins = np.searchsorted(np.cumsum(self._counts), [low, min(low + 1, total - 1)], side="right")
        lower, upper = self._values(self._first + bins).tolist()
        return float(lower + (upper - lower) * (rank - low))

    def otsu(self) -> float:
        """Return Otsu's threshold of the positive values and the counted zeros; NaN if no value is positive.

        It lies half-way between the means of the two classes, as the best threshold of a smooth distribution does.
        The brightest 0.05 % of the values count as the least of them, so that a few do not make a class of their own.
        """
        values, counts = self.bins()
        if not values.size:
            return float("nan")
        values, counts = np.append(0.0, values), np.append(self._zeros, counts)
        largest = values[np.searchsorted(np.cumsum(counts), (1 - _BRIGHTEST) * counts.sum())]
        # Where fewer than that are above 0, all of them count.
        values = np.minimum(values, largest) if largest > 0 else values
        below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
        sums = np.cumsum(counts * values)
        low = np.divide(sums[:-1], below, out=np.zeros(len(below)), where=below > 0)
        high = (sums[-1] - sums[:-1]) / above
        best = int(np.argmax(below * above.astype(np.float64) * (high - low) ** 2))
        return float(low[best] + high[best]) / 2

    def _values(self, bins: NDArray[np.int64]) -> NDArray[np.float64]:
        """Middles of bins."""
        if self.exact:
            return bins.astype(np.float64)
        edges = (np.stack([bins, bins + 1]).astype(np.uint32) << _DROPPED_BITS).view(np.float32)
        return edges.astype(np.float64).mean(axis=0)


def channels_in_work(histogram: Histogram, n_channels: int) -> list[range]:
    """Cut channels into groups that are counted together, so that many do not fill the memory.

    ``histogram`` is one like theirs: where values are as far apart as can be, those of floats take 32 MiB each.
    """
    size = max(1, _WORK_BYTES // (8 * (2**16 if histogram.exact else 2**31 >> _DROPPED_BITS)))
    return [range(start, min(start + size, n_channels)) for start in range(0, n_channels, size)]


def normalize(image: NDArray, factors: NDArray) -> NDArray[np.float32]:
    """Divide each channel by its factor and clip to [0, 1].

    ``image`` is (c, y, x) of any real dtype, finite; ``factors`` (c,) lie between 1 / ``LARGEST`` and ``LARGEST``; a
    channel whose factor is NaN becomes 0. Returns float32 of the same shape.
    """
    inverse = np.divide(1.0, factors, out=np.zeros(len(factors)), where=np.asarray(factors) > 0)
    scaled = image.astype(np.float32) * inverse.astype(np.float32)[:, None, None]
    return np.clip(scaled, 0, 1, out=scaled)


def square_means(image: NDArray, inside: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Mean intensity of the cells' pixels in each square of a window: how bright cells are, without parting them.

    ``image`` is (c, y, x), finite; ``inside`` (y, x) are the pixels of cells; ``side`` is that of a square in pixels.
    Squares start at the window's corner; those at its far edges may be smaller. Returns float32 (c, n), of the squares
    of which cells cover at least a quarter (of the fullest one, where none is full).
    """
    rows, cols = (np.arange(0, extent, side) for extent in inside.shape)

    def sums(values: NDArray) -> NDArray[np.float32]:
        return np.add.reduceat(np.add.reduceat(values.astype(np.float32), rows, axis=0), cols, axis=1)

    weight = sums(inside)
    covered = weight / sums(np.ones(inside.shape))
    used = (covered > 0) & (covered >= _COVERED * covered.max())
    # Channel by channel, so that no copy of the whole window is made.
    return np.stack([sums(np.where(inside, channel, 0))[used] / weight[used] for channel in image])
