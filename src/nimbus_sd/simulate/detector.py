"""Detection: from expected signal to an image, with optics, background, noise and the damage of real images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator
from scipy import fft, ndimage

from nimbus_sd.simulate.tissue import Image, Tissue, smooth_field


@dataclass(frozen=True)
class Detector:
    """How an image is taken. Levels are relative to a typical positive cell (1), lengths in um.

    Parameters
    ----------
    counting
        Whether ions are counted (MIBI, IMC) instead of light measured by a camera.
    gain
        Counts, or photons, at level 1.
    blur
        Sigma of the point spread.
    tail, tail_width
        Share of light in a weak halo, and its sigma.
    background, read_noise
        Smooth autofluorescence, and the standard deviation of the camera's noise.
    clumps, dots
        Number of aggregates, and of bright dots under 1 um, per 100 x 100 um.
    hot
        Share of hot pixels.
    shading
        Strength of vignetting, seams and stripes.
    cutoff, subtract
        Level up to which the lab's pipeline has set pixels to 0, and level that it has subtracted.
    shift, seam
        Registration shift (y, x), and pixels by which a stitching is off.
    defocus
        Sigma of a further blur, in patches.
    fold
        Share by which signal grows along a fold of the tissue.
    edge
        Level of stain gathered at the tissue's edge.
    compression, quantum
        Level to which a lossy compression rounds, and step between grey levels where few were stored.
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


def expose(expected: Image, tissue: Tissue, detector: Detector, rng: Generator) -> Image:
    """Take an image.

    Parameters
    ----------
    expected
        Signal per pixel, shape (y, x): ``signal`` of what :func:`~nimbus_sd.simulate.stain` returns.
    tissue, detector, rng
        The tissue that was stained, how the image is taken, and the source of all randomness.

    Returns
    -------
    float32 array of shape (y, x), at least 0, in units of the typical positive signal (or counts over ``gain``).
    """
    um, shape = 1 / tissue.pixel_size, tissue.shape
    blur = partial(ndimage.gaussian_filter, mode="nearest", truncate=3)
    light = expected + detector.background * _autofluorescence(tissue, rng)
    if detector.fold:
        light = light * _fold(tissue, detector.fold, rng)
    if detector.edge and tissue.glass.any():
        # Stain that gathers near glass falls off over about 15 um.
        away = ndimage.distance_transform_edt(~tissue.glass) * tissue.pixel_size
        light = light + np.asarray(detector.edge * np.exp(-away / 15) * ~tissue.glass, np.float32)
    for density, draw in ((detector.clumps, _clumps), (detector.dots, _dots)):
        if count := rng.poisson(density * shape[0] * shape[1] / (100 * um) ** 2):
            light = light + draw(shape, count, um, rng)
    sharp = blur(light, detector.blur * um)
    if detector.tail:
        # A Gaussian of a large sigma, on an image four times smaller.
        small = blur(_blocks(light, 4).mean((1, 3)), detector.tail_width * um / 4)
        wide = ndimage.uniform_filter(small.repeat(4, axis=0).repeat(4, axis=1), 4)[: shape[0], : shape[1]]
        sharp = (1 - detector.tail) * sharp + detector.tail * np.asarray(wide, np.float32)
    if detector.defocus:
        # Patches some 40 um wide, where tissue does not lie flat.
        patches = np.clip(smooth_field(rng, shape, 40 * um) + rng.uniform(-1, 0.5), 0, 1)
        sharp = sharp + patches * (blur(sharp, detector.defocus * um) - sharp)
    if any(detector.shift):
        sharp = ndimage.shift(sharp, [s * um for s in detector.shift], order=1, mode="nearest")
    if detector.shading:
        sharp = sharp * _shading(shape, detector.shading, rng)
    if detector.seam:
        # Stitching that is off by some pixels shifts the part right of it.
        right, down = sharp[:, rng.integers(shape[1]) :], rng.random() < 0.5
        right[...] = np.roll(right, detector.seam if down else -detector.seam, axis=0)
    image = rng.poisson(np.maximum(sharp, 0) * detector.gain).astype(np.float32) / np.float32(detector.gain)
    if detector.hot:
        hot = rng.random(shape) < detector.hot
        extra = rng.exponential(3.0 if detector.counting else 1.0, int(hot.sum()))
        image[hot] += np.ceil(extra) / detector.gain if detector.counting else extra
    if not detector.counting:
        image += rng.normal(0, detector.read_noise, shape).astype(np.float32)
        image -= detector.subtract
    if detector.compression:
        image = _compress(image, detector.compression)
    if detector.quantum:
        image = np.rint(image / detector.quantum) * np.float32(detector.quantum)
    if detector.cutoff:
        image[image < detector.cutoff] = 0
        if detector.counting:
            image[ndimage.uniform_filter((image > 0).astype(np.float32), 5) < 0.13] = 0
    return np.maximum(image, 0)


