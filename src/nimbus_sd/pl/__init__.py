"""Pictures. Every function takes ``ax`` and returns it; those of figures take the table of that name in ``metrics``."""

from functools import wraps
from typing import Any

import numpy as np

from nimbus_sd.pl._style import literal
from nimbus_sd.pl.cells import cells
from nimbus_sd.pl.check_silver import check_silver
from nimbus_sd.pl.cluster_gallery import cluster_gallery
from nimbus_sd.pl.clusters import clusters
from nimbus_sd.pl.compare_clusterings import compare_clusterings
from nimbus_sd.pl.comparison import comparison
from nimbus_sd.pl.composition import composition
from nimbus_sd.pl.curves import calibration_curve, pr_curve, roc_curve, threshold_curve
from nimbus_sd.pl.disagreement import disagreement
from nimbus_sd.pl.image import image
from nimbus_sd.pl.merging import merging
from nimbus_sd.pl.report import report
from nimbus_sd.pl.score_matrix import score_matrix
from nimbus_sd.pl.shape import score_shape
from nimbus_sd.pl.som_stars import som_stars
from nimbus_sd.pl.suggestion import metacluster_suggestion
from nimbus_sd.pl.tables import compare_baselines, confounder_information, marker_metrics

__all__ = [
    "calibration_curve",
    "cells",
    "check_silver",
    "cluster_gallery",
    "clusters",
    "compare_baselines",
    "compare_clusterings",
    "comparison",
    "composition",
    "confounder_information",
    "disagreement",
    "image",
    "marker_metrics",
    "merging",
    "metacluster_suggestion",
    "pr_curve",
    "report",
    "roc_curve",
    "score_matrix",
    "score_shape",
    "som_stars",
    "threshold_curve",
]


def _literal(draw: Any) -> Any:
    """Take names of channels and clusters literally in a picture, whatever matplotlib could see in them."""

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        made = draw(*args, **kwargs)
        for ax in np.ravel(np.asarray(made, object)):
            literal(ax)
        return made

    return drawn


for _name in set(__all__) - {"report"}:
    globals()[_name] = _literal(globals()[_name])


def __dir__() -> list[str]:
    return __all__
