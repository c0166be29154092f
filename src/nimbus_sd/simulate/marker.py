"""Who is positive for a marker, where in the cell it sits and how bright it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.simulate.tissue import Tissue, smooth_field

Localization = Literal["membrane", "cytoplasm", "nucleus", "granules", "cell"]
LOCALIZATIONS: tuple[Localization, ...] = ("membrane", "cytoplasm", "nucleus", "granules", "cell")


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
    contact
        Positive cells lie along the borders of nests instead of filling them.
    spread
        Sigma of the log-normal amplitude of positive cells.
    dim_share
        Share of positive cells that are 2 to 5 times dimmer than the rest.
    unspecific
        Level of the cell-shaped signal that negative cells have too.
    unspecific_in
        Where in the cell that signal sits.
    fill
        Share of the signal that is seen over the whole cell (section thickness, a second place of the marker).
    width
        Width of the membrane in um.
    patchiness
        0: even; 1: patches and gaps along the membrane, texture in the cytoplasm or nucleus.
    polarity
        0: all around; 1: on one side of the cell only.
    overlap
        Share of a cell's signal that shines through a cell lying on top of it.
    fibres
        Level of extracellular signal.
    crosstalk
        Level of another marker's signal.
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
    contact: bool = False

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
        Per cell (row 0 unused), bool: the hidden state.
    own
        Specific signal at each pixel that belongs to the cell on top, float32.
    rest
        Everything else there: signal from below, unspecific and extracellular signal, float32.
    """

    positive: NDArray[np.bool_]
    own: NDArray[np.float32]
    rest: NDArray[np.float32]


def draw_marker(rng: np.random.Generator) -> Marker:
    """Draw a marker at random: the variety that the bundled model is trained on."""
    # Most markers of a panel are on a minority of cells.
    kind = rng.choice(6, p=[0.15, 0.1, 0.45, 0.18, 0.06, 0.06])
    prevalence = float(
        (
            lambda: 0.0,
            lambda: rng.uniform(0.001, 0.01),
            lambda: np.exp(rng.uniform(np.log(0.01), np.log(0.25))),
            lambda: rng.uniform(0.2, 0.6),
            lambda: rng.uniform(0.6, 0.95),
            lambda: 1.0,
        )[kind]()
    )
    # Where nobody stands out, only contrast with the surroundings tells: those images stay unambiguous, and most of
    # them are nuclear counterstains.
    everybody = prevalence > 0.8
    localization = LOCALIZATIONS[
        rng.choice(5, p=[0.2, 0.08, 0.6, 0.04, 0.08] if everybody else [0.5, 0.14, 0.15, 0.11, 0.1])
    ]
    unspecific_in = LOCALIZATIONS[rng.choice(5, p=[0.05, 0.2, 0.35, 0.08, 0.32])]
    # A haze of all cells is common, most of all in nuclei. As bright as positive ones, or alone in an image and well
    # above its background, it would be a counterstain.
    top = 0.03 if not prevalence else 0.1 if everybody else 0.25 if unspecific_in == localization else 0.35
    low = 0.04 if not everybody and prevalence and rng.random() < 0.8 else 0.004
    return Marker(
        localization=localization,
        prevalence=prevalence,
        # Nests and sheets mostly hold some cells of another kind.
        clustering=float(rng.choice([0.0, rng.uniform(0, 0.8), 1.0], p=[0.2, 0.7, 0.1])),
        spread=float(rng.uniform(0.1, 0.45 if everybody else 0.5)),
        dim_share=float(rng.choice([0.0, rng.uniform(0, 0.15)], p=[0.6, 0.4])),
        unspecific=float(np.exp(rng.uniform(np.log(low), np.log(top)))),
        unspecific_in=unspecific_in,
        fill=float(0.4 * rng.random() ** 2) if localization == "membrane" or rng.random() < 0.3 else 0.0,
        width=float(rng.uniform(0.35, 1.5)),
        patchiness=float(rng.uniform(0, 1)),
        polarity=float(rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.85, 0.15])),
        overlap=float(rng.uniform(0, 0.6)),
        fibres=float(rng.choice([0.0, rng.uniform(0.1, 1.2)], p=[0.75, 0.25])),
        crosstalk=float(rng.choice([0.0, rng.uniform(0.03, 0.15)], p=[0.7, 0.3])),
        contact=bool(rng.random() < 0.1),
    )


