"""Names of channels from CSV files, such as MCMICRO's markers.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

_NAME_COLUMNS = ("marker_name", "marker", "marker name", "channel_name", "channel name", "name", "target", "channel")


def read_names(path: Path, number: int | None = None) -> list[str]:
    """Read the names of channels, of which the image has so many, from a column of names, or the only one."""
    if not path.is_file():
        raise FileNotFoundError(f"`channels` is {str(path)!r}, and there is no such file; names go into a list.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no CSV file in UTF-8: {error}. Save it as such.") from error
    lines = [line for line in text.splitlines() if line.strip(" ,;\t")]
    separator = max(",;\t", key=lines[0].count) if lines else ","
    rows = [[value.strip() for value in row] for row in csv.reader(lines, delimiter=separator)]
    header = [value.lower() for value in rows[0]] if rows else []
    column = next((name for name in _NAME_COLUMNS if name in header), None)
    if column is None and len(header) != 1:
        raise ValueError(f"{path} has the columns {header}; it needs 'marker_name', or one column of names only.")
    if uneven := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"{path} has {len(header)} columns, but not in the row {uneven[0]}; mend it.")
    if column is None:
        # A heading of another name makes one line too many.
        return [name for (name,) in rows[len(rows) - 1 == number :]]
    table = pd.DataFrame(rows[1:], columns=header)
    numbers = pd.to_numeric(table.get("channel_number", pd.Series(dtype=float)), errors="coerce")
    if len(numbers) and numbers.notna().all() and numbers.is_unique:
        table = table.loc[numbers.sort_values().index]
    # Marked channels are gone from the image, or still there.
    if "remove" in table and number != len(table):
        table = table[~table["remove"].str.lower().isin(["true", "1", "yes"])]
    return [name or str(i) for i, name in enumerate(table[column])]
