"""Stores to read, and files to write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
