"""Reading tables: scores, labels with their five states, columns of ``obs``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from nimbus_sd import keys

if TYPE_CHECKING:
    from anndata import AnnData

UNDETERMINED = 0.5
# Bytes. File systems end at 255, and tools add to a name.
_LONGEST = 200


def check_table(adata: object) -> None:
    """Raise a TypeError unless this is an AnnData; the SpatialData that holds it is the usual mistake."""
    if not hasattr(adata, "layers"):
        given = type(adata).__name__
        raise TypeError(f"This needs a table of cells (AnnData) and was given {given}; pass sdata.tables['table'].")


def check_writable(key_added: object) -> None:
    """Raise an error if a table with this name in it could not be written to disk."""
    if not isinstance(key_added, str):
        raise TypeError(f"`key_added` is {key_added!r}; it must be a text.")
    if not re.fullmatch(r"(?!__)[\w.-]+", key_added) or key_added in (".", "..", "_index"):
        rule = "use letters, digits, '_', '-' and '.' only, and no '__' in front"
        raise ValueError(f"`key_added` is {key_added!r}, which cannot be written to disk; {rule}.")
    if len(key_added.encode()) > _LONGEST:
        length = f"{len(key_added.encode())} bytes; at most {_LONGEST} can be written to disk"
        raise ValueError(f"`key_added` is {key_added[:40]!r} and so on, {length}.")


def layer(adata: AnnData, name: str) -> NDArray:
    """Return a layer as a dense array of numbers, cells x channels.

    Raises
    ------
    KeyError
        If it does not exist; the message names those that do.
    TypeError
        If this is no AnnData, or the layer does not hold numbers.
    """
    check_table(adata)
    if name not in adata.layers:
        hint = " `nimbus_sd.predict` adds it." if name in (keys.NIMBUS, keys.INTEGRATED) else ""
        # anndata 0.13 lists X among the layers, under the key None.
        raise KeyError(f"There is no layer {name!r}; there are {sorted(key for key in adata.layers if key)}.{hint}")
    values = adata.layers[name]
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    if values.dtype == bool:
        return values.astype(np.float32)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"Layer {name!r} holds {values.dtype}; it must hold numbers.")
    return values


def truth_layer(adata: AnnData, name: str, *, likely: bool = True) -> NDArray:
    """Return a layer of labels in [0, 1], of which at least one says positive or negative; a ValueError otherwise."""
    labels = layer(adata, name)
    if labels.size:
        low, high = float(np.fmin.reduce(labels, axis=None)), float(np.fmax.reduce(labels, axis=None))
        if low < 0 or high > 1:
            states = "1 positive, 0.75 likely so, 0.5 undetermined, 0.25 likely negative, 0 negative, NaN not judged"
            raise ValueError(f"Layer {name!r} holds labels from {low:g} to {high:g}; they must be in [0, 1]: {states}.")
    if not judged(labels, likely=likely).any():
        hint = "" if likely else " without a doubt; `likely=True` also takes those labelled 0.25 and 0.75"
        raise ValueError(f"Layer {name!r} labels no cell as positive or negative{hint}: there is no truth to use.")
    return labels


def truth_states(adata: AnnData, name: str, *, likely: bool = True) -> NDArray[np.int8]:
    """Return 1 where a layer of labels says positive, 0 where negative, -1 where a cell is not judged."""
    labels = truth_layer(adata, name, likely=likely)
    return np.where(judged(labels, likely=likely), (labels > UNDETERMINED).astype(np.int8), np.int8(-1))


def judged(labels: NDArray, *, likely: bool = True) -> NDArray[np.bool_]:
    """Where a label says positive or negative; ``likely=False`` leaves out those that say so with a doubt."""
    return np.isfinite(labels) & (labels != UNDETERMINED) if likely else (labels == 0) | (labels == 1)


def as_list(names: str | Sequence[str]) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def stack_layers(tables: Mapping[str, pd.DataFrame], pred: str | Sequence[str]) -> pd.DataFrame:
    """Return the table of one layer, or those of a list of layers below each other with a level ``layer``."""
    if isinstance(pred, str):
        return tables[pred].rename_axis("channel")
    return pd.concat(tables, names=["layer", "channel"])


def region_column(adata: AnnData, region_key: str | None = None) -> pd.Series:
    """Return the column of ``obs`` that names each cell's region, by default the one annotated; warn of mixed ones."""
    attrs = adata.uns.get("spatialdata_attrs", {})
    if region_key is None:
        region_key = str(attrs.get("region_key", keys.REGION))
    column = obs_columns(adata, region_key)[region_key]
    instance = attrs.get("instance_key", keys.INSTANCE)
    if instance in adata.obs and (twice := adata.obs.duplicated([region_key, instance])).any():
        region = str(column[twice].iloc[0])
        what = f"{twice.sum()} cells have the region and id of another one, such as in {region!r}"
        warnings.warn(f"{what}: rename regions of samples before joining these.", UserWarning, stacklevel=4)
    return column


