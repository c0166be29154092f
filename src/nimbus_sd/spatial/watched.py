"""Zarr arrays that are known to be there while they are read: by itself, zarr fills in chunks that it does not find."""

from __future__ import annotations

import copy
from typing import Any

import zarr
from dask._task_spec import GraphNode
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath, WrapperStore


class _WatchedStore(WrapperStore[Store]):
    """Tells chunks that were never written, which are zeros, from those of an array that went away.

    Parameters
    ----------
    store
        Where the array lies.
    metadata
        The array's key that must be there.
    """

    def __init__(self, store: Store, metadata: str) -> None:
        super().__init__(store)
        self.metadata = metadata

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        # In this order: who was away for a moment, when the chunk was read, is back for both or for the chunk alone.
        if found is None and (
            await super().get(self.metadata, prototype) is None
            or await super().get(key, prototype, byte_range) is not None
        ):
            raise FileNotFoundError(f"{self._store}/{self.metadata} went away while it was read")
        return found


def watched(array: zarr.Array) -> zarr.Array:
    """Return the same array, whose reading fails with FileNotFoundError where the array is not there, or was not."""
    name = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    store = _WatchedStore(array.store, f"{array.path}/{name}".lstrip("/"))
    return zarr.Array(zarr.AsyncArray(array.metadata, StorePath(store, array.path)))


def watch(part: Any) -> Any:
    """Replace the Zarr arrays in a part of a dask graph by watched ones, also those that xarray opened."""
    if isinstance(part, zarr.Array):
        return watched(part)
    if type(part) is dict:
        return {key: watch(value) for key, value in part.items()}
    if type(part) in (list, tuple):
        return type(part)(map(watch, part))
    if isinstance(part, GraphNode) or type(part).__module__.startswith(("xarray.backends.", "xarray.core.indexing")):
        part = copy.copy(part)
        for name in ("value", "args", "kwargs", "array", "_array"):
            if hasattr(part, name):
                setattr(part, name, watch(getattr(part, name)))
    return part
