"""FlowSOM: a map of many nodes, joined to metaclusters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.tl._clusters import by_size, check_count, check_rng, column
from nimbus_sd.tl._consensus import consensus_labels, mean_silhouettes, numbers_to_try
from nimbus_sd.tl._keys import check_key_added, log_overwritten
from nimbus_sd.tl._matrix import scored_matrix
from nimbus_sd.tl._som import Engine, engine_for, fit_codes, nearest_node

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "flowsom"


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
    """Over-cluster cells by their scores with a self-organizing map, and join its nodes to metaclusters.

    As in the paper (Methods, over 200 nodes, then hierarchical clustering); what it merges by hand comes after.
    Metaclusters are those that hierarchical clustering (average linkage) of 90 % of the nodes, 100 times, keeps
    together (Van Gassen et al. 2015).

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Layer of scores, or of other values; these should be of one scale, as distances between cells are Euclidean.
    channels
        Which ones to cluster by; all by default. Leave out counterstains and markers of states.
    xdim, ydim
        Size of the grid of nodes.
    n_metaclusters
        How many; None takes the number from 2 to 40 with the largest mean silhouette of the nodes. That number tends
        to be low where there are rare types: see the curve (:func:`nimbus_sd.pl.metacluster_suggestion`) and rather
        merge some of too many.
    engine
        ``"online"`` and ``"batch"`` are estimators of the flowsom package (extra ``flowsom``, GPL). ``"auto"`` takes
        the faster one, ``"batch"`` from 100,000 cells on; it needs 15 s to compile when it is first called.
        ``"minisom"`` needs no extra, and fits on 100,000 cells drawn at random at most.
    rng
        Source of all randomness. The same call gives the same result on any number of cores.
    key_added
        Name of the results.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``: metacluster, categorical, ``"0"`` is the largest; missing for cells without all scores
        - ``obs[f"{key_added}_node"]``: node, categorical, ``x * ydim + y`` for the one at (x, y) of the grid
        - ``uns[key_added]``: ``tool``, ``params``, ``channels``; for each node ``codes`` (nodes x channels, float32),
          ``counts`` of its cells and ``metaclusters``, its metacluster's name (that of the nearest node with cells
          where it has none); ``mean_distance`` of the cells to their nodes; and, where the number was suggested,
          ``suggestion``: ``n_metaclusters`` tried, ``silhouette`` of each, and the one ``suggested``

    Raises
    ------
    ImportError
        If the flowsom package is not installed and needed.
    KeyError
        If the layer or a channel does not exist.
    ValueError
        If a parameter is out of its range, there are fewer cells than nodes, or fewer nodes with cells than
        metaclusters; if ``key_added`` holds something else already or cannot be written.

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
    >>> ns.tl.flowsom(adata, channels=["CD3", "CD20", "CD68", "PanCK"], xdim=5, ydim=5, engine="minisom")
    >>> adata.uns["flowsom_nimbus"]["codes"].shape
    (25, 4)
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
    earlier = check_key_added(adata, key_added, _TOOL, [("obs", key_added), ("obs", f"{key_added}_node")])
    values, used, names = scored_matrix(adata, layer, channels)
    if len(values) < n_nodes:
        raise ValueError(
            f"{len(values)} cells have all scores, fewer than the {n_nodes} nodes of a grid of {xdim} x {ydim}; choose "
            "smaller `xdim` and `ydim`."
        )
    engine = engine_for(engine, len(values))
    random = np.random.default_rng(rng)

    codes = fit_codes(values, xdim, ydim, engine, random)
    node, distance = nearest_node(values, codes)
    counts = np.bincount(node, minlength=n_nodes)
    metacluster, suggestion = _metaclusters(codes, counts, n_metaclusters, random)
    n_found = int(metacluster.max()) + 1
    clusters = [str(number) for number in range(n_found)]

    adata.obs[key_added] = column(metacluster[node], used, clusters)
    adata.obs[f"{key_added}_node"] = column(node, used, [str(number) for number in range(n_nodes)])
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {
            "layer": layer,
            "xdim": int(xdim),
            "ydim": int(ydim),
            "n_metaclusters": n_found,
            "engine": engine,
            **({"rng": int(rng)} if not isinstance(rng, np.random.Generator) else {}),
        },
        "channels": np.array(names),
        "codes": codes,
        "counts": counts,
        "metaclusters": np.array(clusters)[metacluster],
        "mean_distance": float(distance.mean()),
        **({"suggestion": suggestion} if suggestion else {}),
    }
    log_overwritten(earlier, _TOOL)
    logger.info(
        "added obs[%r]: %d metaclusters%s of %d nodes with cells, by layer %r and engine %r",
        key_added,
        n_found,
        " (suggested)" if suggestion else "",
        int((counts > 0).sum()),
        layer,
        engine,
    )


def _metaclusters(
    codes: NDArray[np.float32], counts: NDArray[np.int64], wanted: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the metacluster of each node, 0 for that with most cells, and how their number was found."""
    taken = np.flatnonzero(counts)
    if len(taken) < (wanted or 3):
        raise ValueError(
            f"Only {len(taken)} nodes have cells, too few "
            + (f"for {wanted} metaclusters" if wanted else "to suggest a number of metaclusters")
            + ": the cells are too much alike. Name "
            + ("fewer `n_metaclusters`, or " if wanted else "")
            + "more `channels` in which they differ."
        )
    suggestion: dict[str, Any] = {}
    if wanted is None:
        numbers = numbers_to_try(len(taken))
        labels = consensus_labels(codes[taken], numbers, rng)
        silhouettes = mean_silhouettes(codes[taken], labels)
        best = int(np.argmax(silhouettes))
        suggestion = {"n_metaclusters": numbers, "silhouette": silhouettes, "suggested": int(numbers[best])}
        own = labels[best]
    else:
        own = consensus_labels(codes[taken], np.array([wanted]), rng)[0]
    numbered = by_size(np.bincount(own, counts[taken]))[own]
    near, _ = nearest_node(codes, codes[taken])
    return numbered[near], suggestion
