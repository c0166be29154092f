"""The cells of each curve, and curves put below each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd._table import as_list, layer, truth_layer
from nimbus_sd.metrics._calls import calls
from nimbus_sd.metrics._counts import Judged, pool

if TYPE_CHECKING:
    from anndata import AnnData

# Points of a curve that are kept, for a picture.
_POINTS = 1000


def curve_cells(
    adata: AnnData, pred: str | Sequence[str], truth: str, average: Literal["pooled"] | None, likely: bool
) -> Iterator[tuple[str, str, Judged]]:
    """Yield the cells of each curve, with the names of its layer and channel."""
    if average not in (None, "pooled"):
        raise ValueError(f"`average` is {average!r}; it must be None or 'pooled'.")
    labels = truth_layer(adata, truth, likely=likely)
    for name in as_list(pred):
        uncut, everybody = [0.0] * adata.n_vars, np.arange(adata.n_obs)
        parts = calls(layer(adata, name), name, labels, uncut, everybody, likely=likely)
        if average == "pooled":
            yield name, "all", pool(list(parts))
        else:
            yield from ((name, channel, one) for channel, one in zip(adata.var_names, parts, strict=True))


def curve_table(
    parts: Iterator[tuple[str, str, Judged]], curve: Callable[[Judged], dict[str, NDArray]], columns: Sequence[str]
) -> pd.DataFrame:
    """Put curves below each other, each with at most so many points; NaN where there is none."""
    found = []
    for name, channel, one in parts:
        points = pd.DataFrame(curve(one) or {column: np.array([np.nan]) for column in columns})
        kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), _POINTS)).round().astype(int))
        points = points.iloc[kept]
        points.insert(0, "channel", channel)
        points.insert(0, "layer", name)
        found.append(points)
    return pd.concat(found, ignore_index=True)
