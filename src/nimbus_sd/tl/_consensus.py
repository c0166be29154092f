"""Metaclusters: nodes of a map that resampling keeps together, and how many of them there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform

_RESAMPLES, _SHARE = 100, 0.9
_MOST = 40
# Types differ by at least so much in the mean score of a marker, and are at least this share of the cells.
_APART, _SHARE_OF_CELLS = 0.7, 0.005


def numbers_to_try(n_nodes: int) -> NDArray[np.int64]:
    """Return the numbers of metaclusters that a suggestion compares: 2 to 40, and fewer than nodes."""
    return np.arange(2, min(_MOST, n_nodes - 1) + 1)


def consensus_labels(
    codes: NDArray[np.float32], numbers: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Cluster nodes by how often they stay together (consensus clustering, Monti et al. 2003, as FlowSOM does it).

    100 times, 90 % of the nodes are clustered hierarchically (average linkage of Euclidean distances). The share of
    times that two nodes were in one cluster, of those that had both, is their likeness for a last such clustering.
    ``codes`` are (nodes, channels), at least 2 nodes; ``numbers`` of clusters are from 1 to the number of nodes.
    Returns labels from 0, (numbers, nodes), each row with exactly that many clusters.
    """
    n = len(codes)
    size = max(2, int(_SHARE * n))
    together = np.zeros((len(numbers), n, n), np.uint8)
    drawn = np.zeros((n, n), np.uint8)
    for _ in range(_RESAMPLES):
        part = np.sort(rng.choice(n, size, replace=False))
        drawn[np.ix_(part, part)] += 1
        # Nodes that are not drawn are each alone.
        cuts = np.tile(np.arange(-n, 0), (len(numbers), 1))
        cuts[:, part] = _cuts(linkage(codes[part].astype(np.float64), "average"), np.minimum(numbers, size))
        for i, cut in enumerate(cuts):
            together[i] += cut[:, None] == cut
    labels = np.empty((len(numbers), n), np.int64)
    for i, number in enumerate(numbers):
        apart = 1 - together[i] / np.maximum(drawn, 1)
        np.fill_diagonal(apart, 0)
        labels[i] = _cuts(linkage(squareform(apart, checks=False), "average"), np.array([number]))[0]
    return labels


def _cuts(tree: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cut a tree to exact numbers of clusters, ties or not; labels from 0, (numbers, leaves)."""
    n = len(tree) + 1
    labels = np.arange(n)
    cuts = np.empty((len(numbers), n), np.int64)
    for merged in range(n):
        for row in np.flatnonzero(numbers == n - merged):
            cuts[row] = np.unique(labels, return_inverse=True)[1]
        if merged < n - 1:
            labels[np.isin(labels, tree[merged, :2])] = n + merged
    return cuts


def mean_silhouettes(codes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean silhouette of the nodes for each row of labels: how much nearer their own cluster is."""
    from sklearn.metrics import silhouette_score

    distances = squareform(pdist(codes.astype(np.float64)))
    return np.array([silhouette_score(distances, row, metric="precomputed") for row in labels])


def separable_types(means: NDArray[np.float32], counts: NDArray[np.int64]) -> int:
    """Count the groups of nodes that differ in a marker: by 0.7 in its mean score, and of at least 0.5 % of the cells.

    The nearest groups are joined first, until all that are left differ. ``means`` are scores, (nodes, channels).
    """
    means, sizes = means.astype(np.float64), counts.astype(np.float64)
    while len(means) > 1:
        small = sizes < _SHARE_OF_CELLS * counts.sum()
        pairs = np.triu_indices(len(means), 1)
        join = (pdist(means, "chebyshev") < _APART) | small[pairs[0]] | small[pairs[1]]
        if not join.any():
            break
        nearest = int(np.where(join, pdist(means), np.inf).argmin())
        first, second = int(pairs[0][nearest]), int(pairs[1][nearest])
        size = sizes[first] + sizes[second]
        means[first] = (sizes[first] * means[first] + sizes[second] * means[second]) / size
        sizes[first] = size
        means, sizes = np.delete(means, second, axis=0), np.delete(sizes, second)
    return len(means)
