"""Pictures: every function draws on ``ax``, or in a new figure, and returns its axes."""

from nimbus_sd.pl._common import public
from nimbus_sd.pl.clusterings import composition, metacluster_suggestion, som_stars
from nimbus_sd.pl.crops import cluster_gallery, disagreement
from nimbus_sd.pl.evaluation import curve, metrics, score_shape
from nimbus_sd.pl.matrices import check_silver, compare_clusterings, merging, score_matrix
from nimbus_sd.pl.report import report
from nimbus_sd.pl.tissue import cells, comparison, image

__all__ = [
    "cells",
    "check_silver",
    "cluster_gallery",
    "compare_clusterings",
    "comparison",
    "composition",
    "curve",
    "disagreement",
    "image",
    "merging",
    "metacluster_suggestion",
    "metrics",
    "report",
    "score_matrix",
    "score_shape",
    "som_stars",
]

for _name in set(__all__) - {"report"}:
    globals()[_name] = public(globals()[_name])


def __dir__() -> list[str]:
    return __all__
