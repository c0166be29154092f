"""Silver standard from one or two gates for each marker."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._csv import columns_of
from nimbus_sd._table import as_list, at_or_above
from nimbus_sd._table import layer as read_layer
from nimbus_sd.labels._silver_layer import add_silver, check_silver_key, excluded
from nimbus_sd.labels._states import listed
from nimbus_sd.spatial import not_found

if TYPE_CHECKING:
    from anndata import AnnData

Gates: TypeAlias = Mapping[str, float | tuple[float, float]] | pd.Series | str | Path


def silver_from_gates(
    adata: AnnData,
    gates: Gates,
    *,
    layer: str = keys.INTEGRATED,
    exclude: str | Sequence[str] = (),
    key_added: str = keys.SILVER,
) -> None:
    """Label each cell by a gate for each marker, as for the paper's Vectra data (Rumberger et al., Methods), or by two.

    Parameters
    ----------
    adata
        Cells x channels.
    gates
        Marker -> value at and above which a cell is positive and below which it is negative; or a pair of them,
        ``(lower, upper)``: negative below the lower, positive at and above the upper, between them undetermined. With
        a lower gate of ``-inf`` no cell is negative, with an upper one of ``inf`` none is positive. Or the path of a
        CSV file with the columns ``marker`` and ``gate``, or ``marker``, ``lower`` and ``upper``.
    layer
        The values that are gated.
    exclude
        Markers that get no labels.
    key_added
        Name of the layer.

    Returns
    -------
    None
        Sets ``layers[key_added]`` (float32, 1 positive, 0.5 undetermined, 0 negative, NaN without a gate or a value)
        and ``uns[key_added]``, whose ``params`` hold ``gates``: lower and upper gate, the same for one, of each of the
        ``markers``.

    Raises
    ------
    KeyError
        If the layer or a marker does not exist; likely names are given.
    TypeError
        If the gates are neither a mapping nor the path of a file.
    ValueError
        If the file cannot be read; if there is no gate, one is no number, or a lower one is above its upper one; if
        ``key_added`` holds something else.

    Warns
    -----
    UserWarning
        Names markers that have all cells on one side of a gate, unless it is ``-inf`` or ``inf``.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.X
    >>> ns.labels.silver_from_gates(adata, {"CD3": 900.0})
    >>> bool(((adata.layers["silver"][:, 2] == 1) == (adata.X[:, 2] >= 900)).all())
    True

    Cells between two gates are undetermined:

    >>> ns.labels.silver_from_gates(adata, {"CD3": (600.0, 900.0)})
    >>> between = (adata.X[:, 2] >= 600) & (adata.X[:, 2] < 900)
    >>> bool(((adata.layers["silver"][:, 2] == 0.5) == between).all())
    True
    """
    values = read_layer(adata, layer)
    cuts = _gates(gates)
    check_silver_key(adata, key_added)
    if missing := [name for name in cuts if name not in adata.var_names]:
        raise not_found("channel", missing, adata.var_names, " (markers of the gates)")
    labels = np.full(adata.shape, np.nan, np.float32)
    one_side = []
    for name, pair in cuts.items():
        i = adata.var_names.get_loc(name)
        known = np.isfinite(values[:, i])
        above = [at_or_above(values[known, i], cut) for cut in pair]
        labels[known, i] = np.mean(above, axis=0)
        for cut, side in dict(zip(pair, above, strict=True)).items():
            if known.any() and np.isfinite(cut) and side.all() == side.any():
                one_side.append(f"{name!r} (all {'at or above' if side[0] else 'below'} {cut:g})")
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
        "exclude": as_list(exclude),
    }
    add_silver(adata, key_added, labels, params)


def _gates(gates: Gates) -> dict[str, tuple[float, float]]:
    """Return the lower and the upper gate of each marker; where there is one, it is both."""
    if isinstance(gates, str | Path):
        given = _read(Path(gates))
    elif not isinstance(gates, Mapping | pd.Series):
        raise TypeError(
            f"`gates` is a {type(gates).__name__}; it must be a mapping or Series from marker to gate, such as "
            "{'CD3': 900} or {'CD3': (600, 900)}, or the path of a CSV file with the columns marker and gate, or "
            "marker, lower and upper."
        )
    else:
        given = [(str(name), gate) for name, gate in gates.items()]
    names = [name for name, _ in given]
    if not names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"`gates` names {'no marker' if not names else listed(twice) + ' more than once'}.")
    cuts = {name: pair for name, gate in given if (pair := _pair(gate))}
    if wrong := {name: gate for name, gate in given if name not in cuts}:
        raise ValueError(
            f"The gate of {listed(wrong)} is no number and no pair (lower, upper) of numbers with lower <= upper, in "
            f"which -inf and inf are allowed; that of {next(iter(wrong))!r} is {next(iter(wrong.values()))!r}."
        )
    return cuts


def _read(path: Path) -> list[tuple[str, Any]]:
    columns = columns_of(path)
    found = {"marker", "gate", "lower", "upper"} & set(columns)
    if found not in ({"marker", "gate"}, {"marker", "lower", "upper"}):
        raise ValueError(
            f"{path} must have the columns 'marker' and 'gate', or 'marker', 'lower' and 'upper'; it has "
            f"{listed(columns)}."
        )
    table = pd.read_csv(path)
    gates = table["gate"] if "gate" in found else zip(table["lower"], table["upper"], strict=True)
    return list(zip(table["marker"].astype(str).str.strip(), gates, strict=True))


def _pair(gate: Any) -> tuple[float, float] | None:
    """Return the lower and the upper gate; None if it is neither a number nor two in order."""
    try:
        numbers = np.asarray(gate, float)
    except (TypeError, ValueError):
        return None
    if numbers.ndim == 0:
        return (float(numbers), float(numbers)) if np.isfinite(numbers) else None
    return (float(numbers[0]), float(numbers[1])) if numbers.shape == (2,) and numbers[0] <= numbers[1] else None
