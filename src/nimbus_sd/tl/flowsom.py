"""FlowSOM: a self-organizing map of many nodes, joined to metaclusters; and new cells on such a map."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from nimbus_sd import keys
from nimbus_sd.tl._consensus import consensus_labels, mean_silhouettes, numbers_to_try, separable_types
from nimbus_sd.tl._inputs import check_count, check_installed, check_rng, scored_matrix
from nimbus_sd.tl._results import by_size, check_key_added, cluster_column, log_overwritten

logger = logging.getLogger("nimbus_sd")

Engine = Literal["auto", "online", "batch", "minisom"]
Floats: TypeAlias = NDArray[np.float32]

# Compiling `batch` takes 15 s of one core and `online` 2 s; then they take 30 us and 180 us per cell with 40 channels.
_BATCH_FROM = 100_000
# Batches are maps of their own that are joined; below this size joined maps fit worse than one.
_CELLS_OF_BATCH, _MOST_BATCHES = 100_000, 10
_PASSES, _FEWEST_STEPS, _MOST_STEPS = 10, 10_000, 100_000
_LEARNING_RATE = 0.05


def flowsom(
    adata: AnnData,
    *,
    layer: str = keys.NIMBUS,
    channels: Sequence[str] | None = None,
    xdim: int = 15,
    ydim: int = 15,
    n_metaclusters: int | None = None,
    engine: Engine = "auto",
    rng: int | np.random.Generator = 0,
    key_added: str = "flowsom_nimbus",
) -> None:
    """Over-cluster cells by their scores with a self-organizing map, and merge its nodes into metaclusters.

    As in the paper (Methods), except for its merging by hand. Metaclusters are the nodes that hierarchical clustering
    (average linkage) of 90 % of the nodes, 100 times, keeps together (Van Gassen et al. 2015).

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Layer of scores, or of other values of one scale, as distances are Euclidean.
    channels
        Channels to cluster by, all by default; leave out counterstains and markers of states. Channels without a score,
        and then cells that lack one, are left out with a warning.
    xdim, ydim
        Size of the grid of nodes.
    n_metaclusters
        How many; None takes as many, from 2 to 40, as there are separable groups of nodes: each of at least 0.5 % of
        the cells, any two at least 0.7 apart in the mean score of a channel. Where values are outside [0, 1] it is the
        number with the largest mean silhouette of the nodes. See :func:`nimbus_sd.pl.metacluster_suggestion`.
    engine
        ``"online"``, and ``"batch"`` for 100,000 cells or more, are of the flowsom package (extra ``flowsom``, GPL);
        ``"auto"`` chooses one. ``"minisom"`` needs no extra, and is fitted to 100,000 randomly drawn cells at most.
    rng
        Seed or generator. The same call gives the same result on any number of cores.
    key_added
        Name of the results.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``: metacluster, categorical, ``"0"`` is the largest; missing for cells without all scores
        - ``obs[f"{key_added}_node"]``: node, categorical, ``x * ydim + y`` for the one at (x, y) of the grid
        - ``uns[key_added]``: ``tool``, ``params``, ``channels``; for each node ``codes`` (nodes x channels, float32),
          ``counts`` of its cells and ``metaclusters`` (without cells that of the nearest one with cells);
          ``mean_distance`` of the cells to their nodes; ``suggestion`` if there was one: ``n_metaclusters`` tried,
          ``silhouette`` of each, and the one ``suggested``

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.tl.flowsom(adata, layer="gold", channels=["CD3", "CD20", "PanCK"], xdim=5, ydim=5, engine="minisom")
    >>> adata.uns["flowsom_nimbus"]["codes"].shape
    (25, 3)
    """
    check_count("xdim", xdim, 1)
    check_count("ydim", ydim, 1)
    n_nodes = xdim * ydim
    if n_nodes < 3:
        raise ValueError(f"`xdim` and `ydim` are {xdim} and {ydim}; a grid has at least 3 nodes.")
    check_rng(rng)
    if n_metaclusters is not None:
        check_count("n_metaclusters", n_metaclusters, 1)
        if n_metaclusters > n_nodes:
            raise ValueError(f"`n_metaclusters` is {n_metaclusters}, but the grid has {n_nodes} nodes only.")
    earlier = check_key_added(adata, key_added, "flowsom", [("obs", key_added), ("obs", f"{key_added}_node")])
    values, used, names = scored_matrix(adata, layer, channels)
    if len(values) < n_nodes:
        raise ValueError(f"{len(values)} cells have all scores; a grid of {xdim} x {ydim} needs {n_nodes} or more.")
    engine = _choose_engine(engine, len(values))
    generator = np.random.default_rng(rng)

    codes = _fit_codes(values, xdim, ydim, engine, generator)
    node, distance = _nearest_node(values, codes)
    counts = np.bincount(node, minlength=n_nodes)
    sums = np.stack([np.bincount(node, column, n_nodes) for column in values.T], axis=1)
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    metacluster, suggestion = _join_nodes(codes, counts, means, n_metaclusters, generator)
    n_joined = int(metacluster.max()) + 1

    adata.obs[key_added] = cluster_column(metacluster[node], used, n_joined)
    adata.obs[f"{key_added}_node"] = cluster_column(node, used, n_nodes)
    params = {"layer": layer, "xdim": int(xdim), "ydim": int(ydim), "n_metaclusters": n_joined, "engine": engine}
    adata.uns[key_added] = {
        "tool": "flowsom",
        "params": params | ({} if isinstance(rng, np.random.Generator) else {"rng": int(rng)}),
        "channels": np.array(names),
        "codes": codes,
        "counts": counts,
        "metaclusters": np.array([str(number) for number in range(n_joined)])[metacluster],
        "mean_distance": float(distance.mean()),
    } | ({"suggestion": suggestion} if suggestion else {})
    log_overwritten(earlier, "flowsom")
    logger.info("added obs[%r]: %d metaclusters by layer %r and engine %r", key_added, n_joined, layer, engine)


def map_to_som(
    adata: AnnData,
    reference: AnnData,
    *,
    key: str = "flowsom_nimbus",
    layer: str | None = None,
    key_added: str | None = None,
) -> None:
    """Assign cells to the nodes and metaclusters of a map that :func:`flowsom` fitted to other cells.

    Parameters
    ----------
    adata
        New cells x channels; channels may be in another order.
    reference
        The table with the map in its ``uns``; its cells are not needed.
    key
        Name of the map there.
    layer
        Layer of ``adata``, by default that of the map. Cells that lack a score are left out with a warning; a channel
        without any is an error.
    key_added
        Name of the results, by default that of the map.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``, ``obs[f"{key_added}_node"]``: as :func:`flowsom`, with all categories of the map
        - ``uns[key_added]``: ``tool``, ``params``, ``counts`` of the new cells per node, and their ``mean_distance``
          to their nodes. If it is much above that of the map, these cells are of another kind.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> first, second = (adata[adata.obs["region"] == f"fov{i}_labels"].copy() for i in (1, 2))
    >>> ns.tl.flowsom(first, layer="gold", xdim=5, ydim=5, n_metaclusters=6, engine="minisom")
    >>> ns.tl.map_to_som(second, first)
    >>> list(second.obs["flowsom_nimbus"].cat.categories)
    ['0', '1', '2', '3', '4', '5']
    """
    if not hasattr(reference, "uns"):
        raise TypeError(f"`reference` is {reference!r:.80}; it must be the table (AnnData) of the map named `key`.")
    som = reference.uns.get(key)
    if not isinstance(som, Mapping) or som.get("tool") != "flowsom":
        raise KeyError(f"`reference` has no map uns[{key!r}] of `tl.flowsom`; `uns` has {list(reference.uns)}.")
    key_added = key if key_added is None else key_added
    layer = str(som["params"]["layer"]) if layer is None else layer
    earlier = check_key_added(adata, key_added, "map_to_som", [("obs", key_added), ("obs", f"{key_added}_node")])
    values, used, _ = scored_matrix(adata, layer, list(som["channels"]), need_all=True)
    codes = np.asarray(som["codes"], np.float32)
    node, distance = _nearest_node(values, codes)
    metacluster = np.asarray(som["metaclusters"]).astype(np.int64)

    adata.obs[key_added] = cluster_column(metacluster[node], used, int(som["params"]["n_metaclusters"]))
    adata.obs[f"{key_added}_node"] = cluster_column(node, used, len(codes))
    adata.uns[key_added] = {
        "tool": "map_to_som",
        "params": {"layer": layer, "key": key},
        "counts": np.bincount(node, minlength=len(codes)),
        "mean_distance": float(distance.mean()),
    }
    log_overwritten(earlier, "map_to_som")
    means = distance.mean(), som["mean_distance"]
    logger.info("added obs[%r]: mean distance to the nodes %.3g, in the map itself %.3g", key_added, *means)


def _choose_engine(engine: Engine, n_cells: int) -> Engine:
    """Check that the engine can be used; ``"auto"`` is the faster one of the flowsom package."""
    if engine not in get_args(Engine):
        raise ValueError(f"`engine` is {engine!r}; it must be one of {', '.join(map(repr, get_args(Engine)))}.")
    if engine != "minisom":
        check_installed("flowsom", "flowsom", " engine='minisom' does without, more slowly.")
    return engine if engine != "auto" else "batch" if n_cells >= _BATCH_FROM else "online"


def _fit_codes(values: Floats, xdim: int, ydim: int, engine: Engine, rng: np.random.Generator) -> Floats:
    """Fit a map to (cells, channels); returns (xdim * ydim, channels), node ``x * ydim + y`` is at (x, y)."""
    if engine == "minisom":
        return _fit_minisom(values, xdim, ydim, rng)
    settings = {"xdim": xdim, "ydim": ydim, "rlen": _PASSES, "seed": int(rng.integers(2**31))}
    # The flowsom package seeds numpy's global random state.
    state = np.random.get_state()  # noqa: NPY002
    if engine == "online":
        from flowsom.models import SOMEstimator as Estimator
    else:
        from flowsom.models.batch import BatchSOMEstimator as Estimator

        settings["num_batches"] = int(np.clip(len(values) // _CELLS_OF_BATCH, 1, _MOST_BATCHES))
    try:
        fitted = Estimator(**settings).fit(values)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return np.asarray(fitted.codes, np.float32)


def _fit_minisom(values: Floats, xdim: int, ydim: int, rng: np.random.Generator) -> Floats:
    """Fit with FlowSOM's schedule: squares around the nearest node that shrink, then the node alone."""
    from minisom import MiniSom

    grid = np.stack(np.meshgrid(np.arange(xdim), np.arange(ydim), indexing="ij"), axis=-1).reshape(-1, 2)
    radius = int(np.quantile(pdist(grid, "chebyshev"), 0.67))
    steps = min(max(_PASSES * len(values), _FEWEST_STEPS), _MOST_STEPS)
    codes = values[rng.choice(len(values), len(grid), replace=False)].reshape(xdim, ydim, -1).astype(np.float64)
    schedule: dict[str, Any] = {"learning_rate": _LEARNING_RATE, "neighborhood_function": "bubble"}
    schedule |= {"decay_function": "linear_decay_to_zero", "sigma_decay_function": "linear_decay_to_one"}
    for sigma, share in ((radius + 1, 2 / 3), (1, 1 / 3)):
        part = int(steps * share)
        som = MiniSom(xdim, ydim, values.shape[1], sigma=sigma, **schedule)
        som.get_weights()[:] = codes
        # Drawn here, as MiniSom would take the first cells where there are more cells than steps.
        som.train(values[rng.integers(len(values), size=part)], part)
        codes = som.get_weights()
    return codes.reshape(len(grid), -1).astype(np.float32)


