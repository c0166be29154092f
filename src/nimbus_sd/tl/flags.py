"""Why a marker should not be called without a look at its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.metrics import describe, outside, relative_expression

if TYPE_CHECKING:
    from anndata import AnnData

_MIDDLE = (0.25, 0.75)
_NOTABLE = 0.05
_SATURATED = 0.01


def source_of(adata: AnnData, layer: str) -> str:
    """Name the layer that :func:`nimbus_sd.predict` made, from which calibration made this one."""
    entry = adata.uns.get(layer, {})
    made_from = entry.get("params", {}).get("layer") if isinstance(entry, Mapping) else None
    return str(made_from) if made_from is not None else layer


def trained_ranges(adata: AnnData, layer: str) -> Mapping[str, Mapping[str, float]] | None:
    """Ranges of image statistics that the model of a layer was trained on; None where not known."""
    entry = adata.uns.get(source_of(adata, layer), {})
    return entry.get("ranges") if isinstance(entry, Mapping) else None


def channel_flags(adata: AnnData, layer: str, scores: NDArray, two_groups: NDArray[np.bool_]) -> list[str]:
    """Flag the channels of a layer.

    Parameters
    ----------
    adata
        The table; its integrated expression and factors are used where they are there.
    layer
        Name of the scores.
    scores
        Cells x channels.
    two_groups
        Per channel, whether the scores fall into two groups; a channel whose scores are not in [0, 1] counts as such.

    Returns
    -------
    One text per channel, reasons joined by "; ", empty if there is none.
    """
    key = source_of(adata, layer)
    known = keys.INTEGRATED in adata.layers and f"{key}_normalization" in adata.varm
    relative = relative_expression(adata, key) if known else np.full(scores.shape, np.nan)
    ranges = trained_ranges(adata, layer) or {}
    return [
        "; ".join(_flags(scores[:, i], relative[:, i], bool(two_groups[i]), ranges)) for i in range(scores.shape[1])
    ]


def _flags(scores: NDArray, relative: NDArray, two_groups: bool, ranges: Mapping[str, Any]) -> list[str]:
    finite, relative = scores[np.isfinite(scores)], relative[np.isfinite(relative)]
    if not finite.size:
        return ["empty: no cell has a score"]
    if relative.size and not (relative > 0).any():
        return ["empty: no cell has any signal"]
    found = []
    middle = int(((finite >= _MIDDLE[0]) & (finite <= _MIDDLE[1])).sum())
    smaller = min((finite < _MIDDLE[0]).sum(), (finite > _MIDDLE[1]).sum())
    if not two_groups and middle > max(smaller, _NOTABLE * finite.size):
        found.append(f"no separation: {middle / finite.size:.0%} of the scores are between 0.25 and 0.75")
    bright = (relative >= 1).mean() if relative.size else 0.0
    if bright > _SATURATED:
        found.append(f"saturated: {bright:.0%} of the cells are as bright as the normalisation factor, or brighter")
    found.extend(f"unlike the training: {one}" for one in outside(describe(relative), ranges))
    return found
