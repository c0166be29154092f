"""Labels from and to CSV files, in a form of our own and in that of the paper's authors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from nimbus_sd import keys
from nimbus_sd._disk import replacing
from nimbus_sd._table import check_table
from nimbus_sd._text import as_number, columns_of, listed, with_formulas, without_formulas
from nimbus_sd.labels.layers import PLACE, STATES, WORDS, cells_of, places, put_labels, read_labels, without_repeats

#: Label of each ``activity`` in the authors' tables. Gold: 2 and 3 are uncertain, leaning positive and negative.
_CODES: Mapping[str, Mapping[Any, float]] = {
    "gold": {0: 0.0, 1: 1.0, 2: 0.75, 3: 0.25},
    "silver": {0: 0.0, 1: 1.0, 2: 0.5},
}
_CELL = ("cell_id", "labels", "label")
_OURS, _THEIRS = [*PLACE, "label"], ["fov", "cell_id", "channel", "activity"]

Codes = Literal["gold", "silver"]


def from_csv(adata: AnnData, path: str | Path, *, key_added: str = keys.GOLD, codes: Codes | None = None) -> None:
    """Read labels from a CSV file, one row for each cell and channel.

    Parameters
    ----------
    adata
        Cells x channels, with region and instance id in ``obs``.
    path
        The file, whose form is recognised by its columns:

        - ``region``, ``instance_id``, ``channel``, ``label``: ours. A label is a number (1, 0.75, 0.5, 0.25, 0) or
          a word (positive, likely positive, undetermined, likely negative, negative); empty is not judged.
        - ``fov``, ``cell_id`` (or ``labels``, ``label``), ``channel``, ``activity``, and possibly ``dataset``: that of
          the paper's authors. Fields of view are looked for in ``obs["fov"]``, or are regions with or without
          ``_labels``.
    key_added
        Name of the layer: ``"gold"`` for whole regions of :func:`draw_regions`, ``"gold_training"`` for cells of
        :func:`draw_cells`, any other for an annotator (see :func:`consensus`).
    codes
        What ``activity`` means. ``"gold"``: 0 negative, 1 positive, 2 and 3 uncertain, leaning positive and negative.
        ``"silver"``: 2 is undetermined. None goes by the file, and asks where a 2 could mean either.

    Returns
    -------
    None
        Sets ``layers[key_added]``: the labels of the file, those that were there elsewhere; NaN where not judged.

    Raises
    ------
    KeyError
        A region or channel is not in the table; a warning says how many cells are not.
    ValueError
        The file is in neither form, a label is unclear, or a region would be for training and for evaluation.

    Examples
    --------
    >>> import tempfile
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ns.labels.to_csv(adata, f"{folder}/gold.csv")
    ...     ns.labels.from_csv(adata, f"{folder}/gold.csv", key_added="again")
    >>> bool((adata.layers["again"] == adata.layers["gold"]).all())
    True
    """
    check_table(adata)
    _check_codes(codes)
    path = Path(path)
    columns = columns_of(path)
    if not (ours := set(_OURS) <= set(columns)) and not _are_theirs(columns):
        raise ValueError(f"{path} has the columns {columns}; it must have {_OURS}, or {_THEIRS}.")
    table = read_label_table(path, None) if ours else _read_theirs(adata, path, codes)
    put_labels(adata, table, key_added, str(path))


def to_csv(adata: AnnData, path: str | Path, *, layer: str = keys.GOLD, codes: Codes | None = None) -> None:
    """Write the labels of a layer to a CSV file that :func:`from_csv` reads, one row for each that is judged.

    Parameters
    ----------
    adata
        Cells x channels, with region and instance id in ``obs``.
    path
        A new file; a FileExistsError if it exists.
    layer
        Layer of labels.
    codes
        None writes our form, with labels as numbers. ``"gold"`` and ``"silver"`` write that of the paper's authors:
        ``fov``, ``cell_id``, ``channel``, ``activity``, in front ``dataset`` if ``obs`` has it.

    Raises
    ------
    ValueError
        The code has no number for a state: there is no undetermined in ``"gold"``, nothing likely in ``"silver"``.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists and is left as it is; choose another name, or delete it first.")
    _check_codes(codes)
    labels = read_labels(adata, layer)
    rows, columns = np.nonzero(np.isfinite(labels))
    table = places(adata, rows, columns).assign(label=labels[rows, columns].astype(float))
    if codes is not None:
        activity = {label: code for code, label in _CODES[codes].items()}
        if lacking := sorted(set(table["label"]) - set(activity)):
            raise ValueError(f"The code {codes!r} has no number for {listed(map(WORDS.get, lacking))} of {layer!r}.")
        table = table.assign(fov=_fovs(adata).iloc[rows], activity=table["label"].map(activity))
        table = table.rename(columns={"instance_id": "cell_id"})[_THEIRS]
        if "dataset" in adata.obs:
            table.insert(0, "dataset", adata.obs["dataset"].iloc[rows])
    with replacing(path) as (file,):
        without_formulas(table).to_csv(file, index=False)


def find_label_tables(folders: Sequence[Path], name: str) -> list[Path]:
    """Find the authors' tables of labels in the first folder that has any; a ValueError if none has."""
    for folder in folders:
        if tables := [path for path in sorted(folder.glob("*.csv")) if _is_label_table(path)]:
            return tables
    raise ValueError(f"No table of labels for {name!r}: no CSV file with {_THEIRS} in {', '.join(map(str, folders))}.")


