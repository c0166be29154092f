"""Looks of the common platforms. Only for validation and benchmarks: nothing is trained on these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nimbus_sd.simulate import Detector, Marker, Segmentation


@dataclass(frozen=True)
class Look:
    """One image's settings.

    Parameters
    ----------
    pixel_size, radius
        Side of a pixel and median radius of cells, in um.
    density
        Share of places that hold a cell.
    marker, detector, segmentation
        What is stained, how the image is taken and what the mask shows.
    """

    pixel_size: float
    radius: float
    density: float
    marker: Marker
    detector: Detector
    segmentation: Segmentation


def draw_look(platform: str, rng: np.random.Generator) -> Look:
    """Draw an image's settings as they are usual on a platform, one of ``PLATFORMS``."""
    if platform not in PLATFORMS:
        raise ValueError(f"There is no platform {platform!r}; choose of {', '.join(PLATFORMS)}.")
    return PLATFORMS[platform](rng)


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _marker(rng: np.random.Generator, unspecific: tuple[float, float], crosstalk: float = 0.0) -> Marker:
    """Draw a lineage or functional marker: rarely everywhere, in some cells dim, with what it stains besides."""
    places = ("membrane", "cytoplasm", "nucleus", "granules")
    return Marker(
        localization=places[rng.choice(4, p=[0.6, 0.15, 0.15, 0.1])],
        prevalence=_log(rng, 0.01, 0.4),
        clustering=float(rng.uniform(0, 1)),
        spread=float(rng.uniform(0.4, 0.8)),
        dim_share=float(rng.uniform(0.2, 0.5)),
        unspecific=_log(rng, *unspecific),
        unspecific_in=("cell", "nucleus", "cytoplasm")[rng.choice(3, p=[0.5, 0.2, 0.3])],
        fill=float(rng.uniform(0.08, 0.3)),
        width=float(rng.uniform(0.4, 0.9)),
        patchiness=float(rng.uniform(0.2, 0.8)),
        polarity=float(rng.choice([0.0, rng.uniform(0.4, 0.9)], p=[0.9, 0.1])),
        overlap=float(rng.uniform(0.3, 0.8)),
        fibres=float(rng.choice([0.0, rng.uniform(0.2, 0.8)], p=[0.7, 0.3])),
        crosstalk=crosstalk,
    )


def _codex(rng: np.random.Generator) -> Look:
    background = _log(rng, 0.02, 0.15)
    return Look(
        float(rng.choice([0.377, 0.5])),
        float(rng.uniform(3.4, 4.6)),
        0.95,
        _marker(rng, (0.06, 0.3)),
        Detector(
            gain=_log(rng, 60, 600),
            blur=float(rng.uniform(0.4, 0.8)),
            tail=float(rng.uniform(0.05, 0.2)),
            background=background,
            read_noise=0.01,
            clumps=_log(rng, 0.2, 3),
            subtract=float(rng.choice([0.0, background])),
            shift=(float(rng.normal(0, 0.3)), float(rng.normal(0, 0.3))),
        ),
        Segmentation(
            "grown" if rng.random() < 0.5 else "nucleus",
            float(rng.uniform(0.4, 1.2)),
            wobble=float(rng.uniform(0.3, 0.7)),
            merged=0.03,
        ),
    )


def _cycif(rng: np.random.Generator) -> Look:
    return Look(
        0.65,
        float(rng.uniform(4.5, 6.5)),
        0.85,
        _marker(rng, (0.04, 0.15)),
        Detector(
            gain=_log(rng, 200, 2000),
            blur=float(rng.uniform(0.4, 0.8)),
            tail=float(rng.uniform(0.1, 0.25)),
            background=_log(rng, 0.05, 0.4),
            read_noise=0.01,
            clumps=_log(rng, 0.2, 3),
            shading=float(rng.uniform(0.05, 0.2)),
            shift=(float(rng.normal(0, 0.7)), float(rng.normal(0, 0.7))),
        ),
        Segmentation("grown", float(rng.uniform(1.0, 2.5)), wobble=0.3, merged=0.03, split=0.02),
    )


def _imc(rng: np.random.Generator) -> Look:
    return Look(
        1.0,
        float(rng.uniform(4.5, 6.0)),
        0.9,
        _marker(rng, (0.05, 0.25)),
        Detector(
            counting=True,
            gain=_log(rng, 1, 10),
            blur=float(rng.uniform(0.4, 0.55)),
            tail=0.0,
            background=_log(rng, 0.005, 0.05),
            clumps=_log(rng, 0.05, 0.5),
            hot=float(rng.choice([0.0, 3e-4])),
        ),
        Segmentation("cell" if rng.random() < 0.4 else "grown", 1.5, wobble=0.8, merged=0.06, split=0.04),
    )


def _mibi(rng: np.random.Generator) -> Look:
    return Look(
        float(rng.choice([0.39, 0.49])),
        float(rng.uniform(4.0, 6.0)),
        0.85,
        _marker(rng, (0.05, 0.25)),
        Detector(
            counting=True,
            gain=_log(rng, 0.3, 4),
            blur=float(rng.uniform(0.2, 0.4)),
            tail=0.0,
            background=_log(rng, 0.002, 0.04),
            clumps=_log(rng, 0.05, 0.5),
            hot=float(rng.choice([0.0, 2e-4])),
            cutoff=float(rng.choice([0.0, 0.05])),
        ),
        Segmentation("cell", wobble=0.8, merged=0.05, split=0.05, resize=float(rng.uniform(-0.6, 1.0))),
    )


def _vectra(rng: np.random.Generator) -> Look:
    return Look(
        0.5,
        float(rng.uniform(3.8, 5.5)),
        0.95,
        _marker(rng, (0.05, 0.3), crosstalk=float(rng.choice([0.0, rng.uniform(0.03, 0.12)]))),
        Detector(
            gain=_log(rng, 80, 800),
            blur=float(rng.uniform(0.5, 0.9)),
            tail=float(rng.uniform(0.05, 0.2)),
            background=_log(rng, 0.03, 0.25),
            read_noise=0.005,
            clumps=_log(rng, 0.05, 0.6),
        ),
        Segmentation(("cell", "grown")[rng.choice(2)], float(rng.uniform(0.8, 1.5)), wobble=0.7, merged=0.05),
    )


PLATFORMS: dict[str, Callable[[np.random.Generator], Look]] = {
    "CODEX": _codex,
    "CyCIF": _cycif,
    "IMC": _imc,
    "MIBI": _mibi,
    "Vectra": _vectra,
}
