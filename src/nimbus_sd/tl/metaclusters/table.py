"""Metaclusters and tables of cells: from clusters in ``obs``, and back as a column with its colours."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd._table import clusters_of
from nimbus_sd.tl._keys import check_key_added, log_overwritten
from nimbus_sd.tl.metaclusters.files import to_json
from nimbus_sd.tl.metaclusters.value import Metaclusters, start

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "metaclusters.apply"


def from_table(adata: AnnData, groupby: str, metaclusters: str | None = None) -> Metaclusters:
    """Begin with the clusters of a table.

    Parameters
    ----------
    adata
        The table.
    groupby
        Column of ``obs`` with the clusters.
    metaclusters
        Column of ``obs`` with the metacluster of each cell, the same for all cells of a cluster. None makes each
        cluster one. Colours in ``uns`` are kept.

    Returns
    -------
    Metaclusters
        Without steps. They know how many cells each cluster had.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If a column holds numbers with decimals, no cell has a cluster, a cluster has cells of several metaclusters, or
        a name cannot be written to disk.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> len(ns.tl.metaclusters.from_table(adata, "cell_type").names)
    6
    """
    named = groupby if metaclusters is None else metaclusters
    clusters, groups = clusters_of(adata, groupby), clusters_of(adata, named)
    pairs = pd.DataFrame({"cluster": clusters, "group": groups}).dropna().astype(str).drop_duplicates()
    if pairs.empty:
        raise ValueError(f"No cell has a cluster in both obs[{groupby!r}] and obs[{named!r}].")
    if several := sorted(set(pairs["cluster"][pairs["cluster"].duplicated()])):
        raise ValueError(f"Cluster(s) {several} of obs[{groupby!r}] have cells of several groups of obs[{named!r}].")
    mapping = dict(zip(pairs["cluster"], pairs["group"], strict=True))
    mapping = {cluster: mapping[cluster] for cluster in clusters.categories if cluster in mapping}
    categories = pd.Categorical(adata.obs[named]).categories.astype(str)
    colors = adata.uns.get(f"{named}_colors", ())
    kept = dict(zip(categories, map(str, colors), strict=True)) if len(colors) == len(categories) else {}
    begun = start(mapping, {name: color for name, color in kept.items() if name in set(mapping.values())})
    return replace(begun, cells=tuple(_sizes(clusters).items()))


def apply(adata: AnnData, value: Metaclusters, groupby: str, *, key_added: str = "metacluster_nimbus") -> None:
    """Write the metacluster of each cell to a table.

    Parameters
    ----------
    adata
        The table.
    value
        The metaclusters.
    groupby
        Column of ``obs`` with the clusters. Clusters that have no cell here are no matter.
    key_added
        Name of the result.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``: categorical, the largest metacluster first, missing for cells without a cluster
        - ``uns[f"{key_added}_colors"]``: their colours, where scanpy looks for them
        - ``uns[key_added]``: ``tool``, ``params``, and ``steps``, a text for :func:`from_json` with all that was done

    Raises
    ------
    KeyError
        If the column does not exist, or it has clusters that ``value`` does not know.
    ValueError
        If the column holds numbers with decimals or no cluster; if ``key_added`` is ``groupby``, holds something else,
        or cannot be written to disk.

    Warns
    -----
    UserWarning
        If clusters have other numbers of cells than in the table that ``value`` was made from (:func:`from_table`,
        kept in JSON files), so that they may be other ones of the same names. Nothing is known of those made by
        :func:`start` or read from CSV files.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> mc = ns.tl.metaclusters
    >>> adata = ns.datasets.example().tables["table"]
    >>> value = mc.merge(mc.from_table(adata, "cell_type"), ["CD4 T cell", "CD8 T cell"], into="T cell")
    >>> mc.apply(adata, value, "cell_type")
    >>> adata.obs["metacluster_nimbus"].cat.categories.to_list()
    ['T cell', 'epithelium', 'B cell', 'other', 'macrophage']
    """
    clusters = clusters_of(adata, groupby)
    earlier = check_key_added(adata, key_added, _TOOL, [("obs", key_added), ("uns", f"{key_added}_colors")])
    if key_added == groupby:
        raise ValueError(
            f"`groupby` and `key_added` are both {groupby!r}; the clusters would be lost. Name another key."
        )
    if unknown := sorted(set(clusters.categories) - set(value.mapping)):
        raise KeyError(
            f"obs[{groupby!r}] has the cluster(s) {unknown}, which these metaclusters do not know; they are of "
            f"{list(value.mapping)}."
        )
    _warn_of_others(value, _sizes(clusters), groupby)
    found = pd.Series(clusters, adata.obs_names, dtype=object).map(value.mapping)
    cells = found.value_counts()
    # Those of one size in the order of the metaclusters, so that the same table gives the same order.
    order = sorted(cells.index, key=lambda name: (-cells[name], value.names.index(name)))
    adata.obs[key_added] = pd.Categorical(found, categories=order)
    adata.uns[f"{key_added}_colors"] = np.array([value.colors[name] for name in order], dtype=object)
    adata.uns[key_added] = {"tool": _TOOL, "params": {"groupby": groupby}, "steps": to_json(value)}
    log_overwritten(earlier, _TOOL)
    logger.info("added obs[%r]: %d metaclusters of %d clusters", key_added, len(order), len(clusters.categories))


def _sizes(clusters: pd.Categorical) -> dict[str, int]:
    """Count the cells of each cluster."""
    counts = np.bincount(clusters.codes[clusters.codes >= 0], minlength=len(clusters.categories))
    return dict(zip(clusters.categories, counts.tolist(), strict=True))


def _warn_of_others(value: Metaclusters, sizes: dict[str, int], groupby: str) -> None:
    """Warn of clusters that may be others of the same names; for what a user calls."""
    made = dict(value.cells)
    changed = [name for name in made | sizes if made.get(name, 0) != sizes.get(name, 0)]
    if made and changed:
        told = ", ".join(f"{name!r} had {made.get(name, 0)} and has {sizes.get(name, 0)}" for name in changed[:3])
        warnings.warn(
            f"obs[{groupby!r}] is not the clustering that these metaclusters were made from: numbers of cells differ "
            f"in {len(changed)} cluster(s), as {told}. If the cells were clustered again, the same name is another "
            "cluster: begin again with `from_table`. Other cells of the same clusters are no matter.",
            UserWarning,
            stacklevel=3,
        )
