"""Labels to learn from and to judge by: silver standard from cell types or gates, gold standard by hand."""

from nimbus_sd.labels.checks import check_silver
from nimbus_sd.labels.gates import silver_from_gates
from nimbus_sd.labels.noise import silver_noise
from nimbus_sd.labels.silver import silver

__all__ = ["check_silver", "silver", "silver_from_gates", "silver_noise"]


def __dir__() -> list[str]:
    return __all__
