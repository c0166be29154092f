"""CSV files that people edit: rows of other lengths would move or lose values without a word."""

from __future__ import annotations

import csv
from pathlib import Path


def columns_of(path: Path) -> list[str]:
    """Return the names of the columns of a CSV file all of whose rows have as many values.

    Raises
    ------
    ValueError
        It is no such file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            columns = next((row for row in rows if row), [])
            # pandas would move or drop the values of longer rows, and fill up shorter ones.
            uneven = next((rows.line_num for row in rows if row and len(row) != len(columns)), None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8, separated by commas: {error}. Save it as such.") from error
    if uneven:
        raise ValueError(
            f"{path} has {len(columns)} columns, but line {uneven} has more or fewer values; mend it, and put values "
            "that hold a comma into quotes."
        )
    if not columns:
        raise ValueError(f"{path} is empty; its first line must name the columns.")
    return columns
