"""Labels to learn from and to judge by: silver standard from cell types or gates, gold standard by hand."""

from nimbus_sd.labels._place import evaluation_regions
from nimbus_sd.labels._tables import GOLD_CODES as GOLD_CODES
from nimbus_sd.labels._tables import SILVER_CODES as SILVER_CODES
from nimbus_sd.labels._tables import find_labels as find_labels
from nimbus_sd.labels._tables import read_labels as read_labels
from nimbus_sd.labels.annotators import agreement, consensus
from nimbus_sd.labels.checks import check_silver
from nimbus_sd.labels.csv_files import from_csv, to_csv
from nimbus_sd.labels.draw import draw_regions
from nimbus_sd.labels.draw_cells import draw_cells
from nimbus_sd.labels.gates import silver_from_gates
from nimbus_sd.labels.noise import silver_noise
from nimbus_sd.labels.qupath import from_qupath, to_qupath
from nimbus_sd.labels.silver import silver

__all__ = [
    "agreement",
    "check_silver",
    "consensus",
    "draw_cells",
    "draw_regions",
    "evaluation_regions",
    "from_csv",
    "from_qupath",
    "silver",
    "silver_from_gates",
    "silver_noise",
    "to_csv",
    "to_qupath",
]


def __dir__() -> list[str]:
    return __all__
