"""Chooses what computes the tiles, this process or a dask.distributed cluster, and runs them on its workers."""

from __future__ import annotations

import hashlib
import logging
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from nimbus_sd.engine.plan import Plan
from nimbus_sd.engine.run import Computed, Job, OnShare, Runner, run_here
from nimbus_sd.engine.tile import TileSums
from nimbus_sd.models import Model, Scorer
from nimbus_sd.spatial import as_os_error

if TYPE_CHECKING:
    from distributed import Client, Future

# A tile is tried again so often after an error, such as of a file system that hiccups.
_RETRIES = 2
# A tile that has waited so many seconds for a worker is handed out anew, as another worker may be idle.
_PATIENCE = 5.0
# Bytes to send to each worker above which the user is told of a better way.
_MUCH = 2**28

logger = logging.getLogger("nimbus_sd")


def find_client(client: Client | None) -> Client | None:
    """Return the client that was passed or else the active one; None where there is none, and within a task.

    One that is closed or asynchronous is a ValueError.
    """
    distributed = sys.modules.get("distributed")
    if client is None:
        # An active client implies that distributed is imported.
        active = None if distributed is None else _active(distributed)
        return active if active is not None and active.status == "running" and not active.asynchronous else None
    if distributed is None or not isinstance(client, distributed.Client):
        raise TypeError(f"`client` is a {type(client).__name__}; pass a dask.distributed Client, or None.")
    if client.status != "running":
        raise ValueError(f"`client` is {client.status}, not running; connect it to its cluster anew.")
    if client.asynchronous:
        raise ValueError("`client` is asynchronous; pass one made without asynchronous=True.")
    return client


def find_runner(client: Client | None, model: Model, scorer: Scorer, device: str | torch.device) -> Runner:
    """Return what computes tiles: the client's workers, each with its own scorer on ``device``, or this process."""
    if client is None:
        return partial(run_here, scorer=scorer)
    settings = {"precision": scorer.precision, "tta": scorer.tta, "batch_size": scorer.batch_size}
    return partial(run_on_client, client=client, model=model, settings={"device": str(device), **settings})


def run_on_client(
    plan: Plan, jobs: Sequence[Job], on_share: OnShare, *, client: Client, model: Model, settings: dict[str, Any]
) -> Computed:
    """Compute tiles on the workers of a cluster, each tile as :func:`run_here` does.

    The scheduler is dask's: it hands tiles out, gives those of a dead worker to others, and takes in workers that come
    later. Each worker makes its :class:`~nimbus_sd.models.Scorer` of ``model`` and ``settings``, once. Tiles are
    yielded in the order in which they are finished.
    """
    from distributed import CancelledError, KilledWorker, as_completed

    logger.info("%d tiles run on a cluster of %d workers", len(jobs), len(client.nthreads()))
    sent = {"plan": _sent(client, (plan, *plan.sample())), "scorer": _sent(client, (model, settings))}
    names = {kind: future.key for kind, future in sent.items()}
    futures = client.map(
        _compute,
        jobs,
        plan=sent["plan"],
        scorer=sent["scorer"],
        names=names,
        key="nimbus-sd-tile",
        pure=False,
        retries=_RETRIES,
    )
    try:
        for future in as_completed(futures, loop=client.loop):
            result = future.result()
            on_share(1.0)
            yield result
            future.release()
    except KilledWorker as error:
        lost = f"A tile took {error.allowed_failures + 1} workers down with it; most often their memory is too small"
        raise RuntimeError(f"{lost}. Give them more, or fewer threads, or pass a smaller `tile_size`.") from error
    except CancelledError as error:
        raise ConnectionError("The cluster was closed, or cannot be reached any more, before all was done.") from error
    finally:
        # The scheduler then drops tiles that nobody waits for any more.
        for future in futures:
            future.release()


def _active(distributed: Any) -> Any:
    with suppress(ValueError):
        distributed.get_worker()
        # Within a task: waiting here for other tasks would block the worker.
        return None
    with suppress(ValueError):
        return distributed.Client.current()
    return None


def _sent(client: Client, content: object) -> Future:
    """Bring an object to the cluster as bytes, which workers hand on to each other, named by their content.

    They come from a task, not from `scatter`: so the scheduler can have them made again when their only holder dies.
    """
    from distributed.protocol import pickle

    data = pickle.dumps(content)
    if len(data) > _MUCH:
        travels = f"{len(data) / 2**30:.1f} GiB travel to each worker: shapes, and images or labels that are in memory"
        advice = "Read the SpatialData from a Zarr store that all machines reach, and of images only names travel."
        warnings.warn(f"{travels}. {advice}", UserWarning, stacklevel=6)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        return client.submit(bytes, data, key=f"nimbus-sd-{hashlib.sha256(data).hexdigest()}", pure=True)


class _Bench:
    """What a worker keeps from tile to tile."""

    def __init__(self) -> None:
        self.opening = threading.Lock()
        # One tile is read while another one is in the network; more would only take memory.
        self.room = threading.Semaphore(2)
        self._kept: dict[str, tuple[str, Any]] = {}

    def opened(self, kind: str, name: str, make: Callable[[], Any]) -> Any:
        """Return what was made under this name, the last one of its kind."""
        with self.opening:
            if self._kept.get(kind, ("", None))[0] != name:
                self._kept[kind] = (name, make())
            return self._kept[kind][1]


_BENCHES: WeakKeyDictionary[Any, _Bench] = WeakKeyDictionary()


def _compute(job: Job, *, plan: bytes, scorer: bytes, names: dict[str, str]) -> tuple[int, TileSums | None]:
    """Compute a tile, on a worker."""
    from distributed import Reschedule, get_worker

    bench = _BENCHES.setdefault(get_worker(), _Bench())
    if not bench.room.acquire(timeout=_PATIENCE):
        raise Reschedule
    try:
        opened = bench.opened("plan", names["plan"], lambda: _plan(plan))
        model, turn = bench.opened("scorer", names["scorer"], lambda: _scorer(scorer))
        (result,) = run_here(opened, [job], lambda share: None, scorer=model, turn=turn)
        return result
    finally:
        bench.room.release()


def _plan(data: bytes) -> Plan:
    """Unpack the plan on a worker, once it has read a tile and sees there what the caller sees."""
    from distributed import get_worker
    from distributed.protocol import pickle

    plan, number, digests = pickle.loads(data)
    worker = f"Worker {get_worker().address} on {socket.gethostname()}"
    try:
        other = plan.reader(number).first_difference(digests)
    except OSError as error:
        raise as_os_error(error, f"{worker}: {error}") from error
    if other:
        difference = f"{worker} sees other {other} than the process that called `predict`"
        raise OSError(f"{difference}. Read the SpatialData from a store that all reach under the same path.")
    return plan


def _scorer(data: bytes) -> tuple[Scorer, Any]:
    """Make the model ready on a worker, and a lock by which one task at a time uses its device."""
    from distributed import Lock, get_worker
    from distributed.protocol import pickle

    worker = get_worker()
    if worker.nanny:
        # Dask lets libraries use one thread for each task, but the network runs one task at a time.
        torch.set_num_threads(worker.state.nthreads)
    model, settings = pickle.loads(data)
    scorer = Scorer(model, **settings)
    if scorer.device.type == "cpu":
        return scorer, threading.Lock()
    # Several workers may share a GPU; then they share the lock's name.
    cuda = scorer.device.type == "cuda"
    name = torch.cuda.get_device_properties(scorer.device).uuid if cuda else socket.gethostname()
    return scorer, Lock(f"nimbus-sd-{scorer.device.type}-{name}")
