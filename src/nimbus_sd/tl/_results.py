"""Where the tools put results: names that are free, and columns of clusters."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import check_table, check_writable

logger = logging.getLogger("nimbus_sd")

UNASSIGNED, AMBIGUOUS = "unassigned", "ambiguous"
# Greys, so that only what has a type has a colour.
GREYS = {AMBIGUOUS: "#7a7a7a", UNASSIGNED: "#a8a8a8"}

_FEATURES = (keys.CELL_FEATURES, keys.MEDIAN, keys.ERODED, keys.POSITIVE_PIXELS)
_RESERVED = (keys.NIMBUS, keys.INTEGRATED, *keys.LABELS, *_FEATURES)


def check_key_added(adata: AnnData, key_added: str, tool: str, also: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Raise a ValueError if a name is reserved, cannot be written, or holds what another tool made.

    It is looked for in ``layers``, ``varm``, ``uns``, ``obsm``, and as (slot, name) of ``also``. Returns results of an
    earlier call of the same tool, such as ``"obs['leiden_nimbus']"``, which may be overwritten.
    """
    check_table(adata)
    check_writable(key_added)
    if key_added in _RESERVED:
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; choose another name.")
    places = [*((slot, key_added) for slot in ("layers", "varm", "uns", "obsm")), *also]
    earlier = [f"{slot}[{name!r}]" for slot, name in places if name in getattr(adata, slot)]
    entry = adata.uns.get(key_added)
    if earlier and not (isinstance(entry, Mapping) and entry.get("tool") == tool):
        there = f"the table has {' and '.join(earlier)}, which `tl.{tool}` did not make"
        raise ValueError(f"`key_added` is {key_added!r}, but {there}. Choose another name, or delete that first.")
    for slot, name in places:
        # anndata 0.13 lists X among the layers, under the key None.
        if alike := [key for key in getattr(adata, slot) if key and key != name and key.lower() == name.lower()]:
            clash = f"`key_added` is {key_added!r}, but {slot} has {alike[0]!r}"
            raise ValueError(f"{clash}; names that differ in upper and lower case only cannot be written to disk.")
    return earlier


def log_overwritten(earlier: Sequence[str], tool: str) -> None:
    """Log what was overwritten; only once it is, as a call that fails leaves everything as it was."""
    if earlier:
        logger.info("overwrote %s of an earlier `tl.%s`", ", ".join(earlier), tool)


def check_name(name: object, what: str = "metacluster") -> str:
    """Return the name of a cluster or type; raise an error if not every format can hold it as it is."""
    if not isinstance(name, str):
        raise TypeError(f"The name of a {what} is {name!r}, a {type(name).__name__}; it must be a text: {str(name)!r}.")
    if not name or name != name.strip():
        raise ValueError(f"The name of a {what} is {name!r}; it must not be empty, nor begin or end with a blank.")
    # Cc has the zero byte, which HDF5 cannot hold, and line breaks; Cs what no file can: halves of a character.
    if bad := sorted({letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}):
        raise ValueError(f"The name of a {what} is {name!r}; leave out {', '.join(map(ascii, bad))}.")
    return name


def by_size(sizes: NDArray) -> NDArray[np.int64]:
    """Return the new number of each cluster, 0 for the largest; of equal ones the earlier comes first."""
    return np.argsort(np.argsort(-np.asarray(sizes), kind="stable"))


def cluster_column(numbers: NDArray[np.integer], used: NDArray[np.bool_], n: int) -> pd.Categorical:
    """Return a column with the categories "0" to "n - 1" from the number of each used cell, missing for the others."""
    codes = np.full(used.size, -1, np.int64)
    codes[used] = numbers
    return pd.Categorical.from_codes(codes, categories=[str(number) for number in range(n)])
