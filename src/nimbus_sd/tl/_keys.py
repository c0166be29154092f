"""Names under which a tool may put its results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nimbus_sd import keys
from nimbus_sd._table import check_table, check_writable

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_KEPT = (
    keys.NIMBUS,
    *keys.LABELS,
    keys.INTEGRATED,
    keys.MEDIAN,
    keys.ERODED,
    keys.POSITIVE_PIXELS,
    keys.CELL_FEATURES,
)
_SLOTS = ("layers", "varm", "uns", "obsm")


def check_key_added(adata: AnnData, key_added: str, tool: str, also: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Refuse a name that is kept for other results, or that holds something which this tool did not make.

    Results of the same tool may be overwritten.

    Parameters
    ----------
    adata
        The table.
    key_added
        The name, looked for in ``layers``, ``varm``, ``uns`` and ``obsm``.
    tool
        What ``uns[key_added]["tool"]`` is for results of the tool that asks.
    also
        Other places that the tool writes, as (slot, name), such as ``("obs", key_added)``.

    Returns
    -------
    Results of an earlier call that would be overwritten, such as ``"obs['leiden_nimbus']"``.

    Raises
    ------
    TypeError
        If it is not a text, or the table is none.
    ValueError
        In both cases, and if a SpatialData with that name could not be written.
    """
    check_table(adata)
    check_writable(key_added)
    if key_added in _KEPT:
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; choose another name.")
    entry = adata.uns.get(key_added)
    mine = isinstance(entry, Mapping) and entry.get("tool") == tool
    places = [*((slot, key_added) for slot in _SLOTS), *also]
    there = [f"{slot}[{name!r}]" for slot, name in places if name in getattr(adata, slot)]
    if there and not mine:
        raise ValueError(
            f"`key_added` is {key_added!r}, but the table has {' and '.join(there)}, which `tl.{tool}` did not make. "
            "Choose another name, or delete that first."
        )
    for slot, name in places:
        # anndata 0.13 lists X among the layers, under the key None.
        if alike := [one for one in getattr(adata, slot) if one and one != name and one.lower() == name.lower()]:
            raise ValueError(
                f"`key_added` is {key_added!r}, but {slot} has {alike[0]!r}: a SpatialData with names that differ in "
                "upper and lower case only cannot be written. Choose another name."
            )
    return there


def log_overwritten(there: Sequence[str], tool: str) -> None:
    """Say what was overwritten; once it is, as a call that fails leaves everything as it was."""
    if there:
        logger.info("overwrote %s of an earlier `tl.%s`", ", ".join(there), tool)
