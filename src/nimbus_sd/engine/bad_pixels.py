"""Pixels that are not what an image should hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.pixels import LARGEST


@dataclass
class BadPixels:
    """Pixels, per channel, that are not what an image should hold; the caller warns once about all of them."""

    not_finite: Counter[str] = field(default_factory=Counter)
    negative: Counter[str] = field(default_factory=Counter)

    def clean(
        self, image: NDArray, names: Sequence[str], core: tuple[slice, slice] = (slice(None), slice(None))
    ) -> NDArray:
        """Replace NaN and what is not below ``LARGEST`` by 0, in a copy; count it, and negative values, in the core."""
        if image.dtype.kind in "ub":
            return image
        if image.dtype.kind == "f":
            finite = np.abs(image) < LARGEST
            if not finite.all():
                image = np.where(finite, image, image.dtype.type(0))
                self.not_finite.update(_counts(~finite, names, core))
        self.negative.update(_counts(image < 0, names, core))
        return image

    def add(self, names: Sequence[str], not_finite: NDArray[np.int64], negative: NDArray[np.int64]) -> None:
        """Add counts, one per channel."""
        self.not_finite.update(dict(zip(names, not_finite.tolist(), strict=True)))
        self.negative.update(dict(zip(names, negative.tolist(), strict=True)))


def _counts(flags: NDArray[np.bool_], names: Sequence[str], core: tuple[slice, slice]) -> dict[str, int]:
    return {name: int(np.count_nonzero(channel[core])) for name, channel in zip(names, flags, strict=True)}
