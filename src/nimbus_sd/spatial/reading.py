"""Reading a window of an element's pixels, from stores that may be damaged or go away meanwhile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask._task_spec import GraphNode
from dask.local import get_sync
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath, WrapperStore


def read_window(
    pixels: da.Array,
    repeat: int,
    shape: tuple[int, int],
    window: tuple[slice, slice],
    describe: Callable[[], str],
    channels: list[int] | None = None,
    origin: tuple[int, int] = (0, 0),
) -> NDArray:
    """Read a window of the common grid from an element that starts at ``origin``, its pixels ``repeat`` x ``repeat``.

    Beyond the element, images (c, y, x) repeat its edge, and labels (y, x) have no cell. Raises OSError, which begins
    with ``describe()``, where the store or graph fails or the store went away.
    """
    if any(axis.step not in (None, 1) for axis in window):
        raise ValueError(f"Windows are read without steps, but {window} was asked for.")
    spans = [axis.indices(extent)[:2] for axis, extent in zip(window, shape, strict=True)]
    index = [(np.arange(*span) - start) // repeat for span, start in zip(spans, origin, strict=True)]
    inside = [np.clip(i, 0, size - 1) for i, size in zip(index, pixels.shape[-2:], strict=True)]
    if pixels.ndim == 2 and not all((i == j).any() for i, j in zip(index, inside, strict=True)):
        return np.zeros([len(i) for i in index], pixels.dtype)
    view = pixels[(..., *(slice(int(i[0]), int(i[-1]) + 1) if i.size else slice(0) for i in inside))]
    if channels is not None and channels != list(range(len(view))):
        view = view[channels]
    try:
        values = np.asarray(view.compute(scheduler=_compute))
    except MemoryError:
        raise
    except Exception as error:
        # Decoders of chunks raise almost anything.
        (top, bottom), (left, right) = spans
        place = f"{describe()} cannot be read in rows {top} to {bottom}, columns {left} to {right}"
        reason = f"({type(error).__name__}: {error}). Its data are damaged or out of reach; restore them and try again."
        raise as_os_error(error, f"{place} {reason}") from error
    beyond = [i != j for i, j in zip(index, inside, strict=True)]
    if repeat > 1 or any(axis.any() for axis in beyond):
        rows, cols = (i - i[:1] for i in inside)
        values = values[..., rows[:, None], cols]
        if values.ndim == 2:
            values[beyond[0][:, None] | beyond[1]] = 0
    return values


def as_os_error(cause: BaseException | None, message: str) -> OSError:
    """Build an OSError of its cause's kind, such as FileNotFoundError, where Python itself has such a kind."""
    if isinstance(cause, OSError) and type(cause).__module__ == "builtins":
        return type(cause)(message)
    # Kinds from elsewhere may need more than a message.
    return OSError(message)


def _compute(graph: Mapping[Any, Any], keys: Any, **settings: Any) -> Any:
    """Compute a graph whose Zarr arrays are watched.

    Threads of dask's own would fight with the caller's, and deadlock within a distributed worker.
    """
    graph = graph if isinstance(graph, Mapping) else graph.__dask_graph__()
    return get_sync({key: _watch(node) for key, node in graph.items()}, keys, **settings)


class _WatchedStore(WrapperStore[Store]):
    """Tells chunks that were never written, which zarr reads as zeros, from those of an array that went away.

    ``metadata`` is the array's key that must be there.
    """

    def __init__(self, store: Store, metadata: str) -> None:
        super().__init__(store)
        self.metadata = metadata

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        chunk = await super().get(key, prototype, byte_range)
        # In this order one absence is seen, however short: if it ended before the metadata was read, the chunk is back.
        if chunk is None and (
            await super().get(self.metadata, prototype) is None
            or await super().get(key, prototype, byte_range) is not None
        ):
            raise FileNotFoundError(f"{self._store}/{self.metadata} is not there, or was away while it was read")
        return chunk


def watched(array: zarr.Array) -> zarr.Array:
    """Return the same array, whose reading fails with FileNotFoundError where the array is not there, or was not."""
    name = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    store = _WatchedStore(array.store, f"{array.path}/{name}".lstrip("/"))
    return zarr.Array(zarr.AsyncArray(array.metadata, StorePath(store, array.path)))


def _watch(part: Any) -> Any:
    """Replace the Zarr arrays in a part of a dask graph by watched ones, also those that xarray opened."""
    if isinstance(part, zarr.Array):
        return watched(part)
    if type(part) is dict:
        return {key: _watch(value) for key, value in part.items()}
    if type(part) in (list, tuple):
        return type(part)(map(_watch, part))
    if isinstance(part, GraphNode) or type(part).__module__.startswith(("xarray.backends.", "xarray.core.indexing")):
        part = copy.copy(part)
        for name in ("value", "args", "kwargs", "array", "_array"):
            if hasattr(part, name):
                setattr(part, name, _watch(getattr(part, name)))
    return part
