"""Checks of clusters before they are believed: spill-over, dim cells, contradictions, stability."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of
from nimbus_sd.tl._contact import Clusters, Finding, Flags, beyond_chance, contact_findings
from nimbus_sd.tl._inputs import check_channels, check_count, check_number, check_rng, judged_matrix
from nimbus_sd.tl._markers import canonical
from nimbus_sd.tl._results import check_key_added, log_overwritten

logger = logging.getLogger("nimbus_sd")

_CHECKS = ("spill_over", "dim", "contradiction", "stability")
_COLUMNS = ["cluster", "check", "markers", "value", "expected", "cells", "concern", "reason"]

_SHUFFLES = 20
# Below it, Hennig (2007) advises against trusting a cluster.
_STABLE = 0.75
# Lineages of which a mature cell has one. Thymocytes have both CD4 and CD8, and tumour cells may gain or lose any of
# these: a pair is a reason to look, no proof.
_EXCLUSIVE = {
    "CD3": ("CD20", "CD19", "CD68", "CD31"),
    "CD20": ("CD68", "CD31"),
    "CD4": ("CD8",),
    "Kappa": ("Lambda",),
    "PanCK": ("CD45", "CD3", "CD20", "CD68", "CD31"),
}


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

    These are the checks that the paper's authors made by hand (Rumberger et al., "Cell clustering"), as rules. A row of
    the result is a reason to look at images (:func:`nimbus_sd.pl.cluster_gallery`), not a verdict. A cell is positive
    where its score is at least ``threshold``.

    ``"spill_over"``
        The leak of a marker is measured on the negative cells: the slope, through the origin, of their signal
        (integrated expression above the region's median negative cell without contact) against that of the positive
        neighbours around them, weighted by the shared perimeter. Leak times surroundings is the signal of a positive
        cell that neighbours *of other clusters* explain. ``value``: that part of the signal of the cluster's positive
        cells; ``cells``: those with more than half of their signal explained.
    ``"dim"``
        Positive cells whose integrated expression is less than halfway from the median negative to the median positive
        cell, and of whose perimeter less than 10 % touches positive cells: dim but real, or mistakes of the score.
        ``value``: their share of the cluster's positive cells.
    ``"contradiction"``
        Cells positive for two markers that exclude each other. ``value``: their share of the cluster. Where a cluster
        has cells of the one marker and others of the other, the row says ``"mixture"``: ``value`` is the share of the
        rarer kind, ``expected`` what it would be if the markers were independent within the cluster.
    ``"stability"``
        ``value``: the Jaccard index of the cluster and its best match in each of ``others``, the mean over them (Hennig
        2007, "Cluster-wise assessment of cluster stability"); ``expected``: the mean over 20 shuffles of the other
        labels; ``cells``: those not in the best match of the column where it is worst. Listed below 0.75.

    For the other checks, ``expected`` is ``value`` over all clusters, and rows are listed where ``value`` is above it
    (shares of cells by more than two standard errors) and ``cells`` at least ``min_cells`` and ``min_share`` of the
    cluster.

    Parameters
    ----------
    adata
        Cells x channels.
    groupby
        Column of ``obs`` with clusters. Cells without one are in none, but may spill over into others.
    layer
        Layer of scores. Cells that lack one are not judged there; a warning counts them.
    checks
        Which ones. The first two need :func:`nimbus_sd.tl.cell_features` and ``layers["integrated_expression"]``.
    exclusive
        Pairs of markers that exclude each other, or one pair. None takes those known (such as CD3 and CD20, or PanCK
        and CD45) of which the table has both.
    others
        Columns of ``obs`` with other clusterings of the same cells, for ``"stability"``: other seeds or resolutions.
    threshold
        Score from which on a cell is positive.
    min_share, min_cells
        Least share and number of a cluster's cells for a finding to be listed.
    region_key
        Column of ``obs`` with the region of each cell; by default the one that the table's annotation names, else
        ``"region"`` where it exists.
    rng
        Seed or generator of the shuffles.
    key_added
        Name of the results; ``f"{groupby}_checks"`` by default.

    Returns
    -------
    DataFrame
        One row per finding, ordered by ``concern``, then by ``cells``:

        - ``cluster``, ``check``, ``markers``: what it is about; two markers are joined by ``", "``
        - ``value``, ``expected``: as above
        - ``cells``: number of cells in question
        - ``concern``: their share of the cluster; for ``"stability"`` 1 - ``value``
        - ``reason``: a sentence

        Also sets ``uns[key_added]``: ``table`` (that frame), ``params``, ``leak`` (a frame: per marker, the share of a
        neighbour's signal that would come over at a boundary all around), and ``not_checked``, the markers of which
        fewer than 20 negative cells touch positive ones, so that their leak is not known.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> pairs = [("CD3", "CD8"), ("CD3", "CD20")]
    >>> table = ns.tl.cluster_checks(adata, "cell_type", layer="gold", checks=["contradiction"], exclusive=pairs)
    >>> table["reason"].iloc[0]
    '205 of 205 cells (100%) are positive for both CD3 and CD8, which exclude each other; 13% over all clusters'
    """
    checks, others = as_list(checks), as_list(others)
    if unknown := [name for name in checks if name not in _CHECKS]:
        raise ValueError(f"`checks` has {unknown}; there are {list(_CHECKS)}.")
    check_number("threshold", threshold, lambda value: 0 < value <= 1, "above 0 and at most 1")
    check_number("min_share", min_share, lambda value: 0 <= value <= 1, "in [0, 1]")
    check_count("min_cells", min_cells, 1)
    check_rng(rng)
    if groupby in others:
        raise ValueError(f"`others` names obs[{groupby!r}] itself; name other clusterings of the same cells.")
    key_added = f"{groupby}_checks" if key_added is None else key_added
    earlier = check_key_added(adata, key_added, "cluster_checks")
    clusters = Clusters(clusters_of(adata, groupby), min_share, min_cells)
    other_columns = {name: clusters_of(adata, name) for name in others}
    names = [str(name) for name in adata.var_names]
    pairs = _exclusive_pairs(names, exclusive)

    findings: list[Finding] = []
    leaks: dict[str, float] = {}
    if set(checks) - {"stability"}:
        scores, judged = judged_matrix(adata, layer)
        positive = judged & (scores >= threshold)
        if {"spill_over", "dim"} & set(checks):
            leaks = dict.fromkeys(names, np.nan)
            for marker, leak, of_marker in contact_findings(adata, clusters, positive, judged & ~positive, region_key):
                leaks[marker] = leak
                findings += [finding for finding in of_marker if finding[1] in checks]
        for pair in pairs if "contradiction" in checks else []:
            i, j = map(names.index, pair)
            findings += _contradiction(clusters, pair, positive[:, i], positive[:, j], judged[:, i] & judged[:, j])
    if "stability" in checks and other_columns:
        findings += _unstable(clusters, other_columns, np.random.default_rng(rng).spawn(_SHUFFLES))

    table = pd.DataFrame(findings, columns=_COLUMNS)
    table = table.sort_values(["concern", "cells"], ascending=False, kind="stable", ignore_index=True)
    not_checked = [name for name, leak in leaks.items() if np.isnan(leak)]
    params: dict[str, Any] = {"groupby": groupby, "layer": layer, "checks": checks}
    params |= {"exclusive": [", ".join(pair) for pair in pairs], "others": others, "threshold": threshold}
    params |= {"min_share": min_share, "min_cells": min_cells, "region_key": region_key or ""}
    adata.uns[key_added] = {
        "tool": "cluster_checks",
        "params": params,
        "table": table.set_axis(table.index.astype(str)),
        "leak": pd.DataFrame({"leak": list(leaks.values())}, pd.Index(list(leaks), dtype=object), dtype=np.float64),
        "not_checked": not_checked,
    }
    if not_checked:
        logger.warning("no spill-over is known of %s: few negative cells touch positive ones", ", ".join(not_checked))
    log_overwritten(earlier, "cluster_checks")
    logger.info("added uns[%r]: %d findings in %d clusters", key_added, len(table), table["cluster"].nunique())
    return table


