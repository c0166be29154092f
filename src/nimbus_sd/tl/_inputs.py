"""What the tools are given: parameters, and scores of which some may be missing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import as_list
from nimbus_sd._table import layer as read_layer
from nimbus_sd.tl._markers import nearest

if TYPE_CHECKING:
    from anndata import AnnData


def seed_of(rng: int | np.random.Generator) -> int:
    """Return an int as it is, so that scanpy gives the same with it; else draw one."""
    return int(rng.integers(2**31)) if isinstance(rng, np.random.Generator) else int(rng)


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
        raise ImportError(
            f"`tl.{tool}` needs the package {package} (GPL): pip install '.[{tool}]' in the clone of nimbus-sd.{hint}"
        )


def scored_matrix(
    adata: AnnData, layer: str, channels: Sequence[str] | None, *, need_all: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Read the scores of the channels that have any, and of the cells that have one in each of these.

    Must be called by a public function: its warnings point to that function's caller. NaN and infinite values count as
    missing. With ``need_all`` a channel without a score is an error.

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
    if not scored.any() or (need_all and not scored.all()):
        raise ValueError(f"Layer {layer!r} has no score of any cell in channel(s) {_listed(names[~scored])}.")
    if not scored.all():
        _warn(f"Channel(s) {_listed(names[~scored])} of layer {layer!r} are left out: no cell has a score there.")
    values, finite, names = values[:, scored], finite[:, scored], names[scored]
    used = finite.all(axis=1)
    if not used.any():
        counts = ", ".join(f"{name} {n:,}" for name, n in zip(names, finite.sum(axis=0), strict=True))
        raise ValueError(
            f"Layer {layer!r} has no cell with a score in each of {_listed(names)}. Name fewer as `channels`; scored "
            f"cells in each: {counts}."
        )
    if not used.all():
        _warn(
            f"{int((~used).sum()):,} of {used.size:,} cells are left out: layer {layer!r} has no score of them in "
            f"channel(s) {_listed(names[~finite.all(axis=0)])}."
        )
    values = np.ascontiguousarray(values[used])
    constant = values.min(axis=0) == values.max(axis=0)
    if constant.any():
        _warn(f"Channel(s) {_listed(names[constant])} of layer {layer!r} are the same in every cell.")
    return values, used, names.to_list()


def judged_matrix(adata: AnnData, layer: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return the scores of all channels and where there are any; must be called as :func:`scored_matrix`."""
    values = read_layer(adata, layer)
    judged = np.isfinite(values)
    if not judged.any():
        raise ValueError(f"Layer {layer!r} has no score of any cell.")
    lacking = (~judged).sum(axis=0)
    if lacking.any():
        counts = ", ".join(f"{name} {n:,}" for name, n in zip(adata.var_names, lacking, strict=True) if n)
        _warn(f"Cells that lack a score in layer {layer!r} are not judged; of {len(values):,} cells: {counts}.")
    return values, judged


def _channel_names(adata: AnnData, channels: Sequence[str] | None) -> pd.Index:
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"The table has more than one channel named {_listed(twice)}: `adata.var_names_make_unique()`."
        )
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
        hint = f" Did you mean {_listed(near)}?" if near else ""
        raise KeyError(f"There is no channel {_listed(unknown)}; there are {list(available)}.{hint}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _warn(message: str) -> None:
    # This function, the reader of scores, the tool, its caller.
    warnings.warn(message, UserWarning, stacklevel=4)
