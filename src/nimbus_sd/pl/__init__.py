"""Pictures. Every function takes ``ax`` and returns it."""

from nimbus_sd.pl.cells import cells, image
from nimbus_sd.pl.comparison import comparison

__all__ = ["cells", "comparison", "image"]
