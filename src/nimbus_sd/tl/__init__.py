"""Tools on tables: each adds its result to the table under a key."""

from nimbus_sd.tl.calibrate import calibrate
from nimbus_sd.tl.calls import call_positive
from nimbus_sd.tl.features import cell_features
from nimbus_sd.tl.flowsom import flowsom
from nimbus_sd.tl.leiden import leiden
from nimbus_sd.tl.som_mapping import map_to_som

__all__ = ["calibrate", "call_positive", "cell_features", "flowsom", "leiden", "map_to_som"]


def __dir__() -> list[str]:
    return __all__