def _is_label_table(path: Path) -> bool:
    try:
        return _are_theirs(pd.read_csv(path, nrows=0).columns)
    except (ValueError, OSError):
        # What pandas raises for what is no table is a ValueError.
        return False


def _are_theirs(columns: Collection[str]) -> bool:
    return {"fov", "channel", "activity"} <= set(columns) and not set(_CELL).isdisjoint(columns)


def read_label_table(path: Path, codes: Codes | None, datasets: Collection[str] | None = None) -> pd.DataFrame:
    """Read a table of labels in our form (``codes`` is None): `PLACE` and ``label``; or in that of the paper's authors.

    Theirs has ``fov`` for ``region``, and ``dataset`` if the file does, of which only ``datasets`` are read; rows
    without a label are left out.
    """
    columns = pd.read_csv(path, nrows=0).columns
    cell, value = ("instance_id", "label") if codes is None else (next(c for c in _CELL if c in columns), "activity")
    text = ["region", "channel"] if codes is None else [c for c in ("dataset", "fov", "channel") if c in columns]
    # Categories are read once each: tables of the full data have many millions of rows.
    table = pd.read_csv(path, usecols=[*text, cell, value], dtype="category", keep_default_na=False)
    table = table[[*text[:-1], cell, text[-1], value]]
    table = table.assign(**{name: with_formulas(table[name]) for name in text})
    if codes is not None and "dataset" in table and datasets is not None:
        table = table[table["dataset"].isin(list(datasets))]
    for name, read in ((cell, _whole_number), (value, partial(_label, codes=codes))):
        column = table[name].cat.remove_unused_categories()
        values = {entry: read(entry) for entry in column.cat.categories}
        if wrong := sorted(entry for entry, number in values.items() if number is None):
            what = "whole numbers" if name == cell else f"one of {sorted(_CODES[codes]) if codes else list(STATES)}"
            raise ValueError(f"{path} has the values {listed(wrong)} of {name}; they must be {what}.")
        table[name] = column.map(values).astype(np.int64 if name == cell else np.float32)
    table = table.rename(columns={cell: "instance_id", value: "label"})
    if codes is None:
        return table.astype({"region": str, "channel": str})
    table = table[table["label"].notna()]
    if table.empty:
        raise ValueError(f"{path} has no labels{f' for {listed(datasets)}' if datasets is not None else ''}.")
    return without_repeats(table, str(path))


def _check_codes(codes: str | None) -> None:
    if codes not in (None, *_CODES):
        raise ValueError(f"`codes` is {codes!r}; it must be 'gold', 'silver' or None.")


def _whole_number(text: str) -> int | None:
    # Ids of 64 bit do not fit into floats.
    if text.strip().isdecimal():
        return int(text)
    number = as_number(text)
    return int(number) if number is not None and number.is_integer() else None


def _label(text: str, codes: Codes | None) -> float | None:
    """Return the label of a word or number, or of an ``activity``; NaN for missing, None for what is none."""
    word = text.strip().casefold()
    if word in ("", "na", "nan"):
        return float("nan")
    number = as_number(word)
    label = STATES.get(word, number) if codes is None else _CODES[codes].get(number)
    return None if label is None or np.isnan(label) else label


def _read_theirs(adata: AnnData, path: Path, codes: Codes | None) -> pd.DataFrame:
    """Read labels and find the region of each: by field of view, and by data set where both sides have it."""
    if codes is None:
        seen = set(pd.read_csv(path, usecols=["activity"])["activity"].dropna())
        if 2 in seen and 3 not in seen:
            meaning = "'leaning positive' in a gold standard, 'undetermined' in other tables"
            raise ValueError(f"{path} has the activity 2: {meaning}. Pass `codes='gold'` or `codes='silver'`.")
    regions = pd.DataFrame({"fov": _fovs(adata), "region": cells_of(adata)["region"]})
    if "dataset" in adata.obs:
        regions["dataset"] = adata.obs["dataset"].astype(str)
    table = read_label_table(path, codes or "gold", regions["dataset"].unique() if "dataset" in regions else None)
    by = [name for name in ("dataset", "fov") if name in table and name in regions]
    if "dataset" in table and "dataset" not in by and table["dataset"].nunique() > 1:
        raise ValueError(f"{path} has labels of several data sets; `obs['dataset']` must say of which the cells are.")
    named = table[by].astype(str)
    regions = regions[[*by, "region"]].drop_duplicates().merge(named.drop_duplicates(), on=by)
    if len(twice := regions[regions.duplicated(by, keep=False)]):
        what = f"field of view {twice['fov'].iloc[0]!r}, which the regions {listed(twice['region'])} share"
        advice = f"Add a column 'dataset' to the file and to `obs`, or use the columns {_OURS}."
        raise ValueError(f"{path} has labels of {what}. {advice}")
    # A field of view may also be named as its region.
    region = named.merge(regions, on=by, how="left")["region"].set_axis(table.index).fillna(named["fov"])
    return table.assign(region=region, channel=table["channel"].astype(str))[_OURS]


def _fovs(adata: AnnData) -> pd.Series:
    if "fov" in adata.obs:
        return adata.obs["fov"].astype(str)
    return cells_of(adata)["region"].str.removesuffix("_labels")
