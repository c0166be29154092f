"""Scores as a matrix without gaps: what to do about channels and cells that have none."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nimbus_sd.metrics._layers import layer as read_layer

if TYPE_CHECKING:
    from anndata import AnnData


def scored_matrix(
    adata: AnnData, layer: str, channels: Sequence[str] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Read the scores of some channels, without the channels and then the cells that lack one.

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Name of the layer.
    channels
        Names of the channels, in the order wanted; None takes all.

    Returns
    -------
    The scores (n_used, n_channels), which cells they are of (n_cells,), and the names of the channels left.

    Raises
    ------
    KeyError
        If the layer or a channel does not exist.
    ValueError
        If nothing is left.

    Warns
    -----
    UserWarning
        Names channels that have no score at all and are left out, channels whose scores are all the same (these are
        kept), and says how many cells lack a score.
    """
    values = read_layer(adata, layer)
    names = [str(name) for name in adata.var_names]
    wanted = names if channels is None else [str(name) for name in channels]
    if unknown := [name for name in wanted if name not in set(names)]:
        near = sorted({close for name in unknown for close in get_close_matches(name, names)}) or names
        raise KeyError(f"The table has no channel {', '.join(map(repr, unknown))}; the nearest names are {near}.")
    matrix = np.asarray(values[:, [names.index(name) for name in wanted]], np.float32)
    known = np.isfinite(matrix)
    there = np.asarray(known.any(axis=0))
    if not there.any():
        raise ValueError(f"Layer {layer!r} has no score of any of the channels {wanted}; there is nothing to work on.")
    if not there.all():
        left_out = [name for name, one in zip(wanted, there, strict=True) if not one]
        warnings.warn(f"No cell has a score of {left_out}; left out.", UserWarning, stacklevel=3)
        matrix, known = matrix[:, there], known[:, there]
        wanted = [name for name, one in zip(wanted, there, strict=True) if one]
    used = np.asarray(known.all(axis=1))
    if not used.any():
        raise ValueError(f"In layer {layer!r}, no cell has a score of all of {wanted}; pass fewer channels.")
    if not used.all():
        warnings.warn(
            f"{int((~used).sum())} of {len(used)} cells lack a score of some channel; they get no result.",
            UserWarning,
            stacklevel=3,
        )
        matrix = matrix[used]
    if constant := [name for name, one in zip(wanted, np.ptp(matrix, axis=0) == 0, strict=True) if one]:
        warnings.warn(f"The scores of {constant} are the same in all cells.", UserWarning, stacklevel=3)
    return matrix, used, wanted
