"""What a segmentation makes of a tissue: whole cells, nuclei or grown nuclei, with the usual errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nimbus_sd.simulate.tissue import Tissue, smooth_field


@dataclass(frozen=True)
class Segmentation:
    """How cells are segmented. Lengths in um, shares in [0, 1].

    Parameters
    ----------
    target
        ``"cell"``, ``"nucleus"`` or ``"grown"`` (nucleus and a ring of ``ring`` around it).
    ring
        Width of that ring.
    wobble
        Standard deviation by which outlines are off, smooth over a few um.
    shift
        Offset of all outlines (y, x).
    resize
        Dilation (positive) or erosion (negative) of all cells.
    merged, split, missing
        Share of cells with that error.
    grid
        Side of the squares that masks are made of, where they were drawn at a coarser resolution.
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


def draw_segmentation(rng: np.random.Generator) -> Segmentation:
    """Draw a segmentation at random: the variety that the bundled model is trained on."""
    shift = rng.normal(0, rng.choice([0.0, 0.7]), 2).clip(-2, 2)
    return Segmentation(
        target=("cell", "nucleus", "grown")[rng.choice(3, p=[0.35, 0.35, 0.3])],
        ring=float(rng.uniform(0.5, 3.0)),
        wobble=float(rng.uniform(0.0, 0.7)),
        shift=(float(shift[0]), float(shift[1])),
        resize=float(rng.choice([0.0, rng.uniform(-1.0, 1.2)])),
        merged=float(rng.choice([0.0, rng.uniform(0, 0.08)])),
        split=float(rng.choice([0.0, rng.uniform(0, 0.08)])),
        # Cells whose nucleus lies outside of the section have no mask, and their membranes touch others.
        missing=float(rng.choice([0.0, rng.uniform(0, 0.3)])),
        grid=float(rng.choice([0.0, rng.uniform(0.8, 2.0)], p=[0.85, 0.15])),
    )


def segment(
    tissue: Tissue, segmentation: Segmentation, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Segment a tissue.

    Parameters
    ----------
    tissue
        True geometry.
    segmentation
        What is segmented, and how well.
    rng
        Source of all randomness.

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
        labels[_edge_distance(labels) * tissue.pixel_size <= -segmentation.resize] = 0

    if (side := round(segmentation.grid * um)) > 1:
        rows, cols = (np.minimum(np.arange(length) // side * side + side // 2, length - 1) for length in labels.shape)
        labels = labels[np.ix_(rows, cols)]

    n = tissue.n_cells + 1
    first, second = np.arange(n), np.zeros(n, np.int64)
    labels, first, second = _split(labels, tissue, first, second, segmentation.split, rng)
    labels = _merge(labels, first, second, segmentation.merged, rng)
    labels[(rng.random(len(first)) < segmentation.missing)[labels]] = 0
    present, compact = np.unique(labels, return_inverse=True)
    if present[0] != 0:
        present, compact = np.concatenate([[0], present]), compact + 1
    cells = np.stack([first[present], second[present]], axis=1)
    return compact.reshape(labels.shape).astype(np.int32), cells


def _expand(labels: NDArray[np.int32], distance: float) -> NDArray[np.int32]:
    if not labels.any():
        return labels
    away, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.asarray(np.where(away <= distance, labels[tuple(nearest)], 0), np.int32)


def _edge_distance(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    inside = labels > 0
    inside[1:] &= labels[1:] == labels[:-1]
    inside[:, 1:] &= labels[:, 1:] == labels[:, :-1]
    return np.asarray(ndimage.distance_transform_edt(inside), np.float64)


def _displace(
    labels: NDArray[np.int32], segmentation: Segmentation, um: float, rng: np.random.Generator
) -> NDArray[np.int32]:
    index = []
    for axis, offset in enumerate(segmentation.shift):
        field = segmentation.wobble * um * smooth_field(rng, labels.shape, rng.uniform(2, 6) * um) + offset * um
        n = labels.shape[axis]
        position = np.arange(n, dtype=np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        index.append(np.clip(np.rint(position + field), 0, n - 1).astype(np.int64))
    return labels[index[0], index[1]]


def _split(
    labels: NDArray[np.int32],
    tissue: Tissue,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Cut cells in two along a line through their centre; the second half gets a new number."""
    n = len(first)
    cut = np.flatnonzero(rng.random(n) < share)
    cut = cut[cut > 0]
    new = np.zeros(n, np.int64)
    new[cut] = n + np.arange(cut.size)
    tilt = rng.uniform(0, 2 * np.pi, n)
    y = (np.arange(labels.shape[0])[:, None] + 0.5) * tissue.pixel_size - tissue.centre[labels, 0]
    x = (np.arange(labels.shape[1])[None, :] + 0.5) * tissue.pixel_size - tissue.centre[labels, 1]
    other = (new[labels] > 0) & (y * np.sin(tilt)[labels] + x * np.cos(tilt)[labels] > 0)
    labels = np.where(other, new[labels], labels).astype(np.int32)
    return labels, np.concatenate([first, first[cut]]), np.concatenate([second, np.zeros(cut.size, np.int64)])


def _merge(
    labels: NDArray[np.int32],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Join pairs of cells that touch; ``second`` is filled in place."""
    if not share:
        return labels
    left, right = labels[:, :-1].ravel(), labels[:, 1:].ravel()
    touching = np.unique(np.stack([left, right], 1)[(left > 0) & (right > 0) & (left != right)], axis=0)
    target = np.arange(len(second))
    free = np.ones(len(second), bool)
    for a, b in touching[rng.permutation(len(touching))[: int(share * len(second) / 2)]]:
        if free[a] and free[b]:
            target[b], second[a] = a, first[b]
            free[[a, b]] = False
    return target[labels].astype(np.int32)
