"""Leiden clusters of scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logit

from nimbus_sd import keys
from nimbus_sd.tl._clusters import by_size, check_count, check_number, check_rng, column, seed_of
from nimbus_sd.tl._keys import check_key_added, log_overwritten
from nimbus_sd.tl._matrix import scored_matrix
from nimbus_sd.tl._neighbours import with_neighbours

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "leiden"
_ITERATIONS = 2
_GRAPHS = ("connectivities", "distances")
_NEAREST_TO_END = 0.01


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

    Needs the extra ``leiden`` (igraph). With an int as ``rng`` the partition is the one of
    ``scanpy.pp.neighbors(use_rep=...)`` and ``scanpy.tl.leiden(flavor="igraph", n_iterations=2, directed=False)`` with
    that ``random_state``; only the names differ. From 8,192 cells on scanpy's neighbours are approximate, and depend on
    the number of threads, too.

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Layer of scores, or of other values.
    channels
        Which ones to cluster by; all by default. Leave out counterstains and markers of states.
    n_neighbors
        Neighbours of each cell, itself included.
    resolution
        More clusters if higher.
    transform
        ``"logit"`` spreads scores near 0 and 1, clipped to [0.01, 0.99]; None takes them as they are. For anything
        else add a layer and name it.
    rng
        Source of all randomness. From 8,192 cells on the same call gives the same result on the same number of threads.
    key_added
        Name of the results.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``: categorical, ``"0"`` is the largest cluster; missing for cells without all scores
        - ``uns[key_added]``: ``tool``, ``params``
        - ``uns[f"{key_added}_neighbors"]``, ``obsp[f"{key_added}_neighbors_connectivities"]``,
          ``obsp[f"{key_added}_neighbors_distances"]``: what ``scanpy.pp.neighbors(key_added=...)`` sets, empty rows
          for cells without all scores. Pass it as ``neighbors_key``, as in ``scanpy.tl.umap``; cells without a cluster
          must be left out before.
        - ``obsm[f"{key_added}_neighbors"]``: the values that the neighbours are of, float32, (cells, channels used),
          NaN for cells without all scores; scanpy finds them as ``use_rep``

        Other graphs and clusters in the table stay.

    Raises
    ------
    ImportError
        If igraph is not installed.
    KeyError
        If the layer or a channel does not exist.
    ValueError
        If a parameter is out of its range, there are fewer cells than neighbours, all cells are the same, or
        ``key_added`` holds something else already or cannot be written.

    Warns
    -----
    UserWarning
        Names channels without any score (left out), the number of cells that then lack one (left out), and channels
        that are the same in every cell.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["nimbus"] = adata.layers["gold"]
    >>> ns.tl.leiden(adata, channels=["CD3", "CD20", "CD68", "PanCK"], resolution=0.2)
    >>> adata.obs["leiden_nimbus"].cat.categories[0]
    '0'
    """
    check_count("n_neighbors", n_neighbors, 2)
    check_number("resolution", resolution, lambda value: 0 < value < np.inf, "above 0")
    check_rng(rng)
    if transform not in (None, "logit"):
        raise ValueError(f"`transform` is {transform!r}; it must be None or 'logit'. For others name a layer of yours.")
    _need_igraph()
    graph_key = f"{key_added}_neighbors"
    earlier = check_key_added(adata, key_added, _TOOL, _places(key_added, graph_key))
    values, used, names = scored_matrix(adata, layer, channels)
    if len(values) <= n_neighbors:
        raise ValueError(
            f"Only {len(values)} cells have all scores, which is too few for `n_neighbors`={n_neighbors}; choose less."
        )
    if (values == values[0]).all():
        raise ValueError(f"All {len(values)} cells have the same values in layer {layer!r}: there are no clusters.")
    if transform == "logit":
        values = _logit(values, layer)
    seed = seed_of(rng)
    labels, graphs, graph_params = _cluster(values, n_neighbors, resolution, seed)
    sizes = np.bincount(labels)

    adata.obs[key_added] = column(by_size(sizes)[labels], used, [str(number) for number in range(len(sizes))])
    adata.obsm[graph_key] = _spread(values, used)
    for name, graph in zip(_GRAPHS, graphs, strict=True):
        adata.obsp[f"{graph_key}_{name}"] = _embed(graph, used)
    adata.uns[graph_key] = {
        **{f"{name}_key": f"{graph_key}_{name}" for name in _GRAPHS},
        "params": {**graph_params, "use_rep": graph_key},
    }
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {
            "layer": layer,
            "channels": names,
            "n_neighbors": int(n_neighbors),
            "resolution": float(resolution),
            "transform": transform or "none",
            "random_state": seed,
            "n_iterations": _ITERATIONS,
            "neighbors_key": graph_key,
        },
    }
    log_overwritten(earlier, _TOOL)
    logger.info("added obs[%r]: %d clusters of %d cells by layer %r", key_added, len(sizes), len(values), layer)


def _need_igraph() -> None:
    try:
        import igraph  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`tl.leiden` needs the package igraph (GPL): pip install '.[leiden]' in the clone of nimbus-sd."
        ) from error


def _places(key_added: str, graph_key: str) -> list[tuple[str, str]]:
    return [
        ("obs", key_added),
        ("uns", graph_key),
        ("obsm", graph_key),
        *(("obsp", f"{graph_key}_{name}") for name in _GRAPHS),
    ]


def _logit(values: NDArray[np.float32], layer: str) -> NDArray[np.float32]:
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"transform='logit' is for scores in [0, 1]; layer {layer!r} has other values.")
    return logit(np.clip(values, _NEAREST_TO_END, 1 - _NEAREST_TO_END)).astype(np.float32)


def _cluster(values: NDArray[np.float32], n_neighbors: int, resolution: float, seed: int) -> tuple:
    """Return labels (cells,), the graph's connectivities and distances, and its parameters."""
    import scanpy as sc

    plain = with_neighbours(values, n_neighbors, seed)
    sc.tl.leiden(
        plain, resolution, random_state=seed, flavor="igraph", n_iterations=_ITERATIONS, directed=False, key_added="own"
    )
    labels = plain.obs["own"].cat.codes.to_numpy().astype(np.int64)
    return labels, [plain.obsp[name] for name in _GRAPHS], dict(plain.uns["neighbors"]["params"])


def _spread(values: NDArray[np.float32], used: NDArray[np.bool_]) -> NDArray[np.float32]:
    spread = np.full((used.size, values.shape[1]), np.nan, np.float32)
    spread[used] = values
    return spread


def _embed(graph: sparse.csr_matrix, used: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Put the graph of some cells among all cells."""
    if used.all():
        return graph
    cells = np.flatnonzero(used)
    pairs = graph.tocoo()
    return sparse.csr_matrix((pairs.data, (cells[pairs.row], cells[pairs.col])), shape=(used.size, used.size))
