"""Every key under which a result is stored."""

from __future__ import annotations

from typing import Final

#: Layer of scores, ``uns`` entry that says how they were made, suffix of score map elements.
NIMBUS: Final = "nimbus"
#: Layer of mean raw intensities per cell and channel.
INTEGRATED: Final = "integrated_expression"
#: Layer of human labels.
GOLD: Final = "gold"
#: Layer of labels derived from cell types or gates.
SILVER: Final = "silver"

#: ``obs`` column: the labels element that a cell is in.
REGION: Final = "region"
#: ``obs`` column: the cell's label in that element.
INSTANCE: Final = "instance_id"
#: ``obsm`` entry: the cell's position, x and y.
SPATIAL: Final = "spatial"
#: ``obs`` column: the cell's area.
AREA: Final = "area"
