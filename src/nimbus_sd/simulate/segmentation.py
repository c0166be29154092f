"""Segmentation: masks of cells or nuclei with the usual errors, and the true state of each segmented cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from nimbus_sd.simulate.detector import Detector
from nimbus_sd.simulate.marker import Stain
from nimbus_sd.simulate.tissue import Image, Labels, Tissue, edge_distance, smooth_field

# True cells of each label, shape (n + 1, 2).
Cells = NDArray[np.int64]

# A positive cell is undetermined if its specific signal, blurred as the image is, lies below this many standard
# deviations of noise of the cell's mean, a fifth of its background, and the differences of that between cells.
_DETECTABLE = 2.5
_BACKGROUND_DOUBT = 0.2
# By eye nobody calls a cell that is this much dimmer than the image's typical positive one.
_DIMMEST = 0.2


@dataclass(frozen=True)
class Segmentation:
    """How cells are segmented. Lengths in um, shares in [0, 1].

    Parameters
    ----------
    target, ring
        ``"cell"``, ``"nucleus"`` or ``"grown"``: the nucleus and a ring of this width around it.
    wobble
        Standard deviation of the outlines' error, which is smooth over a few um.
    shift, resize
        Offset (y, x) of all outlines, and dilation (positive) or erosion (negative) of all cells.
    merged, split, missing
        Share of cells with that error.
    grid
        Side of the squares that masks consist of where they were drawn at a coarser resolution; 0 for none.
    """

    target: Literal["cell", "nucleus", "grown"] = "cell"
    ring: float = 1.5
    wobble: float = 0.3
    shift: tuple[float, float] = (0.0, 0.0)
    resize: float = 0.0
    merged: float = 0.0
    split: float = 0.0
    missing: float = 0.0
    grid: float = 0.0


def segment(tissue: Tissue, segmentation: Segmentation, rng: Generator) -> tuple[Labels, Cells]:
    """Segment a tissue.

    Parameters
    ----------
    tissue, segmentation, rng
        True geometry, what is segmented how well, and the source of all randomness.

    Returns
    -------
    labels
        int32 of shape (y, x), numbered from 1 without gaps, 0 for background.
    cells
        Shape (n + 1, 2): the true cell of each label and, for merged ones, the second one (else 0). Row 0 is zero.
    """
    um = 1 / tissue.pixel_size
    labels = tissue.owner.copy()
    if segmentation.target != "cell":
        labels[~tissue.nucleus] = 0
    if segmentation.target == "grown":
        labels = _expand(labels, segmentation.ring * um)
    if segmentation.wobble or any(segmentation.shift):
        labels = _displace(labels, segmentation, um, rng)
    if segmentation.resize > 0:
        labels = _expand(labels, segmentation.resize * um)
    elif segmentation.resize < 0:
        labels[edge_distance(labels, labels > 0) * tissue.pixel_size <= -segmentation.resize] = 0

    if (side := round(segmentation.grid * um)) > 1:
        rows, cols = (np.minimum(np.arange(length) // side * side + side // 2, length - 1) for length in labels.shape)
        labels = labels[np.ix_(rows, cols)]

    # The true cells of each label, as returned.
    cells = np.stack([np.arange(tissue.n_cells + 1), np.zeros(tissue.n_cells + 1, np.int64)], axis=1)
    labels, cells = _split(labels, tissue, cells, segmentation.split, rng)
    labels = _merge(labels, cells, segmentation.merged, rng)
    labels[(rng.random(len(cells)) < segmentation.missing)[labels]] = 0
    present = np.union1d(labels, 0)
    return np.searchsorted(present, labels).astype(np.int32), cells[present]


def _expand(labels: Labels, distance: float) -> Labels:
    return np.asarray(expand_labels(labels, distance)) if labels.any() else labels


def _displace(labels: Labels, segmentation: Segmentation, um: float, rng: Generator) -> Labels:
    source = []
    for position, offset, n in zip(np.indices(labels.shape, np.float32), segmentation.shift, labels.shape, strict=True):
        field = segmentation.wobble * um * smooth_field(rng, labels.shape, rng.uniform(2, 6) * um) + offset * um
        source.append(np.clip(np.rint(position + field), 0, n - 1).astype(np.int64))
    return labels[tuple(source)]


def _split(labels: Labels, tissue: Tissue, cells: Cells, share: float, rng: Generator) -> tuple[Labels, Cells]:
    """Cut cells in two along a line through their centre; the second half gets a new number."""
    n = len(cells)
    cut = np.flatnonzero(rng.random(n) < share)
    cut = cut[cut > 0]
    new = np.zeros(n, np.int64)
    new[cut] = n + np.arange(cut.size)
    tilt = rng.uniform(0, 2 * np.pi, n)
    y = (np.arange(labels.shape[0])[:, None] + 0.5) * tissue.pixel_size - tissue.centre[labels, 0]
    x = (np.arange(labels.shape[1])[None, :] + 0.5) * tissue.pixel_size - tissue.centre[labels, 1]
    second_half = (new[labels] > 0) & (y * np.sin(tilt)[labels] + x * np.cos(tilt)[labels] > 0)
    return np.where(second_half, new[labels], labels).astype(np.int32), np.concatenate([cells, cells[cut]])


def _merge(labels: Labels, cells: Cells, share: float, rng: Generator) -> Labels:
    """Join pairs of cells that touch; the second column of ``cells`` is filled in place."""
    if not share:
        return labels
    left, right = labels[:, :-1].ravel(), labels[:, 1:].ravel()
    touching = np.unique(np.stack([left, right], 1)[(left > 0) & (right > 0) & (left != right)], axis=0)
    target = np.arange(len(cells))
    free = np.ones(len(cells), bool)
    for a, b in touching[rng.permutation(len(touching))[: int(share * len(cells) / 2)]]:
        if free[a] and free[b]:
            target[b], cells[a, 1] = a, cells[b, 0]
            free[[a, b]] = False
    return target[labels].astype(np.int32)


def truth(stained: Stain, tissue: Tissue, detector: Detector, cells: Cells) -> Image:
    """Label the cells of a segmentation.

    Parameters
    ----------
    stained, tissue, detector
        What was drawn.
    cells
        True cells of each label, from :func:`~nimbus_sd.simulate.segment`.

    Returns
    -------
    float32 of shape (n + 1,): 1 positive, 0 negative, 0.5 undetermined (below the detection limit, under a fifth of a
    typical positive cell's level, or two cells of different state merged into one); row 0 is 0.
    """
    n, owner = tissue.n_cells + 1, tissue.owner.ravel()
    blurred = ndimage.gaussian_filter(stained.specific, detector.blur / tissue.pixel_size, mode="nearest", truncate=3)
    sharp_level, _ = _level(stained.specific, owner, n)
    blurred_level, pixels = _level(blurred, owner, n)
    # Blurring dims fine structures, but it also brings in light of neighbours.
    level = np.minimum(sharp_level, blurred_level)
    area = np.maximum(np.bincount(owner, minlength=n), 1)
    background = np.bincount(owner, stained.other.ravel(), minlength=n) / area + detector.background
    noise = ((level + background) / detector.gain + detector.read_noise**2) / np.maximum(pixels, 1)
    seen = np.setdiff1d(owner, 0)
    differences = np.abs(background[seen] - np.median(background[seen])) if seen.size else np.zeros(1)
    spread = 1.4826 * np.median(differences)
    positives = np.intersect1d(seen, np.flatnonzero(stained.positive))
    typical = float(np.median(level[positives])) if positives.size else 0.0
    limit = _DETECTABLE * np.sqrt(noise + (_BACKGROUND_DOUBT * background) ** 2 + spread**2)
    visible = (level > _DIMMEST * typical) & (level > limit)

    state = np.where(stained.positive, np.where(visible, 1.0, 0.5), 0.0)
    state[0] = 0
    first, second = state[cells.T]
    return np.where((cells[:, 1] > 0) & (first != second), 0.5, first).astype(np.float32)


def _level(signal: Image, owner: Labels, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brightness of each cell where it is bright, and the number of those pixels."""
    total = np.bincount(owner, signal.ravel(), minlength=n)
    squared = np.maximum(np.bincount(owner, signal.ravel() ** 2, minlength=n), 1e-12)
    return squared / np.maximum(total, 1e-9), total**2 / squared