def stain(tissue: Tissue, marker: Marker, rng: np.random.Generator, positive: NDArray[np.bool_] | None = None) -> Stain:
    """Stain a tissue.

    Parameters
    ----------
    tissue
        Geometry from :func:`~nimbus_sd.simulate.draw_tissue`.
    marker
        How the marker stains.
    rng
        Source of all randomness.
    positive
        Who is positive, per cell (row 0 unused); drawn by the marker's prevalence and clustering by default.

    Returns
    -------
    Stain
    """
    positive = _states(tissue, marker, rng) if positive is None else positive
    n = len(positive)
    amplitude = np.exp(rng.normal(0, marker.spread, n))
    dim = rng.random(n) < marker.dim_share
    amplitude[dim] /= rng.uniform(2, 5, int(dim.sum()))
    amplitude = np.where(positive, amplitude, 0).astype(np.float32)

    pattern = _pattern(tissue, marker.localization, marker, rng)
    own = amplitude[tissue.owner] * pattern

    seen_through = (
        (rng.random(n) < 0.25).astype(np.float32) * marker.overlap * rng.uniform(0.3, 1, n).astype(np.float32)
    )
    unspecific = marker.unspecific * np.exp(rng.normal(0, rng.uniform(0.15, 0.7), n)).astype(np.float32)
    unspecific[0] = 0
    rest = (amplitude * seen_through)[tissue.under] * np.float32(0.6)
    fill = 0.4 if marker.unspecific_in == "membrane" else 0.0
    plain = Marker(marker.unspecific_in, 1.0, patchiness=0.4, fill=fill)
    rest += unspecific[tissue.owner] * _pattern(tissue, marker.unspecific_in, plain, rng)
    if marker.fibres:
        texture = np.abs(smooth_field(rng, tissue.shape, rng.uniform(3, 8) / tissue.pixel_size))
        region = smooth_field(rng, tissue.shape, 60 / tissue.pixel_size) > rng.uniform(0, 1.5)
        rest += marker.fibres * np.exp(-((texture / 0.25) ** 2)) * (region & (tissue.depth < 0.8) & ~tissue.glass)
    if marker.crosstalk:
        other = Marker(
            LOCALIZATIONS[rng.integers(len(LOCALIZATIONS))],
            prevalence=float(np.exp(rng.uniform(np.log(0.02), np.log(0.6)))),
            clustering=float(rng.random()),
            fill=0.1,
        )
        rest += marker.crosstalk * stain(tissue, other, rng).own
    return Stain(positive, own, rest.astype(np.float32))


def _states(tissue: Tissue, marker: Marker, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Pick the given share of cells: a smooth field and the compartment make clusters, noise scatters them."""
    n = tissue.n_cells + 1
    height, width = tissue.shape
    field = smooth_field(rng, tissue.shape, rng.uniform(25, 120) / tissue.pixel_size)
    row, col = (tissue.centre / tissue.pixel_size).astype(int).T
    inside = field[np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)]
    lineage = inside + rng.normal(0, 1, 3)[tissue.kind]
    if marker.contact:
        inside = 1 - 3 * np.abs(inside)
    score = marker.clustering * lineage + (1.05 - marker.clustering) * rng.standard_normal(n)
    visible = np.unique(tissue.owner)
    visible = visible[visible > 0]
    positive = np.zeros(n, bool)
    if visible.size:
        wanted = marker.prevalence * visible.size
        count = int(wanted) + int(rng.random() < wanted % 1)
        if count:
            positive = score >= np.sort(score[visible])[-count]
    positive[0] = False
    return positive


def _pattern(tissue: Tissue, where: Localization, marker: Marker, rng: np.random.Generator) -> NDArray[np.float32]:
    """Relative signal of a positive cell at each pixel, about 1 where it is brightest."""
    in_cell = (tissue.owner > 0).astype(np.float32)
    um = 1 / tissue.pixel_size
    if where == "nucleus":
        soft = np.clip(tissue.nucleus_depth / 0.8, 0, 1)
        speckles = smooth_field(rng, tissue.shape, rng.uniform(1.2, 3) * um)
        value = soft * np.exp(marker.patchiness * 0.5 * speckles)
    elif where == "membrane":
        patches = smooth_field(rng, tissue.shape, rng.uniform(2, 6) * um)
        along = 1 - marker.patchiness + marker.patchiness * 2 / (1 + np.exp(-2.5 * patches))
        value = np.exp(-tissue.depth / marker.width) * along
        if marker.polarity:
            towards = rng.uniform(-np.pi, np.pi, tissue.n_cells + 1).astype(np.float32)[tissue.owner]
            value *= 1 - marker.polarity + marker.polarity * np.clip(np.cos(tissue.angle - towards) + 0.3, 0, 1)
    else:
        texture = np.exp(marker.patchiness * 0.4 * smooth_field(rng, tissue.shape, rng.uniform(1.5, 5) * um))
        value = texture
        if where != "cell":
            value = texture * np.where(tissue.nucleus, np.float32(rng.uniform(0.1, 0.5)), np.float32(1))
        if where == "granules":
            spots = smooth_field(rng, tissue.shape, rng.uniform(1.2, 2.5) * um)
            value = value * (0.05 + np.clip(spots - rng.uniform(0.4, 1.0), 0, 1))
    return np.asarray((value + marker.fill) * in_cell, np.float32)
