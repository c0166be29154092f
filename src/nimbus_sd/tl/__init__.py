"""Tools on tables: each adds its result to the table under a key."""

from nimbus_sd.tl._flags import flags_of as flags_of
from nimbus_sd.tl._flags import need_a_look as need_a_look
from nimbus_sd.tl._flags import source_of as source_of
from nimbus_sd.tl._inputs import check_count as check_count
from nimbus_sd.tl._metaclusters import Metaclusters
from nimbus_sd.tl._results import GREYS as GREYS
from nimbus_sd.tl.calibrate import adapt, calibrate
from nimbus_sd.tl.calls import call_positive
from nimbus_sd.tl.cell_types import cell_types, suggest_types
from nimbus_sd.tl.cluster_checks import cluster_checks
from nimbus_sd.tl.features import cell_features
from nimbus_sd.tl.flowsom import flowsom, map_to_som
from nimbus_sd.tl.leiden import leiden
from nimbus_sd.tl.signatures import check_signatures, signatures

__all__ = [
    "Metaclusters",
    "adapt",
    "calibrate",
    "call_positive",
    "cell_features",
    "cell_types",
    "check_signatures",
    "cluster_checks",
    "flowsom",
    "leiden",
    "map_to_som",
    "signatures",
    "suggest_types",
]


def __dir__() -> list[str]:
    return __all__
