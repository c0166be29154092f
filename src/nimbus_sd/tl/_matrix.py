"""The scores that a tool works on, and one rule for those that are missing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import layer as read_layer

if TYPE_CHECKING:
    from anndata import AnnData


def scored_matrix(
    adata: AnnData, layer: str, channels: Sequence[str] | None, *, need_all: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Return the scores of channels and cells that have them; to be called by the function that a user calls.

    Channels that no cell has a score in are left out. Then cells that lack a score in one of the others are left out.

    Parameters
    ----------
    adata
        Cells x channels.
    layer
        Name of the layer. NaN and infinite values count as missing.
    channels
        Which ones, in this order; None takes all.
    need_all
        Whether a channel without a score is an error.

    Returns
    -------
    values
        Float32, (cells used, channels used), finite, in C order.
    used_cells
        (cells,)
    channels
        Names of those used.

    Raises
    ------
    KeyError
        If the layer or a channel does not exist.
    ValueError
        If the table has no cells, no channel is asked for, one is named twice, or nothing with a score is left.

    Warns
    -----
    UserWarning
        Names channels that are left out, the number of cells that are, and channels whose scores are all the same.
    """
    values = read_layer(adata, layer)
    names = _names(adata, channels)
    if not len(values):
        raise ValueError("The table has no cells.")
    values = values[:, adata.var_names.get_indexer(names)].astype(np.float32)
    known = np.isfinite(values)
    scored = known.any(axis=0)
    empty = [name for name, one in zip(names, scored, strict=True) if not one]
    if not scored.any():
        raise ValueError(f"Layer {layer!r} has no score of any cell in channel(s) {_listed(names)}.")
    if empty and need_all:
        raise ValueError(f"Layer {layer!r} has no score of any cell in channel(s) {_listed(empty)}, which are needed.")
    if empty:
        _warn(f"Channel(s) {_listed(empty)} of layer {layer!r} are left out: no cell has a score there.")
    names = [name for name, one in zip(names, scored, strict=True) if one]
    values, known = values[:, scored], known[:, scored]
    used = known.all(axis=1)
    if not used.any():
        raise ValueError(
            f"Layer {layer!r} has no cell with a score in each of {_listed(names)}. Name fewer as `channels`; scored "
            f"cells in each: {', '.join(f'{name} {n:,}' for name, n in zip(names, known.sum(axis=0), strict=True))}."
        )
    if not used.all():
        missing = [name for name, one in zip(names, known.all(axis=0), strict=True) if not one]
        _warn(
            f"{int((~used).sum()):,} of {used.size:,} cells are left out: layer {layer!r} has no score of them in "
            f"channel(s) {_listed(missing)}."
        )
    values = np.ascontiguousarray(values[used])
    if constant := [name for name, low, high in zip(names, values.min(0), values.max(0), strict=True) if low == high]:
        _warn(f"Channel(s) {_listed(constant)} of layer {layer!r} are the same in every cell: they tell nothing apart.")
    return values, used, names


def judged_matrix(adata: AnnData, layer: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return the scores of all channels and which there are; to be called by the function that a user calls.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If it has no score at all.

    Warns
    -----
    UserWarning
        Names channels without any score, and how many cells lack one in which others.
    """
    values = read_layer(adata, layer)
    judged = np.isfinite(values)
    names = pd.Index(adata.var_names).astype(str)
    scored = judged.any(axis=0)
    if not scored.any():
        raise ValueError(f"Layer {layer!r} has no score of any cell in channel(s) {_listed(list(names))}.")
    if not scored.all():
        _warn(
            f"Nothing is judged in channel(s) {_listed(list(names[~scored]))} of layer {layer!r}: no cell has a score "
            "there."
        )
    partly = scored & ~judged.all(axis=0)
    if partly.any():
        lacking = int((~judged[:, partly]).any(axis=1).sum())
        _warn(
            f"{lacking:,} of {len(values):,} cells lack a score in channel(s) {_listed(list(names[partly]))} of layer "
            f"{layer!r}, and are not judged there."
        )
    return values, judged


def _names(adata: AnnData, channels: Sequence[str] | None) -> list[str]:
    if not adata.var_names.is_unique:
        twice = sorted(set(adata.var_names[adata.var_names.duplicated()]))
        raise ValueError(
            f"The table has more than one channel named {_listed(twice)}: `adata.var_names_make_unique()`."
        )
    there = [str(name) for name in adata.var_names]
    if channels is None:
        return there
    names = [channels] if isinstance(channels, str) else [str(name) for name in channels]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`channels` is {names}; it must name at least one channel, and none twice.")
    if unknown := [name for name in names if name not in there]:
        folded = {name.lower(): name for name in there}
        near = {name: get_close_matches(name.lower(), folded) for name in unknown}
        said = [f"{name!r}" + (f" (near: {_listed([folded[n] for n in near[name]])})" if near[name] else "")
                for name in unknown]  # fmt: skip
        raise KeyError(f"There is no channel {', '.join(said)}; there are {there}.")
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _warn(message: str) -> None:
    # This function, `scored_matrix`, the tool, its caller.
    warnings.warn(message, UserWarning, stacklevel=4)
