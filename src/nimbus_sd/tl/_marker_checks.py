"""What is odd about a marker, or two, within clusters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.tl._contact import Contact
from nimbus_sd.tl._findings import Clusters, Finding, beyond_chance

# Of the signal: above it a cell counts as one that its neighbours made positive.
_MOSTLY = 0.5
# On the scale from the median negative (0) to the median positive cell (1).
_DIM = 0.5
# Of the perimeter, shared with positive cells.
_LITTLE_CONTACT = 0.1


def spill_over(clusters: Clusters, marker: str, positive: NDArray[np.bool_], contact: Contact) -> Iterator[Finding]:
    """Find clusters whose positive cells owe their signal to neighbours in other clusters."""
    lit = positive & (contact.signal > 0)
    signal, explained = clusters.sum(contact.signal, lit), clusters.sum(contact.explained, lit)
    expected = explained.sum() / max(signal.sum(), 1e-300)
    doubtful = clusters.count(lit & (contact.explained > _MOSTLY * contact.signal))
    size, number = clusters.count(np.ones(len(lit), bool)), clusters.count(positive)
    for i, name in enumerate(clusters.names):
        value = explained[i] / signal[i] if signal[i] > 0 else 0.0
        if doubtful[i] < clusters.fewest[i] or value <= expected:
            continue
        reason = (
            f"{doubtful[i]} of the {number[i]} cells positive for {marker} owe more than half of its signal to "
            f"positive neighbours in other clusters; {value:.0%} of the cluster's signal, {expected:.0%} over all "
            "clusters"
        )
        yield Finding(
            name, "spill_over", marker, value, float(expected), int(doubtful[i]), doubtful[i] / size[i], reason
        )


def dim(
    clusters: Clusters,
    marker: str,
    expression: NDArray,
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    contact: Contact,
) -> Iterator[Finding]:
    """Find clusters in which cells are positive though dim, and without neighbours that could explain it."""
    known = np.isfinite(expression)
    positive = positive & known
    low, high = np.median(expression[negative & known]), np.median(expression[positive])
    if not high > low:
        return
    relative = (expression - low) / (high - low)
    dark = clusters.count(positive & (relative < _DIM) & (contact.touching < _LITTLE_CONTACT))
    size, number = clusters.count(np.ones(len(known), bool)), clusters.count(positive)
    expected = dark.sum() / max(number.sum(), 1)
    for i, name in enumerate(clusters.names):
        value = dark[i] / number[i] if number[i] else 0.0
        if dark[i] < clusters.fewest[i] or not beyond_chance(value, expected, number[i]):
            continue
        reason = (
            f"{dark[i]} of the {number[i]} cells positive for {marker} are dim (below half of the way from the median "
            f"negative to the median positive cell) and touch hardly any positive cell: dim but real, or mistakes of "
            f"the score; {value:.0%} of the cluster's positive cells, {expected:.0%} over all clusters"
        )
        yield Finding(name, "dim", marker, value, float(expected), int(dark[i]), dark[i] / size[i], reason)


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
