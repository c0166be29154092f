"""Stores to read, and files to write."""

from __future__ import annotations

from pathlib import Path
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
    from nimbus_sd._csv import columns_of
    from nimbus_sd._text import with_formulas

    columns = columns_of(path)
    if missing := [name for name in ("channel", "factor") if name not in columns]:
        raise ValueError(f"{path} has the columns {columns}; it needs {' and '.join(map(repr, missing))}, too.")

    import pandas as pd

    # Channels may be named "NA" or "1".
    table = pd.read_csv(path, encoding="utf-8-sig", dtype={"channel": str}, keep_default_na=False)
    return table.assign(channel=with_formulas(table["channel"])).set_index("channel")["factor"]


def write_table(sdata: SpatialData, name: str) -> None:
    """Write a table into its store. One that is there goes last: whenever this is stopped, one of them is whole."""
    if f"tables/{name}" not in sdata.elements_paths_on_disk():
        sdata.write_element(name)
        return
    spare = f"{name}_new"
    while spare in sdata:
        spare += "_"
    sdata.tables[spare] = sdata.tables[name]
    sdata.write_element(spare)
    sdata.delete_element_from_disk(name)
    sdata.write_element(name)
    sdata.delete_element_from_disk(spare)
