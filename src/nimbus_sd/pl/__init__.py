"""Pictures. Every function takes ``ax`` and returns it; those of figures take the table of that name in ``metrics``."""

from nimbus_sd.pl.cells import cells
from nimbus_sd.pl.comparison import comparison
from nimbus_sd.pl.curves import calibration_curve, pr_curve, roc_curve, threshold_curve
from nimbus_sd.pl.disagreement import disagreement
from nimbus_sd.pl.image import image
from nimbus_sd.pl.report import report
from nimbus_sd.pl.shape import score_shape
from nimbus_sd.pl.suggestion import metacluster_suggestion
from nimbus_sd.pl.tables import compare_baselines, confounder_information, marker_metrics

__all__ = [
    "calibration_curve",
    "cells",
    "compare_baselines",
    "comparison",
    "confounder_information",
    "disagreement",
    "image",
    "marker_metrics",
    "metacluster_suggestion",
    "pr_curve",
    "report",
    "roc_curve",
    "score_shape",
    "threshold_curve",
]


def __dir__() -> list[str]:
    return __all__