def _autofluorescence(tissue: Tissue, rng: Generator) -> Image:
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


def _clumps(shape: tuple[int, int], count: int, um: float, rng: Generator) -> Image:
    """Bright aggregates, debris and red cells, 1 to 8 um wide."""
    light = np.zeros(shape, np.float32)
    for _ in range(min(count, 200)):
        radius = np.exp(rng.uniform(np.log(0.4), np.log(4))) * um
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        top, left = int(max(0, y - 3 * radius)), int(max(0, x - 3 * radius))
        window = np.s_[top : int(y + 3 * radius) + 1, left : int(x + 3 * radius) + 1]
        part = light[window]
        dy = (np.arange(part.shape[0]) + top - y)[:, None] / radius
        dx = (np.arange(part.shape[1]) + left - x)[None] / (radius * rng.uniform(0.5, 1.5))
        part += (np.exp(rng.uniform(np.log(0.5), np.log(6))) * np.exp(-(dy**2 + dx**2))).astype(np.float32)
    return light


def _dots(shape: tuple[int, int], count: int, um: float, rng: Generator) -> Image:
    """Bright dots, all of one width, anywhere."""
    light = np.zeros(shape, np.float32)
    height = np.exp(rng.normal(rng.uniform(-0.7, 1.0), 0.4, count))
    np.add.at(light, (rng.integers(shape[0], size=count), rng.integers(shape[1], size=count)), height)
    sigma = rng.uniform(0.2, 0.45) * um
    return np.asarray(ndimage.gaussian_filter(light, sigma) * 2 * np.pi * max(sigma, 0.4) ** 2, np.float32)


def _shading(shape: tuple[int, int], strength: float, rng: Generator) -> Image:
    """Vignetting, and at times a stitching seam or stripes."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    fall = strength * rng.uniform(0, 1)
    gain = 1 - fall * ((y - rng.uniform(-1, 1))[:, None] ** 2 + (x - rng.uniform(-1, 1))[None] ** 2) / 2
    gain = np.maximum(gain, 0.2)
    if rng.random() < 0.3:
        gain[:, rng.integers(shape[1]) :] *= 1 + strength * rng.uniform(-1, 1)
    if rng.random() < 0.2:
        gain *= 1 + 0.3 * strength * rng.standard_normal(shape[0]).astype(np.float32)[:, None]
    return gain.astype(np.float32)


def _fold(tissue: Tissue, strength: float, rng: Generator) -> Image:
    """Factor by which signal grows along a line where the tissue lies doubled; 1 on glass."""
    wander = smooth_field(rng, tissue.shape, 60 / tissue.pixel_size)
    wide = rng.uniform(0.05, 0.25)
    ridge = np.clip(1.5 - np.abs(wander - rng.uniform(-1, 1)) / wide, 0, 1)
    return np.asarray(1 + strength * ridge * ~tissue.glass, np.float32)


def _compress(image: Image, step: float) -> Image:
    """Round the cosine transform of blocks of 8 x 8 pixels, coarser for finer structure, as JPEG does."""
    steps = step * (1 + np.add.outer(np.arange(8), np.arange(8))).reshape(1, 8, 1, 8)
    rounded = np.rint(fft.dctn(_blocks(image, 8), axes=(1, 3), norm="ortho") / steps) * steps
    blocks = fft.idctn(rounded, axes=(1, 3), norm="ortho")
    back = blocks.reshape(8 * len(blocks), -1)
    return np.asarray(back[: image.shape[0], : image.shape[1]], np.float32)


def _blocks(image: Image, side: int) -> Image:
    """Cut an image, padded where needed, into squares: (rows, side, columns, side)."""
    height, width = (-n % side for n in image.shape)
    padded = np.pad(image, ((0, height), (0, width)), mode="edge")
    return padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side)
