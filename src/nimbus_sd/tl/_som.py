"""Self-organizing maps: cells become the nodes of a grid, by one of three engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

Engine = Literal["auto", "online", "batch", "minisom"]
ENGINES = ("auto", "online", "batch", "minisom")

# Compiling `batch` takes 15 s of one core and `online` 2 s; then they take 30 us and 180 us per cell with 40 channels.
_BATCH_FROM = 100_000
# Batches are maps of their own that are joined; below this size joined maps fit worse than one.
_CELLS_OF_BATCH, _MOST_BATCHES = 100_000, 10
_PASSES, _FEWEST_STEPS, _MOST_STEPS = 10, 10_000, 100_000
_LEARNING_RATE = 0.05


def engine_for(engine: Engine, n_cells: int) -> Engine:
    """Return the engine that ``"auto"`` stands for, or the one given.

    Raises
    ------
    ImportError
        If its package is not installed.
    ValueError
        If there is none of that name.
    """
    if engine not in ENGINES:
        raise ValueError(f"`engine` is {engine!r}; it must be one of {', '.join(map(repr, ENGINES))}.")
    if engine == "minisom":
        return engine
    try:
        import flowsom  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`tl.flowsom` needs the package flowsom (GPL): pip install '.[flowsom]' in the clone of nimbus-sd. "
            "engine='minisom' does without, more slowly."
        ) from error
    if engine == "auto":
        return "batch" if n_cells >= _BATCH_FROM else "online"
    return engine


def fit_codes(
    values: NDArray[np.float32], xdim: int, ydim: int, engine: Engine, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Fit a map.

    Parameters
    ----------
    values
        (cells, channels), at least as many cells as nodes.
    xdim, ydim
        Size of the grid.
    engine
        ``"online"`` or ``"batch"`` of the flowsom package, or ``"minisom"``.
    rng
        Source of all randomness.

    Returns
    -------
    Codes, (xdim * ydim, channels): node ``x * ydim + y`` is at (x, y) of the grid.
    """
    if engine == "minisom":
        return _minisom(values, xdim, ydim, rng)
    seed = int(rng.integers(2**31))
    with _global_random_state_kept():
        if engine == "online":
            from flowsom.models import SOMEstimator

            fitted = SOMEstimator(xdim=xdim, ydim=ydim, rlen=_PASSES, seed=seed).fit(values)
        else:
            from flowsom.models.batch import BatchSOMEstimator

            batches = int(np.clip(len(values) // _CELLS_OF_BATCH, 1, _MOST_BATCHES))
            fitted = BatchSOMEstimator(xdim=xdim, ydim=ydim, rlen=_PASSES, num_batches=batches, seed=seed).fit(values)
    return np.asarray(fitted.codes, np.float32)


def nearest_node(
    values: NDArray[np.float32], codes: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each cell's nearest node and its Euclidean distance, both (cells,)."""
    from sklearn.metrics import pairwise_distances_argmin_min

    node, distance = pairwise_distances_argmin_min(values, codes)
    return node.astype(np.int64), distance.astype(np.float64)


def _minisom(values: NDArray[np.float32], xdim: int, ydim: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Fit with the schedule of FlowSOM: squares around the nearest node that shrink, then the node alone.

    The cells are drawn here: MiniSom would take the first ones where there are more cells than steps.
    """
    from minisom import MiniSom

    grid = np.stack(np.meshgrid(np.arange(xdim), np.arange(ydim), indexing="ij"), axis=-1).reshape(-1, 2)
    radius = int(np.quantile(pdist(grid, "chebyshev"), 0.67))
    steps = min(max(_PASSES * len(values), _FEWEST_STEPS), _MOST_STEPS)
    codes = values[rng.choice(len(values), len(grid), replace=False)].reshape(xdim, ydim, -1).astype(np.float64)
    for sigma, share in ((radius + 1, 2 / 3), (1, 1 / 3)):
        part = int(steps * share)
        som = MiniSom(
            xdim,
            ydim,
            values.shape[1],
            sigma=sigma,
            learning_rate=_LEARNING_RATE,
            decay_function="linear_decay_to_zero",
            sigma_decay_function="linear_decay_to_one",
            neighborhood_function="bubble",
        )
        som.get_weights()[:] = codes
        som.train(values[rng.integers(len(values), size=part)], part)
        codes = som.get_weights()
    return codes.reshape(len(grid), -1).astype(np.float32)


@contextmanager
def _global_random_state_kept() -> Iterator[None]:
    """Keep numpy's global random state, which the flowsom package seeds anew."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
