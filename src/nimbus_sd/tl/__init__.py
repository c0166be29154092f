"""Tools on tables: each adds its result to the table under a key."""

from nimbus_sd.tl.calibrate import calibrate
from nimbus_sd.tl.calls import call_positive
from nimbus_sd.tl.cluster_checks import cluster_checks
from nimbus_sd.tl.features import cell_features

__all__ = ["calibrate", "call_positive", "cell_features", "cluster_checks"]


def __dir__() -> list[str]:
    return __all__
