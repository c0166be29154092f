"""Staining: which cells are positive for a marker, where in the cell it sits and how bright it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nimbus_sd.simulate.tissue import Image, Tissue, smooth_field

Localization = Literal["membrane", "cytoplasm", "nucleus", "granules", "cell"]
LOCALIZATIONS: tuple[Localization, ...] = get_args(Localization)


@dataclass(frozen=True)
class Marker:
    """How a marker stains. Levels are relative to a typical positive cell's brightest parts (1).

    Parameters
    ----------
    localization
        ``"membrane"``, ``"cytoplasm"``, ``"nucleus"``, ``"granules"`` or ``"cell"`` (diffuse).
    prevalence
        Share of positive cells, in [0, 1].
    clustering
        0: scattered single cells; 1: coherent nests and sheets.
    spread, dim_share
        Sigma of the log-normal amplitude of positive cells, and share of those that are 2 to 5 times dimmer.
    unspecific, unspecific_in
        Level of the cell-shaped signal that negative cells have too, and its localization.
    fill
        Share of the signal that is seen over the whole cell (section thickness, a second localization).
    width
        Width of the membrane in um.
    patchiness
        0: even; 1: patches and gaps along the membrane, texture in the cytoplasm or nucleus.
    polarity
        0: membranes stain all around; 1: on one side of the cell only.
    overlap
        Share of a cell's signal that shines through a cell lying on top of it.
    fibres, crosstalk
        Levels of extracellular signal and of another marker's signal.
    """

    localization: Localization
    prevalence: float
    clustering: float = 0.5
    spread: float = 0.4
    dim_share: float = 0.1
    unspecific: float = 0.03
    unspecific_in: Localization = "cell"
    fill: float = 0.0
    width: float = 0.7
    patchiness: float = 0.3
    polarity: float = 0.0
    overlap: float = 0.3
    fibres: float = 0.0
    crosstalk: float = 0.0

    def __post_init__(self) -> None:
        for where in (self.localization, self.unspecific_in):
            if where not in LOCALIZATIONS:
                raise ValueError(f"A marker cannot be located in {where!r}; choose of {', '.join(LOCALIZATIONS)}.")
        if not 0 <= self.prevalence <= 1:
            raise ValueError(f"`prevalence` is {self.prevalence}; it is a share, from 0 to 1.")


@dataclass(frozen=True)
class Stain:
    """Expected signal of a marker on a tissue, before optics and detector.

    Parameters
    ----------
    positive
        Whether each cell is positive, bool of shape (n_cells + 1,); row 0 unused.
    specific
        Specific signal of the cell on top, float32 (y, x).
    other
        Everything else: signal from below, unspecific and extracellular signal, float32 (y, x).
    """

    positive: NDArray[np.bool_]
    specific: Image
    other: Image

    @property
    def signal(self) -> Image:
        """Return the sum of both, float32 (y, x), as :func:`expose` takes it."""
        return self.specific + self.other


def stain(tissue: Tissue, marker: Marker, rng: Generator, positive: NDArray[np.bool_] | None = None) -> Stain:
    """Stain a tissue.

    Parameters
    ----------
    tissue, marker, rng
        The geometry, how the marker stains, and the source of all randomness.
    positive
        Which cells are positive, bool of shape (n_cells + 1,), row 0 unused; by default drawn by the marker's
        prevalence and clustering.

    Returns
    -------
    Which cells are ``positive``, their ``specific`` signal, ``other`` signal, and the sum of both as ``signal``.
    """
    positive = _draw_positive(tissue, marker, rng) if positive is None else positive
    n = len(positive)
    amplitude = np.exp(rng.normal(0, marker.spread, n))
    dim = rng.random(n) < marker.dim_share
    amplitude[dim] /= rng.uniform(2, 5, int(dim.sum()))
    amplitude = np.where(positive, amplitude, 0).astype(np.float32)

    specific = amplitude[tissue.owner] * _pattern(tissue, marker, rng)

    shines = (rng.random(n) < 0.25).astype(np.float32)
    seen_through = shines * marker.overlap * rng.uniform(0.3, 1, n).astype(np.float32)
    unspecific = marker.unspecific * np.exp(rng.normal(0, rng.uniform(0.15, 0.7), n)).astype(np.float32)
    unspecific[0] = 0
    other = (amplitude * seen_through)[tissue.under] * np.float32(0.6)
    fill = 0.4 if marker.unspecific_in == "membrane" else 0.0
    plain = Marker(marker.unspecific_in, 1.0, patchiness=0.4, fill=fill)
    other += unspecific[tissue.owner] * _pattern(tissue, plain, rng)
    if marker.fibres:
        texture = np.abs(smooth_field(rng, tissue.shape, rng.uniform(3, 8) / tissue.pixel_size))
        region = smooth_field(rng, tissue.shape, 60 / tissue.pixel_size) > rng.uniform(0, 1.5)
        other += marker.fibres * np.exp(-((texture / 0.25) ** 2)) * (region & (tissue.depth < 0.8) & ~tissue.glass)
    if marker.crosstalk:
        where = LOCALIZATIONS[rng.integers(len(LOCALIZATIONS))]
        share = float(np.exp(rng.uniform(np.log(0.02), np.log(0.6))))
        leaking = Marker(where, share, clustering=float(rng.random()), fill=0.1)
        other += marker.crosstalk * stain(tissue, leaking, rng).specific
    return Stain(positive, specific, other.astype(np.float32))


def _draw_positive(tissue: Tissue, marker: Marker, rng: Generator) -> NDArray[np.bool_]:
    """Pick the marker's share of cells: a smooth field and the compartment make clusters, noise scatters them."""
    n = tissue.n_cells + 1
    place = tissue.at_centres(smooth_field(rng, tissue.shape, rng.uniform(25, 120) / tissue.pixel_size))
    lineage = place + rng.normal(0, 1, 3)[tissue.kind]
    score = marker.clustering * lineage + (1.05 - marker.clustering) * rng.standard_normal(n)
    visible = np.setdiff1d(tissue.owner, 0)
    positive = np.zeros(n, bool)
    if visible.size:
        wanted = marker.prevalence * visible.size
        count = int(wanted) + int(rng.random() < wanted % 1)
        if count:
            positive = score >= np.sort(score[visible])[-count]
    positive[0] = False
    return positive


