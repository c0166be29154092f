"""Whether a cluster comes back when the cells are clustered again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd.tl._findings import Clusters, Finding

# Below it, Hennig (2007) advises against trusting a cluster.
_STABLE = 0.75


class _Match(NamedTuple):
    """Each cluster's best match in another column, arrays of shape (clusters,); NaN and 0 where no cell is in both."""

    jaccard: NDArray[np.float64]
    name: NDArray
    own: NDArray[np.int64]
    common: NDArray[np.int64]
    strange: NDArray[np.int64]


def unstable(
    clusters: Clusters, others: Mapping[str, pd.Categorical], draws: Sequence[np.random.Generator]
) -> Iterator[Finding]:
    """Find clusters whose mean best Jaccard index is low; each draw shuffles the other labels for the expectation."""
    codes, k = clusters.codes, len(clusters.names)
    matches = [_best(codes, other.codes, other.categories, k) for other in others.values()]
    index = np.array([match.jaccard for match in matches])
    chance = np.array([_shuffled(codes, other, k, rng).jaccard for rng in draws for other in others.values()])
    for i, name in enumerate(clusters.names):
        if not np.isfinite(index[:, i]).any():
            continue
        value, expected = float(np.nanmean(index[:, i])), float(np.nanmean(chance[:, i]))
        if value >= _STABLE:
            continue
        worst = int(np.nanargmin(index[:, i]))
        match, column = matches[worst], list(others)[worst]
        missing = int(match.own[i] - match.common[i])
        reason = (
            f"in obs[{column!r}] the best match, {str(match.name[i])!r}, has {match.common[i]} of the {match.own[i]} "
            f"cells and {match.strange[i]} of other clusters (Jaccard index {index[worst, i]:.2f})"
        )
        if len(others) > 1:
            reason += f"; mean over {len(others)} columns {value:.2f}"
        reason += f"; {expected:.2f} if labels are shuffled"
        yield Finding(name, "stability", "", value, expected, missing, 1 - value, reason)


def _shuffled(codes: NDArray, other: pd.Categorical, k: int, rng: np.random.Generator) -> _Match:
    shuffled = np.array(other.codes)
    both = (codes >= 0) & (shuffled >= 0)
    shuffled[both] = rng.permutation(shuffled[both])
    return _best(codes, shuffled, other.categories, k)


def _best(codes: NDArray, other: NDArray, names: pd.Index, k: int) -> _Match:
    both = (codes >= 0) & (other >= 0)
    pair = codes[both].astype(np.int64) * len(names) + other[both]
    common = np.bincount(pair, minlength=k * len(names)).reshape(k, len(names))
    own, theirs = common.sum(axis=1), common.sum(axis=0)
    union = own[:, None] + theirs - common
    index = common / np.maximum(union, 1)
    best = index.argmax(axis=1)
    rows = np.arange(k)
    shared = common[rows, best]
    jaccard = np.where(own > 0, index[rows, best], np.nan)
    return _Match(jaccard, np.asarray(names)[best], own, shared, theirs[best] - shared)
