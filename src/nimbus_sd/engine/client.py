"""Who computes the tiles: workers of a client, or this process."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from nimbus_sd.engine.cluster import run_on_client
from nimbus_sd.engine.local import run_here
from nimbus_sd.engine.score import Runner
from nimbus_sd.models import Model, Scorer

if TYPE_CHECKING:
    import torch
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


def find_runner(client: Client | None, model: Model, scorer: Scorer, device: str | torch.device) -> Runner:
    """Bind what computes tiles: the client's workers, each with a scorer of its own on ``device``, or this process."""
    if client is None:
        return partial(run_here, scorer=scorer)
    settings = {"precision": scorer.precision, "tta": scorer.tta, "batch_size": scorer.batch_size}
    return partial(run_on_client, client=client, model=model, settings={"device": str(device), **settings})


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
