"""Where silver labels go, and under which names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nimbus_sd._table import as_list, check_table, check_writable, judged
from nimbus_sd.spatial import not_found

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "labels.silver"


def check_silver_key(adata: AnnData, key_added: str) -> None:
    """Refuse a name that cannot be written, or that holds what these tools did not make."""
    check_table(adata)
    check_writable(key_added)
    entry = adata.uns.get(key_added)
    mine = isinstance(entry, Mapping) and entry.get("tool") == _TOOL
    if (key_added in adata.layers or key_added in adata.uns) and not mine:
        raise ValueError(
            f"`key_added` is {key_added!r}, but the table has a result of that name which was not made here. Choose "
            "another name, or delete that first."
        )


def add_silver(adata: AnnData, key_added: str, labels: NDArray[np.float32], params: dict[str, Any]) -> None:
    """Put labels into the table, with how they were made."""
    adata.layers[key_added] = labels
    adata.uns[key_added] = {"tool": _TOOL, "params": params}
    known = judged(labels)
    logger.info("added layers[%r]: %d labels of %d channels", key_added, known.sum(), known.any(axis=0).sum())


def excluded(adata: AnnData, exclude: str | Sequence[str]) -> NDArray[np.intp]:
    """Return the positions of markers that are to be left out.

    Raises
    ------
    KeyError
        If one does not exist.
    """
    names = as_list(exclude)
    if missing := [name for name in names if name not in adata.var_names]:
        raise not_found("channel", missing, adata.var_names, " (named in `exclude`)")
    return np.asarray(adata.var_names.get_indexer(names), np.intp)
