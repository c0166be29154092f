"""Names under which a tool may put its results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nimbus_sd import keys

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

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


def check_key_added(adata: AnnData, key_added: str, tool: str, columns: Sequence[str] | None = None) -> None:
    """Refuse a name that is kept for other results, or that holds something which this tool did not make.

    Parameters
    ----------
    adata
        The table.
    key_added
        The name.
    tool
        The tool's name, as it writes it to ``uns[key_added]["tool"]``.
    columns
        Columns of ``obs`` that a tool writes which adds no layer; their names must be fit for the disk. That they
        are replaced is logged.

    Raises
    ------
    ValueError
        In both cases, or if a column's name is not fit for the disk.
    """
    if key_added in _KEPT:
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; choose another name.")
    if columns is not None:
        from nimbus_sd.spatial.table_checks import check_name

        check_name("key_added", key_added)
    entry = adata.uns.get(key_added)
    mine = isinstance(entry, Mapping) and entry.get("tool") == tool
    slots = ("layers", "varm", "uns", "obsm") if columns is None else ("uns",)
    there = [f"{slot}[{key_added!r}]" for slot in slots if key_added in getattr(adata, slot)]
    there += [f"obs[{column!r}]" for column in columns or () if column in adata.obs]
    if there and not mine:
        raise ValueError(
            f"`key_added` is {key_added!r}, but the table has {' and '.join(there)}, which `tl.{tool}` did not make. "
            "Choose another name, or delete that first."
        )
    if there and columns is not None:
        logger.info("replacing %s of an earlier call", ", ".join(there))
