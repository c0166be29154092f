"""Whose workers compute the tiles."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client


def find_client(client: Client | None) -> Client | None:
    """Return the client that was passed or else the active one; None where there is none, and within a task.

    Raises
    ------
    TypeError
        It is no client.
    ValueError
        It is closed, or made for asynchronous use.
    """
    distributed = sys.modules.get("distributed")
    if client is None:
        # Who has an active client has imported distributed.
        active = None if distributed is None else _active(distributed)
        return active if active is not None and active.status == "running" and not active.asynchronous else None
    if distributed is None or not isinstance(client, distributed.Client):
        raise TypeError(f"`client` is a {type(client).__name__}; pass a dask.distributed Client, or None.")
    if client.status != "running":
        raise ValueError(f"`client` is {client.status}, not running; connect it to its cluster anew.")
    if client.asynchronous:
        raise ValueError(
            "`client` is asynchronous, but `predict` waits for it; pass one made without asynchronous=True."
        )
    return client


def _active(distributed: Any) -> Any:
    try:
        distributed.get_worker()
    except ValueError:
        try:
            return distributed.Client.current()
        except ValueError:
            return None
    # Within a task: waiting here for other tasks would block the worker.
    return None
