"""Stores to read, and files to write."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


def check_out(out: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Check where a result will go; before all work, so that nobody waits for an error."""
    if out.suffix not in endings:
        raise ValueError(f"--out {out} must end in {' or '.join(endings)}.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} to write {out.name} into.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already; pass --overwrite to replace it, or name another file.")


def check_store(store: Path, table: str) -> None:
    """Check that a table can be written into a store; before all work, so that nobody waits for an error."""
    places = [store, store / "tables", store / "tables" / table]
    if closed := [place for place in places if place.exists() and not os.access(place, os.W_OK)]:
        raise PermissionError(f"{closed[0]} cannot be written to; pass --out for a file of its own, or open it to you.")


def read_store(store: Path) -> SpatialData:
    """Read a store, with one error for all that can be wrong with it."""
    if not store.exists():
        raise FileNotFoundError(f"There is no {store}.")

    from spatialdata import read_zarr

    try:
        return read_zarr(store)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{store} cannot be read as a SpatialData store: {error}") from error


def read_factors(path: Path) -> pd.Series:
    """Read normalisation factors from a CSV file with the columns ``channel`` and ``factor``."""
    from nimbus_sd._text import columns_of, with_formulas

    columns = columns_of(path)
    if missing := [name for name in ("channel", "factor") if name not in columns]:
        raise ValueError(f"{path} has the columns {columns}; it needs {' and '.join(map(repr, missing))}, too.")

    import pandas as pd

    # Channels may be named "NA" or "1".
    table = pd.read_csv(path, encoding="utf-8-sig", dtype={"channel": str}, keep_default_na=False)
    return table.assign(channel=with_formulas(table["channel"])).set_index("channel")["factor"]


def write_store(sdata: SpatialData, path: Path) -> None:
    """Write a store, whole or not at all; one that is there is replaced."""
    from nimbus_sd._disk import UNFINISHED, put_folder

    with TemporaryDirectory(prefix=UNFINISHED, dir=path.absolute().parent) as folder:
        sdata.write(Path(folder) / path.name)
        put_folder(Path(folder) / path.name, path, Path(folder) / "old")
