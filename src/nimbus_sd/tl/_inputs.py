"""What the tools are given: parameters, and scores of which some may be missing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd._table import as_list
from nimbus_sd._table import layer as read_layer
from nimbus_sd._text import listed
from nimbus_sd.tl._markers import nearest


def check_rng(rng: object) -> None:
    """Raise a ValueError if this is neither a seed nor a generator: the same call must give the same result."""
    is_seed = isinstance(rng, int | np.integer) and not isinstance(rng, bool) and 0 <= rng < 2**32
    if not is_seed and not isinstance(rng, np.random.Generator):
        raise ValueError(f"`rng` is {rng!r}; it must be a seed, from 0 to 2**32 - 1, or a numpy.random.Generator.")


def check_number(name: str, value: object, fits: Callable[[float], bool], allowed: str) -> None:
    """Raise a ValueError if a parameter is not a number that fits; ``allowed`` says which do."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not fits(float(value)):
        raise ValueError(f"`{name}` is {value!r}; it must be a number {allowed}.")


def check_count(name: str, value: object, least: int) -> None:
    """Raise a ValueError if a parameter is not a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number, {least} or more.")


def check_installed(package: str, tool: str, hint: str = "") -> None:
    """Raise an ImportError if a package is missing that comes with the extra named like the tool."""
    if find_spec(package) is None:
        install = f"pip install '.[{tool}]' in the clone of nimbus-sd"
        raise ImportError(f"`tl.{tool}` needs the package {package} (GPL): {install}.{hint}")


def scored_matrix(
    adata: AnnData, layer: str, channels: Sequence[str] | None, *, need_all: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Read the scores of the channels that have any, and of the cells that have one in each of these.

    NaN and infinite values count as missing. With ``need_all`` a channel without a score is an error. Must be called by
    a public function: its warnings point to that function's caller.

    Returns
    -------
    Values, float32, finite, in C order, (cells used, channels used); which cells are used, (cells,); channels used.
    """
    values = read_layer(adata, layer)
    names = _channel_names(adata, channels)
    if not len(values):
        raise ValueError("The table has no cells.")
    values = values[:, adata.var_names.get_indexer(names)].astype(np.float32)
    finite = np.isfinite(values)
    scored = finite.any(axis=0)
    if not scored.all():
        if need_all or not scored.any():
            raise ValueError(f"Layer {layer!r} has no score of any cell in channel(s) {listed(names[~scored])}.")
        _warn(f"Channel(s) {listed(names[~scored])} of layer {layer!r} are left out: no cell has a score there.")
    values, finite, names = values[:, scored], finite[:, scored], names[scored]
    used = finite.all(axis=1)
    if not used.any():
        counts = ", ".join(f"{name} {n:,}" for name, n in zip(names, finite.sum(axis=0), strict=True))
        none = f"Layer {layer!r} has no cell with a score in each of {listed(names)}."
        raise ValueError(f"{none} Name fewer as `channels`; scored cells in each: {counts}.")
    if not used.all():
        lacking = listed(names[~finite.all(axis=0)])
        cells = f"{int((~used).sum()):,} of {used.size:,} cells are left out"
        _warn(f"{cells}: layer {layer!r} has no score of them in channel(s) {lacking}.")
    values = np.ascontiguousarray(values[used])
    constant = values.min(axis=0) == values.max(axis=0)
    if constant.any():
        _warn(f"Channel(s) {listed(names[constant])} of layer {layer!r} are the same in every cell.")
    return values, used, names.to_list()


def judged_matrix(adata: AnnData, layer: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return the scores of all channels and where there are any; must be called as :func:`scored_matrix`."""
    values = read_layer(adata, layer)
    judged = np.isfinite(values)
    if not judged.any():
        raise ValueError(f"Layer {layer!r} has no score of any cell.")
    if not judged.all():
        lacking = zip(adata.var_names, (~judged).sum(axis=0), strict=True)
        counts = ", ".join(f"{name} {n:,}" for name, n in lacking if n)
        _warn(f"Cells that lack a score in layer {layer!r} are not judged; of {len(values):,} cells: {counts}.")
    return values, judged


def _channel_names(adata: AnnData, channels: Sequence[str] | None) -> pd.Index:
    if not adata.var_names.is_unique:
        twice = listed(adata.var_names[adata.var_names.duplicated()].unique())
        raise ValueError(f"The table has more than one channel named {twice}: `adata.var_names_make_unique()`.")
    available = pd.Index(adata.var_names).astype(str)
    names = available if channels is None else pd.Index([str(name) for name in as_list(channels)], dtype=object)
    if names.empty or not names.is_unique:
        raise ValueError(f"`channels` is {list(names)}; it must name at least one channel, and none twice.")
    check_channels(names, available)
    return names


def check_channels(names: Iterable[str], available: Sequence[str]) -> None:
    """Raise a KeyError, with names that look alike, if a channel does not exist."""
    if unknown := [name for name in names if name not in available]:
        near = [match for name in unknown for match in nearest(name, available)]
        hint = f" Did you mean {listed(near)}?" if near else ""
        raise KeyError(f"There is no channel {listed(unknown)}; there are {list(available)}.{hint}")


def _warn(message: str) -> None:
    # This function, the reader of scores, the tool, its caller.
    warnings.warn(message, UserWarning, stacklevel=4)
