"""Simulated tiles to train on: random tissues, markers, detectors and masks, brought to the model's grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.pixels import (
    BOUNDARY_UM,
    OTSU_LEVELS,
    SQUARE_UM,
    Grid,
    Histogram,
    normalize,
    resize_image,
    resize_interior,
    resize_labels,
    square_means,
)
from nimbus_sd.simulate import Detector, Marker, Segmentation, draw_tissue, expose, segment, stain, truth

#: Pixel sizes of images in um, and their shares.
PIXEL_SIZES = {0.325: 0.1, 0.38: 0.2, 0.5: 0.45, 0.65: 0.15, 1.0: 0.1}
LOCALIZATIONS = ("membrane", "cytoplasm", "nucleus", "granules", "cell")


@dataclass(frozen=True)
class TrainingTile:
    """What the network sees, and the truth of the cells in it.

    Parameters
    ----------
    image
        float32 (h, w) in [0, 1].
    interior
        bool (h, w), the network's second input.
    cells
        int32 (h, w), cell at each model pixel, numbered from 1, 0 for background.
    labels
        float32 (n + 1,): 1, 0 or 0.5 (undetermined); row 0 unused.
    expression
        float32 (n + 1,): integrated expression (mean intensity at full resolution) over the normalisation factor, the
        usual way to judge a cell; not limited to 1.
    """

    image: NDArray[np.float32]
    interior: NDArray[np.bool_]
    cells: NDArray[np.int32]
    labels: NDArray[np.float32]
    expression: NDArray[np.float32]


def draw_marker(rng: np.random.Generator) -> Marker:
    """Draw how a marker stains."""
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
    marker = Marker(
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
    )
    # One number more is drawn than is used, so that the same seed gives the tiles that the model was trained on.
    rng.random()
    return marker


def draw_detector(rng: np.random.Generator, marker: Marker | None = None) -> Detector:
    """Draw how an image is taken; ``marker``, what is seen, sets limits to the background of a camera's image.

    What glows unspecifically in cells glows between them too, at a fifth or more of that level. Where no cell is
    positive the background is nearly as bright or brighter, and where all are it is under a third of their signal, or
    nobody could tell the two kinds of image apart.
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


def draw_segmentation(rng: np.random.Generator) -> Segmentation:
    """Draw what is segmented, and how well."""
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


def training_tiles(
    rng: np.random.Generator,
    size: int = 288,
    model_pixel_size: float = 0.5,
    markers: int = 4,
    regions: int = 3,
    *,
    counterstain: float = 0.0,
) -> Iterator[TrainingTile]:
    """Draw some tissues and yield a tile of each for several markers, ``markers * regions`` in all.

    Tiles have ``size`` model pixels on a side. As the regions of a data set do, the tissues share markers, detector and
    normalisation. ``counterstain`` is the share of further images in which all cells are positive, mostly in the
    nucleus.
    """
    pixel_size = float(rng.choice(list(PIXEL_SIZES), p=list(PIXEL_SIZES.values())))
    scale = pixel_size / model_pixel_size
    side = round(size / scale)
    grid = Grid((side, side), scale, 1)
    # Membranes lie a few um outside of the masks of small nuclei.
    tissues = [draw_tissue(grid.shape, pixel_size, rng, nucleus=rng.uniform(0.4, 0.9)) for _ in range(regions)]
    index = (np.arange(size), np.arange(size))
    for number in range(markers):
        if number % 2 == 0:
            masks = [segment(tissue, draw_segmentation(rng), rng) for tissue in tissues]
        marker = draw_marker(rng)
        if counterstain and rng.random() < counterstain:
            marker = _counterstain(marker, rng)
        detector = draw_detector(rng, marker)
        images, states = [], []
        for tissue, (_, cells) in zip(tissues, masks, strict=True):
            stained = stain(tissue, marker, rng)
            images.append(expose(stained.signal, tissue, detector, rng))
            states.append(truth(stained, tissue, detector, cells))
        factor = level_factor(images, [labels for labels, _ in masks], pixel_size) * float(np.exp(rng.normal(0, 0.1)))
        for image, (labels, _), truths in zip(images, masks, states, strict=True):
            scaled = normalize(image[None], np.array([factor]))
            area = np.maximum(np.bincount(labels.ravel(), minlength=len(truths)), 1)
            expression = np.bincount(labels.ravel(), image.ravel(), minlength=len(truths)) / area / factor
            yield TrainingTile(
                resize_image(scaled, grid, index, (0, 0))[0],
                resize_interior(labels, grid, index, (0, 0), BOUNDARY_UM / model_pixel_size),
                resize_labels(labels, grid, index, (0, 0)),
                truths,
                expression.astype(np.float32),
            )


def level_factor(images: list[NDArray[np.float32]], labels: list[NDArray[np.int32]], pixel_size: float) -> float:
    """Normalisation factor of images of one data set, by the rule ``"otsu"`` (see :class:`nimbus_sd.models.Card`)."""
    histogram = Histogram(np.dtype(np.float32))
    for image, cells in zip(images, labels, strict=True):
        means = square_means(image[None], cells > 0, max(1, round(SQUARE_UM / pixel_size)))
        histogram.add(means, zeros=True)
    level = histogram.otsu()
    return OTSU_LEVELS * level if level > 0 else 1.0


def _counterstain(marker: Marker, rng: np.random.Generator) -> Marker:
    """Make all cells positive; how alike they are differs much between slides."""
    return replace(
        marker,
        localization="nucleus" if rng.random() < 0.85 else marker.localization,
        prevalence=float(rng.choice([1.0, rng.uniform(0.9, 1.0)], p=[0.7, 0.3])),
        spread=float(rng.uniform(0.03, 0.6)),
        dim_share=float(rng.choice([0.0, rng.uniform(0, 0.2)], p=[0.7, 0.3])),
        # In a thick section, nuclei above and below fill the gaps between those in focus.
        fill=float(rng.choice([0.0, rng.uniform(0.1, 0.8)])),
        unspecific=min(marker.unspecific, 0.1),
    )
