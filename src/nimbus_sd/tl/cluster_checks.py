"""The questions that one asks of clusters before believing them, answered from the table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of
from nimbus_sd.tl._clusters import check_count, check_number, check_rng
from nimbus_sd.tl._contact_checks import BY_CONTACT, by_contact
from nimbus_sd.tl._contradiction import contradiction
from nimbus_sd.tl._exclusive import exclusive_pairs
from nimbus_sd.tl._findings import Clusters, Finding
from nimbus_sd.tl._keys import check_key_added, log_overwritten
from nimbus_sd.tl._matrix import judged_matrix
from nimbus_sd.tl._stability import unstable

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "cluster_checks"
_CHECKS = (*BY_CONTACT, "contradiction", "stability")
_SHUFFLES = 20


def cluster_checks(
    adata: AnnData,
    groupby: str,
    *,
    layer: str = keys.NIMBUS,
    checks: Sequence[str] = _CHECKS,
    exclusive: Sequence[Sequence[str]] | Sequence[str] | None = None,
    others: str | Sequence[str] = (),
    threshold: float = 0.5,
    min_share: float = 0.05,
    min_cells: int = 5,
    region_key: str | None = None,
    rng: int | np.random.Generator = 0,
    key_added: str | None = None,
) -> pd.DataFrame:
    """List what should be looked at before clusters are believed, the worst first.

    These are the checks that the paper's authors made by hand (Rumberger et al., "Cell clustering": is it spill-over
    from close neighbours, is a dim marker dwarfed), as rules. A row of the result is a reason to look at images
    (:func:`nimbus_sd.pl.cluster_gallery`), not a verdict. A cell is positive where its score is at least ``threshold``.

    ``"spill_over"``
        The leak of a marker is measured on the negative cells: how much their signal (integrated expression above the
        region's median negative cell without contact) grows with that of the positive neighbours around them, each
        weighted by the share of the perimeter that it touches (slope through the origin). For positive cells, leak
        times surroundings is the signal that neighbours *of other clusters* explain, at most all of it.
        ``value``: that part of the signal of the cluster's positive cells; ``expected``: the same over all clusters.
        ``cells``: those with more than half of their signal explained.
    ``"dim"``
        Positive cells whose integrated expression is less than halfway from the median negative to the median positive
        cell, and of whose perimeter less than 10 % touches positive cells: dim but real, or mistakes of the score.
        ``value``: their share of the cluster's positive cells; ``expected``: the same over all clusters.
    ``"contradiction"``
        Cells positive for two markers that exclude each other. ``value``: their share of the cluster; ``expected``:
        the same over all clusters. Where a cluster has cells of the one marker and others of the other, the row says
        ``"mixture"``: ``value`` is the share of the rarer kind, ``expected`` what it would be if the two markers were
        independent within the cluster.
    ``"stability"``
        ``value``: the Jaccard index of the cluster and its best match in each of ``others``, the mean over them (Hennig
        2007, "Cluster-wise assessment of cluster stability"); ``expected``: the mean over 20 shuffles of the other
        labels. ``cells``: those not in the best match of the column where it is worst. Listed below 0.75.

    Rows of the first three are listed where ``value`` is above ``expected`` (shares of cells by more than two standard
    errors) and the cells in question are at least ``min_cells`` and ``min_share`` of the cluster.

    Parameters
    ----------
    adata
        Cells x channels.
    groupby
        Column of ``obs`` with clusters. Cells without one are in none, but may spill over into others.
    layer
        Layer of scores.
    checks
        Which ones. The first two need ``obsp["boundary"]`` and ``obs["perimeter"]`` from
        :func:`nimbus_sd.tl.cell_features`, and ``layers["integrated_expression"]``.
    exclusive
        Pairs of markers that exclude each other, or one pair. None takes those known (such as CD3 and CD20, CD4 and
        CD8, kappa and lambda, PanCK and CD45) of which the table has both.
    others
        Columns of ``obs`` with other clusterings of the same cells: other seeds, other resolutions. None of them, no
        ``"stability"``.
    threshold
        Score from which on a cell is positive.
    min_share, min_cells
        How many of a cluster's cells make a row.
    region_key
        Column of ``obs`` with the region of each cell; by default the one that the table's annotation names, else
        ``"region"`` where it exists.
    rng
        Of the shuffles.
    key_added
        Where to keep the result; ``f"{groupby}_checks"`` by default.

    Returns
    -------
    DataFrame
        One row per finding, ordered by ``concern``, then by ``cells``:

        - ``cluster``, ``check``, ``markers``: what it is about; two markers are joined by ``", "``
        - ``value``, ``expected``: as above
        - ``cells``: number of cells in question
        - ``concern``: their share of the cluster; for ``"stability"`` 1 - ``value``
        - ``reason``: a sentence

        Also sets ``uns[key_added]``: ``table`` (that frame), ``params``, ``leak`` (a frame: per marker, the
        share of a neighbour's signal that would come over at a boundary all around), and ``not_checked``, the markers
        of which fewer than 20 negative cells touch positive ones, so that their leak is not known.

    Raises
    ------
    KeyError
        If a column, layer or marker does not exist, or a check lacks what it needs; the message says what to run.
    ValueError
        If ``groupby`` is no column of clusters, is among ``others``, a number is out of its range, a check or a pair
        is none, ``key_added`` holds something else, or the layer has no score at all.

    Warns
    -----
    UserWarning
        Names channels without any score, and tells how many cells lack one in which others: they are not judged there.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> pairs = [("CD3", "CD8"), ("CD3", "CD20")]
    >>> found = ns.tl.cluster_checks(adata, "cell_type", layer="gold", checks=["contradiction"], exclusive=pairs)
    >>> found[["cluster", "markers", "cells"]].values.tolist()
    [['CD8 T cell', 'CD3, CD8', 205]]
    >>> found["reason"].iloc[0]
    '205 of 205 cells (100%) are positive for both CD3 and CD8, which exclude each other; 13% over all clusters'
    """
    checks = as_list(checks)
    others = as_list(others)
    _check_numbers(checks, threshold, min_share)
    check_count("min_cells", min_cells, 1)
    check_rng(rng)
    if groupby in others:
        raise ValueError(f"`others` names obs[{groupby!r}] itself; name other clusterings of the same cells.")
    try:
        earlier = check_key_added(adata, f"{groupby}_checks" if key_added is None else key_added, _TOOL)
    except ValueError as error:
        if key_added is not None:
            raise
        raise ValueError(f"{error} That is the default for {groupby!r}: pass `key_added=`.") from error
    key_added = f"{groupby}_checks" if key_added is None else key_added
    column = clusters_of(adata, groupby)
    columns = {name: clusters_of(adata, name) for name in others}
    pairs = exclusive_pairs([str(name) for name in adata.var_names], exclusive)

    clusters = Clusters.of(column, min_share, min_cells)
    found: list[Finding] = []
    leaks: dict[str, float] = {}
    if set(checks) - {"stability"}:
        scores, judged = judged_matrix(adata, layer)
        positive = judged & (scores >= threshold)
        if set(checks) & set(BY_CONTACT):
            found += by_contact(adata, clusters, checks, positive, judged & ~positive, region_key, leaks)
        for pair in pairs if "contradiction" in checks else []:
            i, j = adata.var_names.get_indexer(list(pair))
            found += contradiction(clusters, pair, (positive[:, i], positive[:, j]), judged[:, i] & judged[:, j])
    if "stability" in checks and columns:
        found += unstable(clusters, columns, np.random.default_rng(rng).spawn(_SHUFFLES))

    table = pd.DataFrame(found, columns=list(Finding._fields))
    table = table.sort_values(["concern", "cells"], ascending=False, kind="stable", ignore_index=True)
    names = [str(name) for name in adata.var_names] if set(checks) & set(BY_CONTACT) else []
    unknown = [name for name in names if name not in leaks]
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {
            "groupby": groupby,
            "layer": layer,
            "checks": checks,
            "exclusive": [", ".join(pair) for pair in pairs],
            "others": others,
            "threshold": threshold,
            "min_share": min_share,
            "min_cells": min_cells,
            "region_key": region_key or "",
        },
        "table": table.set_axis(table.index.astype(str)),
        "leak": pd.DataFrame({"leak": [leaks.get(name, np.nan) for name in names]}, pd.Index(names, dtype=object)),
        "not_checked": unknown,
    }
    if unknown:
        logger.warning("no spill-over is known of %s: too few negative cells touch positive ones", ", ".join(unknown))
    log_overwritten(earlier, _TOOL)
    logger.info("added uns[%r]: %d findings in %d clusters", key_added, len(table), table["cluster"].nunique())
    return table


def _check_numbers(checks: Sequence[str], threshold: float, min_share: float) -> None:
    if unknown := [name for name in checks if name not in _CHECKS]:
        raise ValueError(f"`checks` has {unknown}; there are {list(_CHECKS)}.")
    check_number("threshold", threshold, lambda value: 0 < value <= 1, "above 0 and at most 1")
    check_number("min_share", min_share, lambda value: 0 <= value <= 1, "in [0, 1]")