def _contradiction(
    clusters: Clusters, pair: tuple[str, str], first: Flags, second: Flags, judged: Flags
) -> Iterator[Finding]:
    """Find clusters with cells positive for both markers of a pair, and clusters that mix both kinds of cells."""
    a, b = pair
    n = clusters.count(judged)
    only_a, only_b = clusters.count(judged & first & ~second), clusters.count(judged & second & ~first)
    both, rarer = clusters.count(judged & first & second), np.minimum(only_a, only_b)
    share_both, share_rarer, share_a, share_b = (
        cells / np.maximum(n, 1) for cells in (both, rarer, only_a + both, only_b + both)
    )
    overall = float(both.sum() / max(n.sum(), 1))
    by_chance = np.minimum(share_a * (1 - share_b), share_b * (1 - share_a))
    contradicts = (both >= clusters.fewest) & beyond_chance(share_both, overall, n)
    mixes = (rarer >= clusters.fewest) & beyond_chance(share_rarer, by_chance, n)
    for i, name in enumerate(clusters.names):
        if contradicts[i]:
            share = share_both[i]
            positive = f"{both[i]} of {n[i]} cells ({share:.0%}) are positive for both {a} and {b}"
            reason = f"{positive}, which exclude each other; {overall:.0%} over all clusters"
            yield name, "contradiction", f"{a}, {b}", share, overall, both[i], share, reason
        if mixes[i]:
            share, expected = share_rarer[i], by_chance[i]
            cells = f"{only_a[i]} of {n[i]} cells are positive for {a} but not {b}, and {only_b[i]} the other way round"
            chance = f"the rarer are {share:.0%}, and would be {expected:.0%} if the markers were independent"
            reason = f"{cells}: probably two types in one cluster; {chance}"
            yield name, "mixture", f"{a}, {b}", share, expected, rarer[i], share, reason


