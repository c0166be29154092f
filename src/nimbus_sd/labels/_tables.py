"""Tables of labels: one row for each cell and channel that somebody judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nimbus_sd._text import with_formulas

#: Code of the column ``activity`` to label. Gold: 2 and 3 are uncertain, leaning positive and leaning negative.
GOLD_CODES: Mapping[int, float] = {0: 0.0, 1: 1.0, 2: 0.75, 3: 0.25}
#: Silver: 2 is undetermined.
SILVER_CODES: Mapping[int, float] = {0: 0.0, 1: 1.0, 2: 0.5}

_CELL = ("cell_id", "labels", "label")


def find_labels(folders: Sequence[Path], name: str) -> list[Path]:
    """Find the CSV files with the columns ``fov``, ``cell_id``, ``channel``, ``activity`` in the first folder with any.

    Raises
    ------
    ValueError
        There are none.
    """
    for folder in folders:
        if tables := [path for path in sorted(folder.glob("*.csv")) if _is_label_table(path)]:
            return tables
    raise ValueError(
        f"No table of labels for {name!r}: no CSV file with the columns fov, cell_id, channel, activity in "
        f"{', '.join(map(str, folders))}."
    )


def read_labels(path: Path, name: str | None, codes: Mapping[int, float]) -> pd.DataFrame:
    """Read a table of labels.

    Parameters
    ----------
    path
        The CSV file.
    name
        The data set; rows of others are left out where there is a column ``dataset``. None takes all.
    codes
        Label in [0, 1] of each ``activity``.

    Returns
    -------
    DataFrame
        ``fov``, ``cell_id``, ``channel``, ``label``, one row for each cell and channel that is labelled; without a
        name also ``dataset``, where the file has it.

    Raises
    ------
    ValueError
        The table cannot be read; a code is unknown; a cell is labelled in two ways; there are no labels.
    """
    columns = pd.read_csv(path, nrows=0).columns
    cell = next(column for column in _CELL if column in columns)
    text = [column for column in ("dataset", "fov", "channel") if column in columns]
    try:
        table = pd.read_csv(
            path,
            usecols=[*text, cell, "activity"],
            dtype={**dict.fromkeys(text, "category"), cell: float, "activity": float},
            keep_default_na=False,
            na_values={"activity": ["", "NA", "nan", "NaN"]},
        ).rename(columns={cell: "cell_id"})
    except ValueError as error:
        raise ValueError(f"{path} is not a table of labels: {error}.") from error
    table = table.assign(**{column: with_formulas(table[column]) for column in text})
    if "dataset" in text and name is not None:
        table = table[table["dataset"] == name].drop(columns="dataset")
    table = table[table["activity"].notna()]
    if table.empty:
        raise ValueError(f"{path} has no labels{f' for {name!r}' if name else ''}.")
    if unknown := sorted(set(table["activity"].unique().tolist()) - set(codes)):
        raise ValueError(f"{path} has the activity codes {unknown}; known are {sorted(codes)}.")
    if (table["cell_id"] % 1 != 0).any():
        raise ValueError(f"{path} has values of {cell} that are not whole numbers.")
    table["label"] = table.pop("activity").map(dict(codes)).astype(np.float32)
    table = table.astype({"cell_id": np.int64}).drop_duplicates()
    twice = table[table.duplicated([column for column in table if column != "label"])]
    if len(twice):
        one = twice.iloc[0]
        raise ValueError(
            f"{path} labels {len(twice)} cells in two ways, such as cell {one.cell_id} of {one.fov!r} for "
            f"{one.channel!r}."
        )
    return table


def _is_label_table(path: Path) -> bool:
    try:
        return has_label_columns(pd.read_csv(path, nrows=0).columns)
    except (ValueError, OSError):
        # What pandas raises for what is no table is a ValueError.
        return False


def has_label_columns(columns: Iterable[str]) -> bool:
    """Say whether these are the columns of a table of labels."""
    columns = set(columns)
    return {"fov", "channel", "activity"} <= columns and bool(columns & set(_CELL))
