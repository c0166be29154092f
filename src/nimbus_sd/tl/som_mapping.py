"""New cells on a map that was fitted to others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nimbus_sd.tl._clusters import column
from nimbus_sd.tl._keys import check_key_added, log_overwritten
from nimbus_sd.tl._matrix import scored_matrix
from nimbus_sd.tl._som import nearest_node

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "map_to_som"


def map_to_som(
    adata: AnnData,
    reference: AnnData,
    *,
    key: str = "flowsom_nimbus",
    layer: str | None = None,
    key_added: str | None = None,
) -> None:
    """Give cells the node, and its metacluster, of a map that :func:`flowsom` fitted to other cells.

    Parameters
    ----------
    adata
        New cells x channels; channels may be in another order.
    reference
        The table with the map, fresh or read from disk; of its cells nothing is needed.
    key
        Name of the map there.
    layer
        Layer of ``adata``, by default of the name that the map was fitted to.
    key_added
        Name of the results, by default that of the map.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``: metacluster, categorical with all names of the map, in its order; missing for cells
          without all scores
        - ``obs[f"{key_added}_node"]``: node, as :func:`flowsom` numbers them
        - ``uns[key_added]``: ``tool``, ``params``, ``counts`` of the new cells per node, and their ``mean_distance``
          to their nodes. Much above that of the map says that these cells are of another kind.

    Raises
    ------
    KeyError
        If ``reference`` has no such map; if the layer or one of the map's channels does not exist.
    TypeError
        If ``reference`` is no table.
    ValueError
        If a channel of the map has no score at all, or ``key_added`` holds something else already.

    Warns
    -----
    UserWarning
        Tells the number of cells that lack a score (left out), and channels that are the same in every cell.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["nimbus"] = adata.layers["gold"]
    >>> first = adata[adata.obs["region"] == "fov1_labels"].copy()
    >>> second = adata[adata.obs["region"] == "fov2_labels"].copy()
    >>> ns.tl.flowsom(first, xdim=5, ydim=5, n_metaclusters=6, engine="minisom")
    >>> ns.tl.map_to_som(second, first)
    >>> list(second.obs["flowsom_nimbus"].cat.categories)
    ['0', '1', '2', '3', '4', '5']
    """
    som = _som(reference, key)
    key_added = key if key_added is None else key_added
    layer = str(som["params"]["layer"]) if layer is None else layer
    earlier = check_key_added(adata, key_added, _TOOL, [("obs", key_added), ("obs", f"{key_added}_node")])
    values, used, _ = scored_matrix(adata, layer, list(som["channels"]), need_all=True)
    codes = np.asarray(som["codes"], np.float32)
    node, distance = nearest_node(values, codes)
    clusters = [str(number) for number in range(int(som["params"]["n_metaclusters"]))]
    metacluster = np.array([clusters.index(str(name)) for name in som["metaclusters"]])

    adata.obs[key_added] = column(metacluster[node], used, clusters)
    adata.obs[f"{key_added}_node"] = column(node, used, [str(number) for number in range(len(codes))])
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {"layer": layer, "key": key},
        "counts": np.bincount(node, minlength=len(codes)),
        "mean_distance": float(distance.mean()),
    }
    log_overwritten(earlier, _TOOL)
    logger.info(
        "added obs[%r]: %d cells, on average %.3g from their nodes; those of the map %.3g",
        key_added,
        len(node),
        distance.mean(),
        som["mean_distance"],
    )


def _som(reference: AnnData, key: str) -> Mapping[str, Any]:
    if not hasattr(reference, "uns"):
        raise TypeError(
            f"`reference` is {reference!r:.80}; it must be the table (AnnData) that `tl.flowsom` clustered. Pass the "
            "name of its map as `key`."
        )
    entries = {name: one for name, one in reference.uns.items() if isinstance(one, Mapping)}
    maps = [name for name, one in entries.items() if one.get("tool") == "flowsom"]
    if key not in maps:
        raise KeyError(f"`reference` has no map uns[{key!r}] of `tl.flowsom`; it has {maps}.")
    return entries[key]
