"""Damage that images have: debris, folds, shading, seams, loss of focus, compression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from nimbus_sd.simulate.tissue import Tissue, smooth_field


def clumps(shape: tuple[int, int], count: int, um: float, rng: np.random.Generator) -> NDArray[np.float32]:
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


def dots(shape: tuple[int, int], count: int, um: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Bright dots, all of one width, anywhere."""
    light = np.zeros(shape, np.float32)
    height = np.exp(rng.normal(rng.uniform(-0.7, 1.0), 0.4, count))
    np.add.at(light, (rng.integers(shape[0], size=count), rng.integers(shape[1], size=count)), height)
    sigma = rng.uniform(0.2, 0.45) * um
    return np.asarray(ndimage.gaussian_filter(light, sigma) * 2 * np.pi * max(sigma, 0.4) ** 2, np.float32)


def shading(shape: tuple[int, int], strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Vignetting, and at times a stitching seam or stripes."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    gain = (
        1
        - strength
        * rng.uniform(0, 1)
        * ((y - rng.uniform(-1, 1))[:, None] ** 2 + (x - rng.uniform(-1, 1))[None] ** 2)
        / 2
    )
    gain = np.maximum(gain, 0.2)
    if rng.random() < 0.3:
        gain[:, rng.integers(shape[1]) :] *= 1 + strength * rng.uniform(-1, 1)
    if rng.random() < 0.2:
        gain *= 1 + 0.3 * strength * rng.standard_normal(shape[0]).astype(np.float32)[:, None]
    return gain.astype(np.float32)


def seam(image: NDArray[np.float32], pixels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Shift all that lies right of a seam along it, as a stitching off by some pixels does."""
    image = image.copy()
    at = int(rng.integers(image.shape[1]))
    image[:, at:] = np.roll(image[:, at:], pixels if rng.random() < 0.5 else -pixels, axis=0)
    return image


def defocus(image: NDArray[np.float32], sigma: float, um: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur in patches some 40 um wide: tissue that does not lie flat."""
    patches = np.clip(smooth_field(rng, image.shape, 40 * um) + rng.uniform(-1, 0.5), 0, 1)
    return image + patches * (ndimage.gaussian_filter(image, sigma * um, mode="nearest", truncate=3) - image)


def fold(tissue: Tissue, strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Factor by which light grows along a line where tissue lies doubled, and glass stays as it is."""
    wander = smooth_field(rng, tissue.shape, 60 / tissue.pixel_size)
    wide = rng.uniform(0.05, 0.25)
    ridge = np.clip(1.5 - np.abs(wander - rng.uniform(-1, 1)) / wide, 0, 1)
    return np.asarray(1 + strength * ridge * ~tissue.glass, np.float32)


def edge_glow(tissue: Tissue, level: float) -> NDArray[np.float32]:
    """Light of tissue near glass, where stain gathers; it falls off over about 15 um."""
    if not tissue.glass.any():
        return np.zeros(tissue.shape, np.float32)
    away = ndimage.distance_transform_edt(~tissue.glass) * tissue.pixel_size
    return np.asarray(level * np.exp(-away / 15) * ~tissue.glass, np.float32)


def compress(image: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Round the cosine transform of blocks of 8 x 8 pixels, coarser for finer structure, as JPEG does."""
    height, width = (-n % 8 for n in image.shape)
    padded = np.pad(image, ((0, height), (0, width)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8)
    steps = step * (1 + np.add.outer(np.arange(8), np.arange(8))).reshape(1, 8, 1, 8)
    rounded = np.rint(fft.dctn(blocks, axes=(1, 3), norm="ortho") / steps) * steps
    back = fft.idctn(rounded, axes=(1, 3), norm="ortho").reshape(padded.shape)
    return np.asarray(back[: image.shape[0], : image.shape[1]], np.float32)
