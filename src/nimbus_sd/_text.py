"""Text from outside: CSV files that people edit, and names that go to a terminal, a spreadsheet or a message."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import pandas as pd

_FORMULA = r"'*[=+\-@\t\r\n＝＋－＠]"  # noqa: RUF001


def columns_of(path: Path) -> list[str]:
    """Name the columns of a CSV file; a ValueError if it is none, or if its rows differ in length."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            columns = next((row for row in rows if row), [])
            # pandas would move or drop the values of longer rows, and fill up shorter ones.
            uneven = next((rows.line_num for row in rows if row and len(row) != len(columns)), None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8, separated by commas: {error}. Save it as such.") from error
    if uneven:
        lengths = f"{len(columns)} columns, but line {uneven} has more or fewer values"
        raise ValueError(f"{path} has {lengths}; mend it, and put values that hold a comma into quotes.")
    if not columns:
        raise ValueError(f"{path} is empty; its first line must name the columns.")
    return columns


def read_texts(path: Path | Traversable) -> pd.DataFrame:
    """Read a CSV file whose first column and first line hold names: all as text, and no name made unique."""
    import pandas as pd

    # Without a header, for pandas would give the second of two equal columns another name.
    with path.open("rb") as file:
        rows = pd.read_csv(file, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    index = pd.Index(rows.iloc[1:, 0], name=rows.iloc[0, 0])
    return rows.iloc[1:, 1:].set_axis(rows.iloc[0, 1:].to_list(), axis=1).set_axis(index, axis=0)


def as_text(value: object) -> str:
    """Write an entry of a table without blanks around it; nothing for a missing one."""
    import pandas as pd

    return "" if value is None or value is pd.NA or value != value else str(value).strip()


def as_number(text: str) -> float | None:
    """Return the number that a text is; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def listed(names: Iterable[object], most: int = 8) -> str:
    """Write the first few names, and how many there are if that is not all."""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def plain(text: str) -> str:
    r"""Write what moves a terminal's cursor, colours or hides text as escapes such as ``\x1b``; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Put ``'`` before texts and names that a spreadsheet would compute; :func:`with_formulas` takes it away."""
    table = table.rename(index=_guarded, columns=_guarded)
    for i, dtype in enumerate(table.dtypes):
        if dtype.kind not in "biufc":
            table.isetitem(i, table.iloc[:, i].map(_guarded))
    return table


def with_formulas(texts: pd.Series) -> pd.Series:
    """Take away what :func:`without_formulas` has put before texts."""
    return texts.map(lambda text: re.sub(f"^'(?={_FORMULA})", "", text))


def _guarded(value: object) -> object:
    if not isinstance(value, str) or not re.match(_FORMULA, value):
        return value
    # Numbers stay numbers, also as text.
    return value if as_number(value) is not None and value.isascii() and value.isprintable() else f"'{value}"
