"""Simulated tissue with known truth: geometry, staining, detector and segmentation, each drawn apart."""

from nimbus_sd.simulate.detector import Detector, draw_detector, expose
from nimbus_sd.simulate.marker import Marker, Stain, draw_marker, stain
from nimbus_sd.simulate.masks import Segmentation, draw_segmentation, segment
from nimbus_sd.simulate.platforms import PLATFORMS, Look, draw_look
from nimbus_sd.simulate.sdata import simulate
from nimbus_sd.simulate.tile import TrainingTile, training_tiles
from nimbus_sd.simulate.tissue import Tissue, draw_tissue
from nimbus_sd.simulate.truth import truth

__all__ = [
    "PLATFORMS",
    "Detector",
    "Look",
    "Marker",
    "Segmentation",
    "Stain",
    "Tissue",
    "TrainingTile",
    "draw_detector",
    "draw_look",
    "draw_marker",
    "draw_segmentation",
    "draw_tissue",
    "expose",
    "segment",
    "simulate",
    "stain",
    "training_tiles",
    "truth",
]
