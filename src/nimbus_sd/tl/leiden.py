"""Leiden clusters of scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logit

from nimbus_sd import keys
from nimbus_sd.tl._inputs import check_count, check_installed, check_number, check_rng, scored_matrix
from nimbus_sd.tl._results import by_size, check_key_added, cluster_column, log_overwritten

logger = logging.getLogger("nimbus_sd")

_TOOL = "leiden"
_ITERATIONS = 2
_NEAREST_TO_END = 0.01
_EXACT_BELOW = 8192
# What counts as a stable partition and as a small cluster, and the factor between neighbouring resolutions.
_STABLE, _FEW, _STEP = 0.8, 0.005, 1.25


def leiden(
    adata: AnnData,
    *,
    layer: str = keys.NIMBUS,
    channels: Sequence[str] | None = None,
    n_neighbors: int = 15,
    resolution: float = 1.0,
    transform: Literal["logit"] | None = None,
    rng: int | np.random.Generator = 0,
    key_added: str = "leiden_nimbus",
) -> None:
    """Cluster cells by their scores: scanpy's neighbours on the layer (never on ``X``), then Leiden by igraph.

    Needs the extra ``leiden`` (igraph). With an int as ``rng`` the partition is that of
    ``scanpy.pp.neighbors(use_rep=...)`` and ``scanpy.tl.leiden(flavor="igraph", n_iterations=2, directed=False)`` with
    that ``random_state``. From 8,192 cells on the neighbours are approximate, and the result is the same only on the
    same number of threads.

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Layer of scores, or of other values.
    channels
        Channels to cluster by, all by default; leave out counterstains and markers of states. Channels without a score,
        and then cells that lack one, are left out with a warning.
    n_neighbors
        Neighbours of each cell, itself included.
    resolution
        Higher values give more clusters.
    transform
        ``"logit"`` spreads scores near 0 and 1, clipped to [0.01, 0.99]; None takes them as they are.
    rng
        Seed or generator.
    key_added
        Name of the results.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``: categorical, ``"0"`` is the largest cluster; missing for cells without all scores
        - ``uns[key_added]``: ``tool``, ``params``, and ``stability``: adjusted Rand indices (1: the same) of this
          partition with those of an ``other_seed``, and of a ``lower_resolution`` and a ``higher_resolution`` (by a
          factor of 1.25). A warning is logged where the other seed gives less than 0.8, or more than a quarter of the
          clusters have less than 0.5 % of the cells
        - ``uns[f"{key_added}_neighbors"]``, ``obsp[f"{key_added}_neighbors_connectivities"]`` and ``..._distances"]``:
          as scanpy sets them, for ``neighbors_key`` of its tools; rows of cells without all scores are empty
        - ``obsm[f"{key_added}_neighbors"]``: the values clustered, float32, (cells, channels used), NaN for such cells

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.tl.leiden(adata, layer="gold", channels=["CD3", "CD20", "CD68", "PanCK"], resolution=0.2)
    >>> adata.obs["leiden_nimbus"].cat.categories[0]
    '0'
    """
    check_count("n_neighbors", n_neighbors, 2)
    check_number("resolution", resolution, lambda value: 0 < value < np.inf, "above 0")
    check_rng(rng)
    if transform not in (None, "logit"):
        raise ValueError(f"`transform` is {transform!r}; it must be None or 'logit'. For others add a layer.")
    check_installed("igraph", _TOOL)
    graph_key = f"{key_added}_neighbors"
    graphs = {name: f"{graph_key}_{name}" for name in ("connectivities", "distances")}
    places = [("obs", key_added), ("uns", graph_key), ("obsm", graph_key), *(("obsp", key) for key in graphs.values())]
    earlier = check_key_added(adata, key_added, _TOOL, places)
    values, used, names = scored_matrix(adata, layer, channels)
    if len(values) <= n_neighbors:
        raise ValueError(f"Only {len(values)} cells have all scores, which is too few for `n_neighbors`={n_neighbors}.")
    if (values == values[0]).all():
        raise ValueError(f"All {len(values)} cells have the same values in layer {layer!r}: there are no clusters.")
    if transform == "logit":
        if values.min() < 0 or values.max() > 1:
            raise ValueError(f"transform='logit' is for scores in [0, 1]; layer {layer!r} has other values.")
        values = logit(np.clip(values, _NEAREST_TO_END, 1 - _NEAREST_TO_END)).astype(np.float32)
    # An int as it is, so that scanpy gives the same with it.
    seed = int(rng.integers(2**31)) if isinstance(rng, np.random.Generator) else int(rng)
    clustered = _cluster(values, n_neighbors, resolution, seed)
    labels = clustered.obs["leiden"].cat.codes.to_numpy()
    sizes = np.bincount(labels)

    adata.obs[key_added] = cluster_column(by_size(sizes)[labels], used, len(sizes))
    clustered_values = np.full((used.size, values.shape[1]), np.nan, np.float32)
    clustered_values[used] = values
    adata.obsm[graph_key] = clustered_values
    for name, key in graphs.items():
        adata.obsp[key] = _among_all_cells(clustered.obsp[name], used)
    of_scanpy = {**clustered.uns["neighbors"]["params"], "use_rep": graph_key}
    adata.uns[graph_key] = {**{f"{name}_key": key for name, key in graphs.items()}, "params": of_scanpy}
    params = {"layer": layer, "channels": names, "n_neighbors": int(n_neighbors), "resolution": float(resolution)}
    params |= {"transform": transform or "none", "random_state": seed, "n_iterations": _ITERATIONS}
    stability = _stability(clustered, resolution, seed)
    adata.uns[key_added] = {"tool": _TOOL, "params": params | {"neighbors_key": graph_key}, "stability": stability}
    log_overwritten(earlier, _TOOL)
    logger.info("added obs[%r]: %d clusters of %d cells by layer %r", key_added, len(sizes), len(values), layer)
    few = int((sizes < _FEW * len(values)).sum())
    if (alike := stability["other_seed"]) < _STABLE or few > len(sizes) / 4:
        doubt = (
            f"{few} of {len(sizes)} clusters have less than {_FEW:.1%} of the cells, and another seed gives a partition"
        )
        doubt += f" like this one by an adjusted Rand index of {alike:.2f} (1: the same)"
        logger.warning("%s: a `resolution` below %g may be steadier", doubt, resolution)


def _cluster(values: NDArray[np.float32], n_neighbors: int, resolution: float, seed: int) -> AnnData:
    """Return a table of the values (cells, channels) with scanpy's graph of neighbours and ``obs["leiden"]``."""
    import scanpy as sc

    table, transformer = AnnData(values), None
    if len(values) >= _EXACT_BELOW:
        transformer = _approximate_neighbors(len(values), n_neighbors, seed, sc.settings.n_jobs)
    sc.pp.neighbors(table, n_neighbors, use_rep="X", random_state=seed, transformer=transformer)
    sc.tl.leiden(table, resolution, random_state=seed, flavor="igraph", n_iterations=_ITERATIONS, directed=False)
    return table


