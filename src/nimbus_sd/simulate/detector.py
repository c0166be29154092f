"""From expected signal to an image: optics, background, noise and the damage that real images have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nimbus_sd.simulate import damage
from nimbus_sd.simulate.marker import Marker
from nimbus_sd.simulate.tissue import Tissue, smooth_field


@dataclass(frozen=True)
class Detector:
    """How an image is taken. Levels are relative to a typical positive cell (1), lengths in um.

    Parameters
    ----------
    counting
        Ion counting (MIBI, IMC) instead of a camera.
    gain
        Counts, or photons, at level 1.
    blur
        Sigma of the point spread.
    tail
        Share of light in a weak halo of ``tail_width`` (sigma).
    background
        Smooth autofluorescence.
    read_noise
        Standard deviation of the camera's noise.
    clumps
        Aggregates per 100 x 100 um.
    dots
        Bright dots under 1 um, per 100 x 100 um.
    hot
        Share of hot pixels.
    shading
        Strength of vignetting, seams and stripes.
    cutoff
        Level up to which the lab's pipeline has set pixels to 0.
    subtract
        Level that the lab's pipeline has subtracted.
    shift
        Registration shift (y, x).
    defocus
        Sigma of a further blur, in patches.
    fold
        Share by which light grows along a fold of the tissue.
    edge
        Level of stain gathered at the tissue's edge.
    seam
        Pixels by which a stitching is off.
    compression
        Level to which a lossy compression rounds.
    quantum
        Step between grey levels, where an image was stored with few of them.
    """

    counting: bool = False
    gain: float = 300.0
    blur: float = 0.5
    tail: float = 0.05
    tail_width: float = 5.0
    background: float = 0.05
    read_noise: float = 0.01
    clumps: float = 0.1
    dots: float = 0.0
    hot: float = 0.0
    shading: float = 0.0
    cutoff: float = 0.0
    subtract: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    defocus: float = 0.0
    fold: float = 0.0
    edge: float = 0.0
    seam: int = 0
    compression: float = 0.0
    quantum: float = 0.0


def draw_detector(rng: np.random.Generator, marker: Marker | None = None) -> Detector:
    """Draw a way of taking images at random: the variety that the bundled model is trained on.

    Parameters
    ----------
    rng
        Source of all randomness.
    marker
        What is seen; sets limits to the background of a camera's image. What glows unspecifically in cells glows
        between them too, at a fifth or more of that level. Where nobody is positive it is nearly as bright or brighter,
        and where all are it is under a third of their signal, or nobody could tell the two kinds of image apart.
    """
    shift = rng.normal(0, rng.choice([0.0, 0.8]), 2).clip(-2.5, 2.5)
    fold = float(rng.choice([0.0, rng.uniform(0.3, 1.5)], p=[0.95, 0.05]))
    edge = float(rng.choice([0.0, rng.uniform(0.1, 0.8)], p=[0.85, 0.15]))
    clumps = float(rng.choice([0.0, np.exp(rng.uniform(np.log(0.05), np.log(4)))], p=[0.4, 0.6]))
    if rng.random() < 0.3:
        return Detector(
            counting=True,
            gain=float(np.exp(rng.uniform(np.log(0.3), np.log(12)))),
            blur=float(rng.uniform(0.15, 0.5)),
            tail=0.0,
            background=float(rng.choice([0.0, np.exp(rng.uniform(np.log(0.002), np.log(0.08)))])),
            clumps=clumps / 4,
            hot=float(rng.choice([0.0, 3e-4])),
            cutoff=float(rng.choice([0.0, 0.05])),
            shift=(float(shift[0]), float(shift[1])),
            fold=fold,
            edge=edge,
        )
    # At times the background is as bright as the signal itself.
    background = float(rng.uniform(0.4, 1.1) if rng.random() < 0.12 else np.exp(rng.uniform(np.log(0.01), np.log(0.4))))
    if marker:
        glow = marker.unspecific * float(rng.uniform(0.2, 1))
        background = max(background, 4 * glow if marker.prevalence == 0 else glow)
        if marker.prevalence > 0.8:
            background = min(background, 0.3)
    haze = rng.random() < 0.2
    return Detector(
        gain=float(np.exp(rng.uniform(np.log(15), np.log(3000)))),
        blur=float(rng.uniform(0.25, 1.2)),
        tail=float(rng.uniform(0.2, 0.5) if haze else rng.uniform(0.0, 0.2)),
        tail_width=float(rng.uniform(2.5, 9)),
        background=background,
        read_noise=float(np.exp(rng.uniform(np.log(0.001), np.log(0.05)))),
        clumps=clumps,
        dots=float(rng.choice([0.0, np.exp(rng.uniform(np.log(5), np.log(300)))], p=[0.75, 0.25])),
        hot=float(rng.choice([0.0, 2e-4], p=[0.8, 0.2])),
        shading=float(rng.choice([0.0, rng.uniform(0.05, 0.3)])),
        cutoff=float(rng.choice([0.0, rng.uniform(0.02, 0.2)], p=[0.85, 0.15])),
        subtract=float(rng.choice([0.0, background * rng.uniform(0.5, 1.2)], p=[0.6, 0.4])),
        shift=(float(shift[0]), float(shift[1])),
        defocus=float(rng.choice([0.0, rng.uniform(0.5, 2.0)], p=[0.85, 0.15])),
        fold=fold,
        edge=edge,
        seam=int(rng.integers(1, 4)) if rng.random() < 0.05 else 0,
        quantum=float(rng.choice([0.0, np.exp(rng.uniform(np.log(0.004), np.log(0.05)))], p=[0.75, 0.25])),
        compression=float(rng.choice([0.0, rng.uniform(0.01, 0.08)], p=[0.92, 0.08])),
    )


def expose(
    expected: NDArray[np.float32], tissue: Tissue, detector: Detector, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Take an image.

    Parameters
    ----------
    expected
        Signal per pixel, shape (y, x), from :class:`~nimbus_sd.simulate.Stain` (``own + rest``).
    tissue
        The geometry that it was drawn on.
    detector
        How the image is taken.
    rng
        Source of all randomness.

    Returns
    -------
    float32 array of shape (y, x), not negative, in units of the typical positive signal (or counts over ``gain``).
    """
    um = 1 / tissue.pixel_size
    shape = tissue.shape
    light = expected + detector.background * _autofluorescence(tissue, rng)
    if detector.fold:
        light = light * damage.fold(tissue, detector.fold, rng)
    if detector.edge:
        light = light + damage.edge_glow(tissue, detector.edge)
    clumps = rng.poisson(detector.clumps * shape[0] * shape[1] / (100 * um) ** 2)
    if clumps:
        light = light + damage.clumps(shape, clumps, um, rng)
    dots = rng.poisson(detector.dots * shape[0] * shape[1] / (100 * um) ** 2)
    if dots:
        light = light + damage.dots(shape, dots, um, rng)
    sharp = ndimage.gaussian_filter(light, detector.blur * um, mode="nearest", truncate=3)
    if detector.tail:
        sharp = (1 - detector.tail) * sharp + detector.tail * _wide_blur(light, detector.tail_width * um)
    if detector.defocus:
        sharp = damage.defocus(sharp, detector.defocus, um, rng)
    if any(detector.shift):
        sharp = ndimage.shift(sharp, [s * um for s in detector.shift], order=1, mode="nearest")
    if detector.shading:
        sharp = sharp * damage.shading(shape, detector.shading, rng)
    if detector.seam:
        sharp = damage.seam(sharp, detector.seam, rng)
    image = rng.poisson(np.maximum(sharp, 0) * detector.gain).astype(np.float32) / np.float32(detector.gain)
    if detector.hot:
        hot = rng.random(shape) < detector.hot
        extra = rng.exponential(3.0 if detector.counting else 1.0, int(hot.sum()))
        image[hot] += np.ceil(extra) / detector.gain if detector.counting else extra
    if not detector.counting:
        image += rng.normal(0, detector.read_noise, shape).astype(np.float32)
        image -= detector.subtract
    if detector.compression:
        image = damage.compress(image, detector.compression)
    if detector.quantum:
        image = np.rint(image / detector.quantum) * np.float32(detector.quantum)
    if detector.cutoff:
        image[image < detector.cutoff] = 0
        if detector.counting:
            image[ndimage.uniform_filter((image > 0).astype(np.float32), 5) < 0.13] = 0
    return np.maximum(image, 0)


