"""What a table says of how our part of it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nimbus_sd.keys import INTEGRATED


def is_ours(entry: object) -> bool:
    """Say whether an entry of ``uns`` was made by `write_table`."""
    return isinstance(entry, Mapping) and "wrote" in entry


def written_by_us(table: AnnData) -> set[str]:
    """List what of a table is from us, such as ``X``, ``obs/area``, ``layers/nimbus``."""
    return {str(item) for entry in table.uns.values() if is_ours(entry) for item in entry["wrote"]}


def is_extendable(table: AnnData) -> bool:
    """Say whether rows and columns may be added: we made the table, and X still is what we put there."""
    if "X" not in written_by_us(table) or INTEGRATED not in table.layers or table.X is None or table.raw is not None:
        return False
    return np.array_equal(np.asarray(table.X), np.asarray(table.layers[INTEGRATED]), equal_nan=True)


def made_otherwise(table: AnnData, key_added: str, provenance: Mapping[str, Any]) -> str:
    """State the settings under which the scores under a key were made, where they are not those of this provenance."""
    before, now = table.uns.get(key_added, {}), storable(provenance)
    settings = ("model", "sha256", "views", "precision", "normalization", "quantile")
    # Lists come back from disk as arrays.
    other = [key for key in settings if key in before and not np.array_equal(before[key], now.get(key))]
    return ", ".join(f"{key} {before[key]!r}" for key in other)


def storable(value: Any) -> Any:
    """Turn provenance into what zarr can hold: None is left out, other objects become text."""
    if isinstance(value, Mapping):
        return {str(key): storable(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [storable(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, bool | int | float | str | np.ndarray) else str(value)


def merge_factors(before: pd.DataFrame | None, factors: pd.DataFrame, var_names: pd.Index) -> pd.DataFrame:
    """Put new normalisation factors over those of earlier runs: other channels and regions stay.

    Parameters
    ----------
    before, factors
        Channels x (regions and ``factor``).
    var_names
        Rows of the result.
    """
    before = pd.DataFrame(index=var_names) if before is None else before
    columns = [*before.columns, *(column for column in factors.columns if column not in before.columns)]
    columns.sort(key=lambda column: column == "factor")
    merged = pd.DataFrame(np.nan, index=var_names, columns=columns)
    merged[before.columns] = before.to_numpy(np.float64)
    merged.loc[factors.index, factors.columns] = factors.to_numpy(np.float64)
    return merged