def _stability(clustered: AnnData, resolution: float, seed: int) -> dict[str, float]:
    """Return how like ``obs["leiden"]`` other partitions of the same graph are, as adjusted Rand indices."""
    import scanpy as sc
    from sklearn.metrics import adjusted_rand_score

    others = {"other_seed": (resolution, (seed + 1) % 2**32)}
    others |= {"lower_resolution": (resolution / _STEP, seed), "higher_resolution": (resolution * _STEP, seed)}
    settings = {"flavor": "igraph", "n_iterations": _ITERATIONS, "directed": False}
    for name, (other, state) in others.items():
        sc.tl.leiden(clustered, other, random_state=state, key_added=name, **settings)
    return {name: float(adjusted_rand_score(clustered.obs["leiden"], clustered.obs[name])) for name in others}


def _approximate_neighbors(n_cells: int, n_neighbors: int, seed: int, n_jobs: int) -> Any:
    """Return PyNNDescent with the settings that scanpy takes, but with a sparse matrix as its result."""
    from pynndescent import PyNNDescentTransformer

    n_trees, n_iters = min(64, 5 + round(n_cells**0.5 / 20)), max(5, round(np.log2(n_cells)))
    settings = {"random_state": seed, "n_jobs": n_jobs, "n_trees": n_trees, "n_iters": n_iters}
    transformer = PyNNDescentTransformer(n_neighbors, "euclidean", **settings)
    # From 0.7 on it gives a sparse array, on which scanpy 1.11 fails.
    fit_transform = transformer.fit_transform
    transformer.fit_transform = lambda values: sparse.csr_matrix(fit_transform(values))
    return transformer


def _among_all_cells(graph: sparse.csr_matrix, used: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Put the graph of the used cells among all cells."""
    if used.all():
        return graph
    cells = np.flatnonzero(used)
    pairs = graph.tocoo()
    return sparse.csr_matrix((pairs.data, (cells[pairs.row], cells[pairs.col])), shape=(used.size, used.size))
