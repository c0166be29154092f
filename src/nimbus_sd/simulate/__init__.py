"""Simulated tissue with known truth: geometry, staining, detector and segmentation can each be changed alone."""

from nimbus_sd.simulate.detector import Detector, expose
from nimbus_sd.simulate.marker import Marker, stain
from nimbus_sd.simulate.marker import Stain as Stain
from nimbus_sd.simulate.sdata import simulate
from nimbus_sd.simulate.segmentation import Segmentation, segment, truth
from nimbus_sd.simulate.tissue import Tissue as Tissue
from nimbus_sd.simulate.tissue import draw_tissue

__all__ = ["Detector", "Marker", "Segmentation", "draw_tissue", "expose", "segment", "simulate", "stain", "truth"]
