"""What cell types are told from: signatures that fit a table, and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import outside_unit_interval
from nimbus_sd.tl._inputs import check_number
from nimbus_sd.tl._signature_panel import Missing, checked_table, on_panel
from nimbus_sd.tl._signature_table import Signatures, markers_of
from nimbus_sd.tl._signature_tree import CellType, build_tree

if TYPE_CHECKING:
    from anndata import AnnData


def check_limit(name: str, value: float) -> None:
    """Refuse a limit below which several types, or above which none, could be supported."""
    check_number(name, value, lambda limit: 0.5 <= limit < 1, "in [0.5, 1), so that one type at most has it")


def panel_signatures(adata: AnnData, signatures: Signatures, missing: Missing) -> pd.DataFrame:
    """Read signatures and name their markers as the channels of a table; for what a user calls."""
    return on_panel(checked_table(signatures), list(map(str, adata.var_names)), missing, stacklevel=4)


def scored_tree(
    signatures: pd.DataFrame, scores: NDArray[np.float32], channels: Sequence[str], layer: str
) -> list[CellType]:
    """Return the types that can be told with the channels that have scores; for what a user calls.

    Parameters
    ----------
    signatures
        From `panel_signatures`.
    scores, channels
        From `scored_matrix`.
    layer
        Where the scores are from, for messages.

    Raises
    ------
    ValueError
        If scores are outside [0, 1], or no type can be told.
    """
    if outside_unit_interval(scores).any():
        raise ValueError(f"Layer {layer!r} has values outside [0, 1]; cell types are for scores or calls.")
    wanted = markers_of(signatures)
    if empty := [name for name in wanted if name not in channels]:
        signatures = on_panel(signatures, wanted, "skip", empty, stacklevel=4)
    return build_tree(signatures)
