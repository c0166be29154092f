"""Scores against what is known."""

from nimbus_sd.metrics.confounders import confounder_information, confounders
from nimbus_sd.metrics.curves import calibration_curve, calibration_error, pr_curve, roc_curve, threshold_curve
from nimbus_sd.metrics.distributions import density as density
from nimbus_sd.metrics.distributions import describe as describe
from nimbus_sd.metrics.distributions import image_statistics, score_shape
from nimbus_sd.metrics.distributions import outside as outside
from nimbus_sd.metrics.distributions import relative_expression as relative_expression
from nimbus_sd.metrics.judged import rates as rates
from nimbus_sd.metrics.markers import compare_baselines, marker_metrics
from nimbus_sd.metrics.thresholds import find_threshold
from nimbus_sd.metrics.thresholds import thresholds_by_channel as thresholds_by_channel

__all__ = [
    "calibration_curve",
    "calibration_error",
    "compare_baselines",
    "confounder_information",
    "confounders",
    "find_threshold",
    "image_statistics",
    "marker_metrics",
    "pr_curve",
    "roc_curve",
    "score_shape",
    "threshold_curve",
]


def __dir__() -> list[str]:
    return __all__
