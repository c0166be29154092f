"""Markers that exclude each other, in one cell or in one cluster."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.tl._findings import Clusters, Finding, beyond_chance


def contradiction(
    clusters: Clusters,
    pair: tuple[str, str],
    positive: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    judged: NDArray[np.bool_],
) -> Iterator[Finding]:
    """Find clusters with cells positive for two markers that exclude each other, and clusters that mix both kinds."""
    first, second = positive
    a, b = pair
    size = clusters.count(judged)
    both = clusters.count(first & second & judged)
    only_first, only_second = clusters.count(first & ~second & judged), clusters.count(second & ~first & judged)
    overall = float(both.sum() / max(size.sum(), 1))
    for i, name in enumerate(clusters.names):
        n = size[i]
        value = both[i] / n if n else 0.0
        if both[i] >= clusters.fewest[i] and beyond_chance(value, overall, n):
            reason = (
                f"{both[i]} of {n} cells ({value:.0%}) are positive for both {a} and {b}, which exclude each other; "
                f"{overall:.0%} over all clusters"
            )
            yield Finding(name, "contradiction", f"{a}, {b}", value, overall, int(both[i]), value, reason)
        fewer = min(only_first[i], only_second[i])
        share_first, share_second = ((only[i] + both[i]) / max(n, 1) for only in (only_first, only_second))
        expected = min(share_first * (1 - share_second), share_second * (1 - share_first))
        value = fewer / n if n else 0.0
        if fewer >= clusters.fewest[i] and beyond_chance(value, expected, n):
            reason = (
                f"{only_first[i]} of {n} cells are positive for {a} but not {b}, and {only_second[i]} the other way "
                f"round: probably two types in one cluster; the rarer are {value:.0%}, and would be {expected:.0%} if "
                "one marker said nothing about the other"
            )
            yield Finding(name, "mixture", f"{a}, {b}", value, float(expected), int(fewer), value, reason)
