"""The corpus of real tissue: its fields, its channels, and which of its cells are kept for judging only.

Reads the folder that the README of this directory describes. A field that is held out, or the held-out part of a field
that stands alone, is never seen by training, by gates or by a choice: it holds the gold labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

#: um per pixel of each data set.
PIXEL_SIZE = {
    "codex_lymphoid": 0.5,
    "codex_intestine": 0.38,
    "vectra_lymphoid": 0.5,
    "mif_breast": 0.5,
    "imc_spleen": 1.0,
    "mibi_breast": 0.49,
    "mibi_lymphoid": 0.5,
}
#: What follows the name of a data set whose authors took the noise away, where it is trained on beside the raw one.
DENOISED = "_denoised"
#: Fields that are held out whole.
HELD_OUT = {
    "mif_breast": ["B09"],
    "imc_spleen": ["r6", "r12", "r20"],
    "mibi_breast": [
        *("Point2204", "Point2314_normal", "Point2328", "Point3115"),
        *("Point4106", "Point4132", "Point5309", "Point6203"),
    ],
    "mibi_lymphoid": ["Point3", "Point7"],
}
#: Where a data set is one field: cells whose centre lies right of this share of its width are held out.
CUT = {"codex_lymphoid": 0.66, "codex_intestine": 0.75, "vectra_lymphoid": 0.6}


@dataclass(frozen=True)
class Field:
    """One image with its cells.

    Parameters
    ----------
    dataset, name
        Of which data set, and its folder in it.
    folder, file
        Where its image lies.
    """

    dataset: str
    name: str
    folder: Path
    file: str = "image.ome.tif"

    @cached_property
    def channels(self) -> list[str]:
        """Names of the channels, in the order of the image."""
        with tifffile.TiffFile(self.folder / self.file) as file:
            return [unescape(name) for name in re.findall(r'<Channel[^>]*Name="([^"]*)"', file.ome_metadata or "")]

    @cached_property
    def image(self) -> NDArray:
        """Raw channels, (c, y, x)."""
        return tifffile.imread(self.folder / self.file)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Cells, (y, x), 0 for background."""
        path = self.folder / "labels.tif"
        path = path if path.exists() else self.folder / "labels_expert1.tif"
        return tifffile.imread(path).astype(np.int64)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """Ids of the cells, ascending, (n,)."""
        return np.setdiff1d(np.unique(self.labels), 0)

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """Centre of each cell as y, x, (n, 2)."""
        return np.array(ndimage.center_of_mass(self.labels > 0, self.labels, self.cells))

    @cached_property
    def held_out(self) -> NDArray[np.bool_]:
        """Which cells are for judging only, (n,)."""
        if self.dataset in CUT:
            return self.centres[:, 1] >= CUT[self.dataset] * self.labels.shape[1]
        return np.full(len(self.cells), self.name in HELD_OUT[self.dataset.removesuffix(DENOISED)])

    @property
    def pixel_size(self) -> float:
        """In um."""
        return PIXEL_SIZE[self.dataset.removesuffix(DENOISED)]

    @property
    def denoised(self) -> Field | None:
        """The same field after its authors took the noise away, where they did."""
        there = (self.folder / "denoised.ome.tif").exists()
        return Field(self.dataset + DENOISED, self.name, self.folder, "denoised.ome.tif") if there else None

    def means(self, channel: str) -> NDArray[np.float64]:
        """Mean intensity of each cell in a channel, (n,)."""
        return np.asarray(
            ndimage.mean(self.image[self.channels.index(channel)].astype(np.float64), self.labels, self.cells)
        )


def fields(data: Path, dataset: str) -> Iterator[Field]:
    """Go through the fields of a data set, by name."""
    for path in sorted((data / dataset).rglob("image.ome.tif")):
        name = path.parent.name if path.parent.name != dataset else "field"
        yield Field(dataset, name, path.parent)
