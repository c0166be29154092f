"""Names of channels from CSV files, such as MCMICRO's markers.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

_NAME_COLUMNS = ("marker_name", "marker", "marker name", "channel_name", "channel name", "name", "target", "channel")


def read_names(path: Path, number: int | None = None) -> list[str]:
    """Read the names of channels from a column of names, or the only one; of so many channels, where this is known.

    Rows that MCMICRO's column ``remove`` marks are left out if the image lacks these channels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no CSV file in UTF-8: {error}. Save it as such.") from error
    lines = [line for line in text.splitlines() if line.strip(" ,;\t")]
    separator = max(",;\t", key=lines[0].count) if lines else ","
    table = [[value.strip() for value in row] for row in csv.reader(lines, delimiter=separator)]
    header = [value.lower() for value in table[0]] if table else []
    column = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    if column is None and len(header) != 1:
        raise ValueError(f"{path} has the columns {header}; it needs 'marker_name', or one column of names only.")
    # A heading of another name makes one line too many.
    rows = table if column is None and len(table) - 1 != number else table[1:]
    column = column or 0
    if uneven := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"{path} has {len(header)} columns, but not in the row {uneven[0]}; mend it.")
    rows = _by_number(rows, header)
    if "remove" in header and number != len(rows):
        removed = header.index("remove")
        rows = [row for row in rows if row[removed].lower() not in ("true", "1", "yes")]
    return [row[column] or str(i) for i, row in enumerate(rows)]


def _by_number(rows: list[list[str]], header: Sequence[str]) -> list[list[str]]:
    """Put rows into the order of MCMICRO's column ``channel_number``, where each has another number in it."""
    if "channel_number" not in header:
        return rows
    place = header.index("channel_number")
    numbers = {row[place] for row in rows if row[place].isdecimal()}
    return sorted(rows, key=lambda row: int(row[place])) if len(numbers) == len(rows) else rows
