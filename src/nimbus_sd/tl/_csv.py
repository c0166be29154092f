"""CSV files that people edit: rows of other lengths would move or lose values without a word."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path


def check_even(text: str, path: str | Path) -> None:
    """Raise a ValueError if a row of a CSV file has more or fewer values than its first; empty rows are no matter."""
    rows = csv.reader(StringIO(text))
    columns = next((row for row in rows if row), [])
    if uneven := next((rows.line_num for row in rows if row and len(row) != len(columns)), None):
        raise ValueError(
            f"{path} has {len(columns)} columns, but line {uneven} has more or fewer values; it must have as many "
            "commas in each row. Put names that hold a comma into quotes."
        )
