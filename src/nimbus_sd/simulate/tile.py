"""Tiles for training: a tissue, a segmentation and several markers, brought to the model's grid as inference does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.pixels import (
    OTSU_LEVELS,
    SQUARE_UM,
    Grid,
    Histogram,
    interior,
    normalize,
    resize_image,
    resize_labels,
    square_means,
)
from nimbus_sd.simulate.detector import draw_detector, expose
from nimbus_sd.simulate.marker import Marker, draw_marker, stain
from nimbus_sd.simulate.masks import draw_segmentation, segment
from nimbus_sd.simulate.tissue import draw_tissue
from nimbus_sd.simulate.truth import truth

_PIXEL_SIZES = {0.325: 0.1, 0.38: 0.2, 0.5: 0.45, 0.65: 0.15, 1.0: 0.1}


@dataclass(frozen=True)
class TrainingTile:
    """What the network sees and what it should say.

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

    Parameters
    ----------
    rng
        Source of all randomness.
    size
        Side in model pixels.
    model_pixel_size
        Micrometres per model pixel.
    markers
        Number of markers.
    regions
        Number of tissues that share markers, the way their images are taken and the normalisation, as the regions of a
        data set do.
    counterstain
        Share of images, beyond those that are drawn anyway, in which all cells are positive, mostly in the nucleus.

    Yields
    ------
    TrainingTile
    """
    pixel_size = float(rng.choice(list(_PIXEL_SIZES), p=list(_PIXEL_SIZES.values())))
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
        images, known = [], []
        for tissue, (_, cells) in zip(tissues, masks, strict=True):
            stained = stain(tissue, marker, rng)
            images.append(expose(stained.own + stained.rest, tissue, detector, rng))
            known.append(truth(stained, tissue, detector, cells))
        factor = level_factor(images, [labels for labels, _ in masks], pixel_size) * float(np.exp(rng.normal(0, 0.1)))
        for image, (labels, _), states in zip(images, masks, known, strict=True):
            scaled = normalize(image[None], np.array([factor]))
            area = np.maximum(np.bincount(labels.ravel(), minlength=len(states)), 1)
            expression = np.bincount(labels.ravel(), image.ravel(), minlength=len(states)) / area / factor
            yield TrainingTile(
                resize_image(scaled, grid, index, (0, 0))[0],
                resize_labels(interior(labels), grid, index, (0, 0)),
                resize_labels(labels, grid, index, (0, 0)),
                states,
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
