"""Scores against what is known."""

from nimbus_sd.metrics.markers import marker_metrics

__all__ = ["marker_metrics"]
