"""Names under which a tool may put its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nimbus_sd import keys

if TYPE_CHECKING:
    from anndata import AnnData

_KEPT = (
    keys.NIMBUS,
    keys.GOLD,
    keys.SILVER,
    keys.INTEGRATED,
    keys.MEDIAN,
    keys.ERODED,
    keys.POSITIVE_PIXELS,
    keys.CELL_FEATURES,
)


def check_key_added(adata: AnnData, key_added: str, tool: str) -> None:
    """Refuse a name that is kept for other results, or that holds something which this tool did not make.

    Raises
    ------
    ValueError
        In both cases.
    """
    if key_added in _KEPT:
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; choose another name.")
    entry = adata.uns.get(key_added)
    mine = isinstance(entry, Mapping) and entry.get("tool") == tool
    slots = ("layers", "varm", "uns", "obsm")
    there = [f"{slot}[{key_added!r}]" for slot in slots if key_added in getattr(adata, slot)]
    if there and not mine:
        raise ValueError(
            f"`key_added` is {key_added!r}, but the table has {' and '.join(there)}, which `tl.{tool}` did not make. "
            "Choose another name, or delete that first."
        )