def _nearest_node(values: Floats, codes: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each cell's nearest node and its Euclidean distance, both (cells,)."""
    from sklearn.metrics import pairwise_distances_argmin_min

    node, distance = pairwise_distances_argmin_min(values, codes)
    return node.astype(np.int64), distance.astype(np.float64)


def _join_nodes(
    codes: Floats, counts: NDArray[np.int64], means: Floats, n: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the metacluster of each node, 0 for that with most cells, and how their number was suggested."""
    taken = np.flatnonzero(counts)
    if len(taken) < (n or 3):
        purpose = "for so many `n_metaclusters`" if n else "to suggest a number of metaclusters"
        raise ValueError(f"Only {len(taken)} nodes have cells, too few {purpose}: add `channels` in which they differ.")
    numbers = numbers_to_try(len(taken)) if n is None else np.array([n])
    labels = consensus_labels(codes[taken], numbers, rng)
    best, suggestion = 0, {}
    if n is None:
        silhouettes = mean_silhouettes(codes[taken], labels)
        best = int(np.argmax(silhouettes))
        if means[taken].min() >= 0 and means[taken].max() <= 1:
            # Means of the cells, as codes are drawn to those of their neighbours.
            best = int(np.clip(separable_types(means[taken], counts[taken]) - numbers[0], 0, len(numbers) - 1))
        suggestion = {"n_metaclusters": numbers, "silhouette": silhouettes, "suggested": int(numbers[best])}
    metacluster = by_size(np.bincount(labels[best], counts[taken]))[labels[best]]
    # Nodes without cells go with the nearest one that has some.
    return metacluster[_nearest_node(codes, codes[taken])[0]], suggestion
