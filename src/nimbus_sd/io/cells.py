"""Cells and what is known of them as one flat file, for a spreadsheet, R or another viewer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from nimbus_sd import keys
from nimbus_sd._disk import replacing
from nimbus_sd._table import as_list, layer, obs_columns
from nimbus_sd._text import without_formulas
from nimbus_sd.spatial import not_found

_ENDINGS = (".csv", ".xlsx")


def write_cells(
    adata: AnnData,
    path: str | Path,
    *,
    layers: str | Sequence[str] = keys.NIMBUS,
    channels: str | Sequence[str] | None = None,
    obs: str | Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a CSV or Excel file with a row for each cell: its place, columns of ``obs``, and scores.

    Parameters
    ----------
    adata
        Cells x channels.
    path
        File that ends in ``.csv``, or in ``.xlsx`` where the package openpyxl is installed.
    layers
        Layers to write, such as ``["nimbus", "positive", "integrated_expression"]`` for scores, calls of
        :func:`nimbus_sd.tl.call_positive` and mean intensities. Columns of the first layer are named after the channel
        (``CD3``); the others, and those whose name is taken, end in the layer's name (``CD3_positive``).
    channels
        Channels to write. None writes all.
    obs
        Columns of ``obs`` to write. None writes all: region, instance id, area (um^2) and any others.
    overwrite
        Replace a file that is there. False makes it a FileExistsError.

    Returns
    -------
    None
        Columns are the cell's name, those of ``obs``, ``x`` and ``y`` (pixels of the image) and those of the layers.
        Cells without a score are empty. What a spreadsheet would take for a formula has ``'`` in front.

    Raises
    ------
    KeyError
        A layer, channel or column does not exist.
    ValueError, ImportError
        The ending is another one, an ``.xlsx`` cannot hold so many cells, or openpyxl is missing.

    Examples
    --------
    >>> import tempfile
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ns.io.write_cells(adata, f"{folder}/cells.csv", layers="gold", channels=["CD3", "CD8"], obs="cell_type")
    ...     print(open(f"{folder}/cells.csv").readline().strip())
    cell,cell_type,CD3,CD8
    """
    path = Path(path)
    check_ending(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; pass `overwrite=True` to replace it, or name another file.")
    table = _cell_table(adata, as_list(layers), channels, obs)
    with replacing(path) as (file,):
        if path.suffix == ".csv":
            table.to_csv(file)
        else:
            table.to_excel(file, engine="openpyxl")


def check_ending(path: Path) -> None:
    """Check, before all work, that cells can be written in the format that the file's ending says."""
    if path.suffix not in _ENDINGS:
        raise ValueError(f"{path} must end in {' or '.join(_ENDINGS)}.")
    if path.suffix == ".xlsx" and find_spec("openpyxl") is None:
        raise ImportError(f"{path} needs the package openpyxl: `pip install openpyxl`, or write a .csv.")


def _cell_table(
    adata: AnnData, layers: Sequence[str], channels: str | Sequence[str] | None, obs: str | Sequence[str] | None
) -> pd.DataFrame:
    """Make the table that :func:`write_cells` writes."""
    names = list(adata.var_names) if channels is None else as_list(channels)
    if missing := [name for name in names if name not in adata.var_names]:
        raise not_found("channel", missing, adata.var_names)
    known = adata.obs if obs is None else obs_columns(adata, obs)
    # By position: names of cells may be there twice.
    columns = {str(name): known[name].array for name in known}

    def add(name: str, origin: str, values: np.ndarray) -> None:
        name = name if name not in columns else f"{name}_{origin}"
        if name in columns:
            raise ValueError(f"There are two columns {name!r}; rename that of `obs`, or leave it out.")
        columns[name] = values

    if keys.SPATIAL in adata.obsm:
        for i, axis in enumerate("xy"):
            add(axis, keys.SPATIAL, np.asarray(adata.obsm[keys.SPATIAL])[:, i])
    for name in layers:
        values = layer(adata, name)[:, adata.var_names.get_indexer(names)]
        for channel, column in zip(names, values.T, strict=True):
            add(channel if name == layers[0] else f"{channel}_{name}", name, column)
    cells = adata.obs_names.rename(adata.obs_names.name or "cell")
    return without_formulas(pd.DataFrame(columns, index=cells))