def _unstable(
    clusters: Clusters, others: Mapping[str, pd.Categorical], generators: Sequence[np.random.Generator]
) -> Iterator[Finding]:
    """Find clusters whose mean best Jaccard index is low; each generator shuffles the other labels once."""
    overlaps = [_overlap(clusters, other) for other in others.values()]
    best = np.array([_jaccard(overlap).max(axis=1) for overlap in overlaps])
    shuffled = [_overlap(clusters, other, rng) for rng in generators for other in others.values()]
    by_chance = np.array([_jaccard(overlap).max(axis=1) for overlap in shuffled])
    for i in np.flatnonzero(np.isfinite(best).any(axis=0)):
        value, expected = float(np.nanmean(best[:, i])), float(np.nanmean(by_chance[:, i]))
        if value >= _STABLE:
            continue
        worst = int(np.nanargmin(best[:, i]))
        column, overlap = list(others)[worst], overlaps[worst]
        match = int(_jaccard(overlap)[i].argmax())
        size, common = overlap[i].sum(), overlap[i, match]
        mean = f"; mean over {len(others)} columns {value:.2f}" if len(others) > 1 else ""
        found = f"in obs[{column!r}] the best match, {others[column].categories[match]!r}, has {common} of the {size}"
        jaccard = f"(Jaccard index {best[worst, i]:.2f}){mean}; {expected:.2f} if labels are shuffled"
        reason = f"{found} cells and {overlap[:, match].sum() - common} of other clusters {jaccard}"
        yield clusters.names[i], "stability", "", value, expected, size - common, 1 - value, reason


def _overlap(clusters: Clusters, other: pd.Categorical, rng: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Count cells in each cluster and each of the others, (clusters, others); ``rng`` shuffles the others."""
    in_both = (clusters.codes >= 0) & (other.codes >= 0)
    codes = other.codes[in_both] if rng is None else rng.permutation(other.codes[in_both])
    pairs = np.ones(len(codes), np.int64), (clusters.codes[in_both], codes)
    return sparse.coo_array(pairs, (len(clusters.names), len(other.categories))).toarray()


def _jaccard(overlap: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Jaccard index of each cluster and each of the others; NaN where no cell is in any of the others."""
    size, size_of_others = overlap.sum(axis=1, keepdims=True), overlap.sum(axis=0)
    return np.where(size > 0, overlap / np.maximum(size + size_of_others - overlap, 1), np.nan)


def _exclusive_pairs(
    channels: Sequence[str], given: Sequence[Sequence[str]] | Sequence[str] | None
) -> list[tuple[str, str]]:
    """Check the pairs, or the one pair, that a user gives; None gives the known ones of which the table has both."""
    if given is None:
        by_marker: dict[str, list[str]] = {}
        for name in channels:
            by_marker.setdefault(canonical(name), []).append(name)
        known = [(canonical(a), canonical(b)) for a, partners in _EXCLUSIVE.items() for b in partners]
        return [pair for a, b in known for pair in product(by_marker.get(a, []), by_marker.get(b, []))]
    is_pair = len(given) == 2 and all(isinstance(name, str) for name in given)
    entries: list[Any] = [given] if is_pair or isinstance(given, str) else list(given)
    pairs = []
    for entry in entries:
        pair = [str(name) for name in as_list(entry)]
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"`exclusive` has {entry!r}; each must be two different markers, as ('CD3', 'CD20').")
        check_channels(pair, channels)
        pairs.append((pair[0], pair[1]))
    return pairs
