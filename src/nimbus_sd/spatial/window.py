"""Reading a window of an element's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
from dask.local import get_sync
from numpy.typing import NDArray

from nimbus_sd.spatial.watched import watch


class Unreadable(Exception):
    """Some pixels cannot be read, for whatever reason: its cause."""


def unreadable(what: str, shape: tuple[int, int], rows: slice, cols: slice, error: Unreadable) -> OSError:
    """Build the error that names what could not be read, where and why."""
    (top, bottom, _), (left, right, _) = rows.indices(shape[0]), cols.indices(shape[1])
    cause = error.__cause__
    return as_os_error(
        cause,
        f"{what} cannot be read in rows {top} to {bottom}, columns {left} to {right} "
        f"({type(cause).__name__}: {cause}). Its data are damaged or out of reach; restore them and try again.",
    )


def as_os_error(cause: BaseException | None, message: str) -> OSError:
    """Build an OSError of its cause's kind, such as FileNotFoundError, where Python itself has such a kind."""
    if isinstance(cause, OSError) and type(cause).__module__ == "builtins":
        return type(cause)(message)
    # Kinds from elsewhere may need more than a message.
    return OSError(message)


def read_window(
    pixels: da.Array,
    repeat: int,
    shape: tuple[int, int],
    rows: slice,
    cols: slice,
    channels: list[int] | None = None,
) -> NDArray:
    """Read a window of the common grid from an element whose pixels cover ``repeat`` x ``repeat`` of it.

    Where the element ends up to one of its pixels early, its edge is repeated in images (c, y, x), and no
    cell is put in labels (y, x).

    Raises
    ------
    Unreadable
        The element's store or graph fails, for whatever reason, or the store went away.
    """
    windows, inside, outside = [], [], []
    for extent, size, axis in zip(shape, pixels.shape[-2:], (rows, cols), strict=True):
        start, stop, step = axis.indices(extent)
        if step != 1:
            raise ValueError(f"Windows are read without steps, but {axis} was asked for.")
        index = np.arange(start, stop) // repeat
        outside.append(index >= size)
        index = np.minimum(index, size - 1)
        first, last = (index[0], index[-1] + 1) if index.size else (0, 0)
        windows.append(slice(int(first), int(last)))
        inside.append(index - first)
    view = pixels[(..., *windows)]
    if channels is not None and channels != list(range(len(view))):
        view = view[channels]
    try:
        window = np.asarray(view.compute(scheduler=_compute))
    except MemoryError:
        raise
    except Exception as error:
        # Decoders of chunks raise almost anything.
        raise Unreadable from error
    if repeat > 1:
        window = window[..., inside[0][:, None], inside[1]]
        if window.ndim == 2:
            window[outside[0][:, None] | outside[1]] = 0
    return window


def _compute(graph: Mapping[Any, Any], keys: Any, **settings: Any) -> Any:
    """Compute a graph whose Zarr arrays are watched.

    Threads of dask's own would fight with the caller's, and deadlock within a distributed worker.
    """
    graph = graph if isinstance(graph, Mapping) else graph.__dask_graph__()
    return get_sync({key: watch(node) for key, node in graph.items()}, keys, **settings)
