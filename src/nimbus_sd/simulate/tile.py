"""Tiles for training: a tissue, a segmentation and several markers, brought to the model's grid as inference does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.pixels import Grid, Histogram, interior, normalize, resize_image, resize_labels
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
    quantile: float = 0.999,
    markers: int = 4,
    *,
    counterstain: float = 0.0,
) -> Iterator[TrainingTile]:
    """Draw a tissue and yield one tile for each of several markers on it.

    Parameters
    ----------
    rng
        Source of all randomness.
    size
        Side in model pixels.
    model_pixel_size
        Micrometres per model pixel.
    quantile
        Quantile of the normalisation.
    markers
        Number of tiles to yield.
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
    tissue = draw_tissue(grid.shape, pixel_size, rng)
    index = (np.arange(size), np.arange(size))
    for number in range(markers):
        if number % 2 == 0:
            labels, cells = segment(tissue, draw_segmentation(rng), rng)
            inner = resize_labels(interior(labels), grid, index, (0, 0))
            at_model = resize_labels(labels, grid, index, (0, 0))
        marker = draw_marker(rng)
        if counterstain and rng.random() < counterstain:
            marker = _counterstain(marker, rng)
        stained, detector = stain(tissue, marker, rng), draw_detector(rng, marker.unspecific)
        image = expose(stained.own + stained.rest, tissue, detector, rng)
        known = truth(stained, tissue, detector, cells)
        factor = draw_factor(image, known, quantile, rng)
        scaled = normalize(image[None], np.array([factor]))
        area = np.maximum(np.bincount(labels.ravel(), minlength=len(known)), 1)
        expression = np.bincount(labels.ravel(), image.ravel(), minlength=len(known)) / area / factor
        yield TrainingTile(
            resize_image(scaled, grid, index, (0, 0))[0], inner, at_model, known, expression.astype(np.float32)
        )


def _counterstain(marker: Marker, rng: np.random.Generator) -> Marker:
    """Make all cells positive; how alike they are differs much between slides."""
    return replace(
        marker,
        localization="nucleus" if rng.random() < 0.85 else marker.localization,
        prevalence=float(rng.choice([1.0, rng.uniform(0.9, 1.0)], p=[0.7, 0.3])),
        spread=float(rng.uniform(0.03, 0.6)),
        dim_share=float(rng.choice([0.0, rng.uniform(0, 0.2)], p=[0.7, 0.3])),
        unspecific=min(marker.unspecific, 0.1),
    )


def draw_factor(
    image: NDArray[np.float32], known: NDArray[np.float32], quantile: float, rng: np.random.Generator
) -> float:
    """Normalisation factor of a tile that is part of a larger image.

    The tile's own quantile where it has positive cells; often that of brighter cells elsewhere where it has few; at
    times far off, as outliers make it in reality.
    """
    histogram = Histogram(image.dtype)
    histogram.add(image)
    own = histogram.quantile(quantile) if histogram.total else 1.0
    few = (known == 1).sum() < 3
    if few and rng.random() < 0.85:
        own = max(own, float(np.exp(rng.normal(0.3, 0.4))))
    factor = own * float(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.2:
        # What all cells show is no outlier: a stain of everybody would be a haze if it were much dimmer.
        everybody = (known == 1).sum() > 4 * (known == 0).sum()
        factor *= float(np.exp(rng.uniform(0, np.log(1.5 if everybody else 3))))
    elif rng.random() < 0.06:
        factor *= rng.uniform(0.4, 1.0)
    return factor