def instance_column(adata: AnnData) -> pd.Series:
    """Return the column of ``obs`` that holds each cell's label in its region."""
    key = str(adata.uns.get("spatialdata_attrs", {}).get("instance_key", keys.INSTANCE))
    return obs_columns(adata, key)[key]


def obs_columns(adata: AnnData, names: str | Sequence[str]) -> pd.DataFrame:
    """Return columns of ``obs``; a KeyError names those that exist."""
    check_table(adata)
    columns = as_list(names)
    missing = [name for name in columns if name not in adata.obs.columns]
    if missing:
        raise KeyError(f"`obs` has no column {', '.join(map(repr, missing))}; it has {list(adata.obs.columns)}.")
    return adata.obs[columns]


def clusters_of(adata: AnnData, groupby: str) -> pd.Categorical:
    """Return a column of ``obs`` as clusters: categories of text without empty ones, missing where it is missing.

    Raises
    ------
    KeyError
        If it does not exist.
    ValueError
        If it holds numbers with decimals, or no cell has a cluster.
    """
    column = obs_columns(adata, groupby)[groupby]
    if isinstance(column.dtype, pd.CategoricalDtype):
        clusters = column.cat.remove_unused_categories().array
    else:
        if column.dropna().dtype.kind == "f":
            if (column.dropna() % 1 != 0).any():
                example = column.dropna().iloc[0]
                raise ValueError(f"obs[{groupby!r}] holds numbers such as {example:g}; it must hold names of clusters.")
            column = column.astype("Int64")
        clusters = pd.Categorical(column)
    if not len(clusters.categories):
        raise ValueError(f"obs[{groupby!r}] has no cluster: every cell is missing there.")
    names = [str(name) for name in clusters.categories]
    if len(set(names)) < len(names):
        raise ValueError(f"obs[{groupby!r}] has clusters whose names are the same as text: {names}.")
    return pd.Categorical.from_codes(clusters.codes, names)


def at_or_above(values: NDArray, cut: float) -> NDArray[np.bool_]:
    """Compare in the layer's own precision, as numpy does with Python's numbers: a float32 of 0.7 is at 0.7."""
    return np.asarray(values >= float(cut))


def outside_unit_interval(values: NDArray) -> NDArray[np.bool_]:
    """Whether each channel has a value outside [0, 1]."""
    return np.asarray(((values < 0) | (values > 1)).any(axis=0))


def scaled_arcsinh(values: NDArray) -> NDArray:
    """Take arcsinh(x / c) of cells x channels; c is the median of a channel's values above 0."""
    out = np.empty(values.shape, np.result_type(values.dtype, np.float32))
    for i, column in enumerate(values.T):
        above = column[np.isfinite(column) & (column > 0)]
        # A channel without a value above 0 keeps its shape under any cofactor.
        out[:, i] = np.arcsinh(column / (np.median(above) if above.size else 1))
    return out


def noted_by_region(adata: AnnData, key: str) -> dict[str, float]:
    """Look up a region's ``pixel_size`` or ``grow`` as the last call of `predict` noted it, or `tl.cell_features`."""
    entries = {name: entry.get(key) for name, entry in adata.uns.items() if isinstance(entry, Mapping)}
    before, noted = entries.pop(keys.CELL_FEATURES, None) or {}, dict[str, float]()
    for name, values in entries.items():
        for region, value in values.items() if isinstance(values, Mapping) else ():
            if noted.get(region, value) != value:
                both = f"The table notes `{key}` of {region!r} as {noted[region]:g} and {value:g} um"
                warnings.warn(f"{both}; that of uns[{name!r}] is taken.", UserWarning, stacklevel=4)
            noted[region] = float(value)
    return {**before, **noted}