def _autofluorescence(tissue: Tissue, rng: np.random.Generator) -> NDArray[np.float32]:
    """Background around 1: smooth over tens of um, textured, lower outside of cells and on glass."""
    um = 1 / tissue.pixel_size
    field = rng.uniform(0.1, 0.7) * smooth_field(rng, tissue.shape, rng.uniform(25, 120) * um)
    field += rng.uniform(0, 0.25) * smooth_field(rng, tissue.shape, rng.uniform(2, 8) * um)
    if rng.random() < 0.2:
        # Vessels, stroma or necrosis that glow as a whole.
        wide = smooth_field(rng, tissue.shape, rng.uniform(15, 60) * um)
        field += rng.uniform(0.3, 1.5) * np.clip(4 * (wide - rng.uniform(0.3, 1.5)), 0, 1)
    level = np.exp(field)
    level *= np.where(tissue.owner > 0, np.float32(1), np.float32(rng.uniform(0.3, 1.1)))
    level[tissue.glass] *= rng.uniform(0.0, 0.4)
    return np.asarray(level, np.float32)


def _wide_blur(light: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian of a large sigma, on an image four times smaller."""
    step = 4
    height, width = (-n % step for n in light.shape)
    padded = np.pad(light, ((0, height), (0, width)), mode="edge")
    small = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).mean((1, 3))
    small = ndimage.gaussian_filter(small, sigma / step, mode="nearest", truncate=3)
    wide = ndimage.uniform_filter(np.repeat(np.repeat(small, step, 0), step, 1), step)
    return np.asarray(wide[: light.shape[0], : light.shape[1]], np.float32)