def _pattern(tissue: Tissue, marker: Marker, rng: Generator) -> Image:
    """Relative signal of a positive cell at each pixel, about 1 where it is brightest."""
    in_cell = (tissue.owner > 0).astype(np.float32)
    um = 1 / tissue.pixel_size
    if marker.localization == "nucleus":
        soft = np.clip(tissue.nucleus_depth / 0.8, 0, 1)
        speckles = smooth_field(rng, tissue.shape, rng.uniform(1.2, 3) * um)
        value = soft * np.exp(marker.patchiness * 0.5 * speckles)
    elif marker.localization == "membrane":
        patches = smooth_field(rng, tissue.shape, rng.uniform(2, 6) * um)
        along = 1 - marker.patchiness + marker.patchiness * 2 / (1 + np.exp(-2.5 * patches))
        value = np.exp(-tissue.depth / marker.width) * along
        if marker.polarity:
            towards = rng.uniform(-np.pi, np.pi, tissue.n_cells + 1).astype(np.float32)[tissue.owner]
            value *= 1 - marker.polarity + marker.polarity * np.clip(np.cos(tissue.angle - towards) + 0.3, 0, 1)
    else:
        texture = np.exp(marker.patchiness * 0.4 * smooth_field(rng, tissue.shape, rng.uniform(1.5, 5) * um))
        value = texture
        if marker.localization != "cell":
            value = texture * np.where(tissue.nucleus, np.float32(rng.uniform(0.1, 0.5)), np.float32(1))
        if marker.localization == "granules":
            spots = smooth_field(rng, tissue.shape, rng.uniform(1.2, 2.5) * um)
            value = value * (0.05 + np.clip(spots - rng.uniform(0.4, 1.0), 0, 1))
    return np.asarray((value + marker.fill) * in_cell, np.float32)
