"""Every key under which a result is stored."""

from __future__ import annotations

from typing import Final

#: Layer of scores, ``uns`` entry that says how they were made, suffix of score map elements.
NIMBUS: Final = "nimbus"
#: Layer of mean raw intensities per cell and channel.
INTEGRATED: Final = "integrated_expression"
#: Layer of human labels of whole regions that were drawn at random: for evaluation only.
GOLD: Final = "gold"
#: Layer of human labels of cells that were chosen because they are hard: for training only.
GOLD_TRAINING: Final = "gold_training"
#: Layer of labels derived from cell types or gates.
SILVER: Final = "silver"
#: Layers of labels, in which 0.5 is undetermined.
LABELS: Final = (GOLD, GOLD_TRAINING, SILVER)

#: ``obs`` column: the labels element that a cell is in.
REGION: Final = "region"
#: ``obs`` column: whether the cell's region was drawn for evaluation.
EVALUATION: Final = "evaluation"
#: ``obs`` column: the cell's label in that element.
INSTANCE: Final = "instance_id"
#: ``obsm`` entry: the cell's position, x and y.
SPATIAL: Final = "spatial"
#: ``obs`` column: the cell's area.
AREA: Final = "area"

#: Layers of `tl.cell_features`: median intensity, mean without the cell's own boundary, share of bright pixels.
MEDIAN: Final = "median_expression"
ERODED: Final = "eroded_expression"
POSITIVE_PIXELS: Final = "positive_pixels"
#: ``var`` column: the intensity above which a pixel counts for that share.
PIXEL_THRESHOLD: Final = "pixel_threshold"
#: ``obsp`` entry: length of the boundary that two cells share, in pixel edges.
BOUNDARY: Final = "boundary"
#: ``obs`` column: length of a cell's whole boundary, in pixel edges.
PERIMETER: Final = "perimeter"
#: ``uns`` entry: how these were made.
CELL_FEATURES: Final = "cell_features"

#: ``attrs`` entry of a SpatialData that `io.read_fovs` read: where the pixel size of each image came from.
PIXEL_SIZE_SOURCE: Final = "pixel_size_source"
