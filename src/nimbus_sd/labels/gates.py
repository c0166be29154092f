"""Silver standard from a gate for each marker."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._csv import columns_of
from nimbus_sd.labels._silver_layer import add_silver, check_silver_key, excluded
from nimbus_sd.labels._states import listed
from nimbus_sd.metrics._calls import at_or_above
from nimbus_sd.metrics._layers import layer as read_layer
from nimbus_sd.metrics._layers import layers_of
from nimbus_sd.spatial.elements import not_found

if TYPE_CHECKING:
    from anndata import AnnData


def silver_from_gates(
    adata: AnnData,
    gates: Mapping[str, float] | pd.Series | str | Path,
    *,
    layer: str = keys.INTEGRATED,
    exclude: str | Sequence[str] = (),
    key_added: str = keys.SILVER,
) -> None:
    """Label each cell by a gate for each marker, as for the paper's Vectra data (Rumberger et al., Methods).

    Parameters
    ----------
    adata
        Cells x channels.
    gates
        Marker -> value at and above which a cell is positive, or the path of a CSV file with the columns ``marker``
        and ``gate``.
    layer
        The values that are gated.
    exclude
        Markers that get no labels.
    key_added
        Name of the layer.

    Returns
    -------
    None
        Sets ``layers[key_added]`` (float32, 1 positive, 0 negative, NaN without a gate or a value) and
        ``uns[key_added]``.

    Raises
    ------
    KeyError
        If the layer or a marker does not exist; likely names are given.
    TypeError
        If the gates are neither a mapping nor the path of a file.
    ValueError
        If the file cannot be read; if there is no gate, or one is no number; if ``key_added`` holds something else.

    Warns
    -----
    UserWarning
        Names markers whose gate all cells lie on one side of.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.X
    >>> ns.labels.silver_from_gates(adata, {"CD3": 900.0})
    >>> bool(((adata.layers["silver"][:, 2] == 1) == (adata.X[:, 2] >= 900)).all())
    True
    """
    values = read_layer(adata, layer)
    cuts = _gates(gates)
    check_silver_key(adata, key_added)
    if missing := [name for name in cuts if name not in adata.var_names]:
        raise not_found("channel", missing, adata.var_names, " (markers of the gates)")
    labels = np.full(adata.shape, np.nan, np.float32)
    one_side = []
    for name, cut in cuts.items():
        i = adata.var_names.get_loc(name)
        known = np.isfinite(values[:, i])
        labels[known, i] = at_or_above(values[known, i], cut)
        if known.any() and np.ptp(labels[known, i]) == 0:
            one_side.append(f"{name!r} (all {'at or above' if labels[known, i][0] else 'below'} {cut:g})")
    labels[:, excluded(adata, exclude)] = np.nan
    if one_side:
        warnings.warn(
            f"The gate parts no cells of {', '.join(one_side)}. Is it in the units of layers[{layer!r}]?",
            UserWarning,
            stacklevel=2,
        )
    params = {
        "layer": layer,
        "markers": list(cuts),
        "gates": np.array(list(cuts.values())),
        "exclude": layers_of(exclude),
    }
    add_silver(adata, key_added, labels, params)


def _gates(gates: Mapping[str, float] | pd.Series | str | Path) -> dict[str, float]:
    if isinstance(gates, str | Path):
        columns = columns_of(Path(gates))
        if lacking := [name for name in ("marker", "gate") if name not in columns]:
            raise ValueError(f"{gates} lacks the column(s) {listed(lacking)}; it has {listed(columns)}.")
        table = pd.read_csv(gates)
        pairs = list(zip(table["marker"].astype(str).str.strip(), table["gate"], strict=True))
    elif not isinstance(gates, Mapping | pd.Series):
        raise TypeError(
            f"`gates` is a {type(gates).__name__}; it must be a mapping or Series from marker to gate, such as "
            "{'CD3': 900}, or the path of a CSV file with the columns marker and gate."
        )
    else:
        pairs = [(str(name), cut) for name, cut in gates.items()]
    names = [name for name, _ in pairs]
    if not names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"`gates` names {'no marker' if not names else listed(twice) + ' more than once'}.")
    cuts = pd.to_numeric(pd.Series([cut for _, cut in pairs], names, dtype=object), errors="coerce").astype(float)
    if wrong := [name for name, cut in cuts.items() if not np.isfinite(cut)]:
        raise ValueError(f"The gate of {listed(wrong)} is no number.")
    return {str(name): float(cut) for name, cut in cuts.items()}
