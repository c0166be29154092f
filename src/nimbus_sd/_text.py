"""Names from outside, on their way to a terminal or a spreadsheet: text that cannot do anything there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = r"'*[=+\-@\t\r\n＝＋－＠]"  # noqa: RUF001


def plain(text: str) -> str:
    r"""Write what moves a terminal's cursor, colours or hides text as escapes such as ``\x1b``; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Put ``'`` before each text, name of a row and name of a column that a spreadsheet would compute.

    Numbers stay as they are, also as text. :func:`with_formulas` gets the texts back.
    """
    table = table.rename(index=_guarded, columns=_guarded)
    for i, dtype in enumerate(table.dtypes):
        if dtype.kind not in "biufc":
            table.isetitem(i, table.iloc[:, i].map(_guarded))
    return table


def with_formulas(texts: pd.Series) -> pd.Series:
    """Take away what :func:`without_formulas` has put before texts."""
    return texts.map(lambda text: re.sub(f"^'(?={_FORMULA})", "", text))


def _guarded(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and re.match(_FORMULA, value) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text.isprintable()
