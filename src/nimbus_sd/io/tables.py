"""Tables into stores, also over those that are there."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import zarr
from spatialdata import SpatialData

from nimbus_sd._disk import lock, put_folder, settle, sync
from nimbus_sd.spatial import WRITING, check_spatialdata, not_found

#: Folder in a store for what is not finished; no element of SpatialData, and no part of Zarr's hierarchy.
_UNFINISHED = ".nimbus-sd"


def save_table(sdata: SpatialData, table_key: str = "table", *, overwrite: bool = True) -> None:
    """Write a table into the store that the data were read from, also in place of one that is there.

    Whenever this is stopped, by kill, a full disk or a power cut, the store has the old table or the new one, whole; no
    other element is touched. If the process dies while the new table takes its place, the old one lies in the store's
    folder ``.nimbus-sd``, and the next call, or ``nimbus-sd predict``, puts it back. Calls for one store take turns.

    Parameters
    ----------
    sdata
        What :func:`spatialdata.read_zarr` returned, or what was written by ``sdata.write``.
    table_key
        Name of the table in ``sdata`` and in the store.
    overwrite
        Replace a table of this name. False makes it a FileExistsError.

    Raises
    ------
    ValueError
        ``sdata`` is not backed by a Zarr store, or another element of the store has the name.
    OSError
        There is no space left, or the store cannot be written to. It is as it was.

    Examples
    --------
    >>> import tempfile
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sdata.write(f"{folder}/example.zarr")
    ...     adata = ns.predict(sdata, channels=["CD3"], progress=False)
    ...     ns.io.save_table(sdata)
    """
    check_spatialdata(sdata)
    if table_key not in sdata.tables:
        raise not_found("table", [table_key], sdata.tables)
    if sdata.path is None:
        raise ValueError("The SpatialData is in memory only; write all of it with `sdata.write('name.zarr')`.")
    store = Path(sdata.path)
    path = store / "tables" / table_key
    for kind in ("images", "labels", "shapes", "points"):
        if (store / kind / table_key).exists():
            raise ValueError(f"{store} has {table_key!r} among its {kind}; rename the table in `sdata.tables`.")
    with _alone(store):
        _restore(store)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{store} has a table {table_key!r} already.")
        folder = store / _UNFINISHED / table_key
        try:
            put_folder(_written(sdata, table_key, folder / "new.zarr"), path, folder / "old" / table_key)
        except BaseException:
            shutil.rmtree(store / _UNFINISHED, ignore_errors=True)
            raise
        shutil.rmtree(folder / "new.zarr")
        _restore(store)


def restore(store: Path) -> set[str]:
    """Tidy a store after a call of `save_table` that was killed; return the table if it was saved already."""
    if not (store / _UNFINISHED).exists():
        return set()
    with _alone(store):
        return _restore(store)


def _restore(store: Path) -> set[str]:
    finished = set()
    for folder in (store / _UNFINISHED).glob("*"):
        new, name = folder / "new.zarr", folder.name
        if not new.exists():
            finished.add(name)
        settle(new / "tables" / name, store / "tables" / name, folder / "old" / name)
    if (store / _UNFINISHED).exists():
        # The store's list of its elements, where it has one.
        content = SpatialData()
        content.path = store
        if content.has_consolidated_metadata():
            content.write_consolidated_metadata()
            for name in ("zarr.json", ".zmetadata"):
                sync(store / name)
        shutil.rmtree(store / _UNFINISHED)
    return finished


def _written(sdata: SpatialData, table_key: str, place: Path) -> Path:
    """Write the table into a store of its own, in the same format as its own store's; return its path there."""
    root = zarr.open_group(sdata.path, mode="r+", use_consolidated=False)
    root.require_group("tables")
    zarr.create_group(place, zarr_format=root.metadata.zarr_format)
    with warnings.catch_warnings():
        # The labels that it is about are in the other store.
        warnings.simplefilter("ignore")
        alone = SpatialData(tables={table_key: sdata.tables[table_key]})
    alone.path = place
    alone.write_element(table_key)
    return place / "tables" / table_key


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Keep other threads out of a store and, where the file system can, other processes."""
    with WRITING, ExitStack() as stack:
        if os.name == "posix":
            descriptor = os.open(store, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            # Some network file systems lock no folders.
            with suppress(OSError):
                lock(descriptor, wait=True)
        yield
