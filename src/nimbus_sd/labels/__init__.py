"""Labels to learn from and to judge by: silver standard from cell types or gates, gold standard by hand."""

from nimbus_sd.labels.csv_files import find_label_tables as find_label_tables
from nimbus_sd.labels.csv_files import from_csv, to_csv
from nimbus_sd.labels.csv_files import read_label_table as read_label_table
from nimbus_sd.labels.draw import draw_cells, draw_regions
from nimbus_sd.labels.layers import evaluation_regions
from nimbus_sd.labels.layers import read_labels as read_labels
from nimbus_sd.labels.quality import agreement, check_silver, consensus, silver_noise
from nimbus_sd.labels.qupath import from_qupath, to_qupath
from nimbus_sd.labels.silver import silver, silver_from_gates

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
