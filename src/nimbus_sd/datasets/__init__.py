"""Data to try things on, and the data of the paper."""

from nimbus_sd.datasets.example import example
from nimbus_sd.datasets.pan_m import check_datasets as check_datasets
from nimbus_sd.datasets.pan_m import pan_m, pan_m_gold_standard

__all__ = ["example", "pan_m", "pan_m_gold_standard"]
