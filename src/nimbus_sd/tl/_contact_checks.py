"""What is odd about a marker, given whom the cells of a cluster touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import layer as read_layer
from nimbus_sd._table import region_column
from nimbus_sd.tl._contact import Contact, Neighbours
from nimbus_sd.tl._findings import Clusters, Finding, beyond_chance

if TYPE_CHECKING:
    from anndata import AnnData

BY_CONTACT = ("spill_over", "dim")
# Of the signal: above it a cell counts as one that its neighbours made positive.
_MOSTLY = 0.5
# On the scale from the median negative (0) to the median positive cell (1).
_DIM = 0.5
# Of the perimeter, shared with positive cells.
_LITTLE_CONTACT = 0.1


def by_contact(
    adata: AnnData,
    clusters: Clusters,
    checks: Sequence[str],
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    region_key: str | None,
    leaks: dict[str, float],
) -> Iterator[Finding]:
    """Check marker by marker what neighbours explain; notes the leaks that are known."""
    lacking = {
        f"obsp[{keys.BOUNDARY!r}]": keys.BOUNDARY not in adata.obsp,
        f"obs[{keys.PERIMETER!r}]": keys.PERIMETER not in adata.obs,
    }
    if any(lacking.values()):
        missing = " and ".join(name for name, lacks in lacking.items() if lacks)
        raise KeyError(
            f"The checks {list(BY_CONTACT)} need {missing}, which say who touches whom: run "
            "`nimbus_sd.tl.cell_features(sdata)` first, or leave them out with "
            "`checks=['contradiction', 'stability']`."
        )
    expression = read_layer(adata, keys.INTEGRATED)
    neighbours = Neighbours(adata, clusters.codes, _regions(adata, region_key))
    for i, name in enumerate(map(str, adata.var_names)):
        contact = neighbours.contact(expression[:, i], positive[:, i], negative[:, i])
        if contact is None:
            continue
        leaks[name] = contact.leak
        if "spill_over" in checks:
            yield from spill_over(clusters, name, positive[:, i], contact)
        if "dim" in checks:
            yield from dim(
                clusters, name, expression[:, i], positive[:, i] & neighbours.measured, negative[:, i], contact
            )


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


def _regions(adata: AnnData, region_key: str | None) -> NDArray[np.integer]:
    annotated = region_key is not None or "spatialdata_attrs" in adata.uns or keys.REGION in adata.obs
    return pd.factorize(region_column(adata, region_key))[0] if annotated else np.zeros(adata.n_obs, np.int64)
