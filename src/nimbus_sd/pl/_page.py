"""Pieces of a page of HTML that needs no other file."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from nimbus_sd._disk import replacing
from nimbus_sd.pl._style import literal

# The last column of a table is text.
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: 2px 10px; text-align: right; }
thead th { border-bottom: 1px solid #888; vertical-align: bottom; }
th:first-child, tr :last-child { text-align: left; } td:last-child { max-width: 26rem; overflow-wrap: anywhere; }
tbody tr:nth-child(even) { background: #f5f5f5; } .wide { overflow-x: auto; } img { max-width: 100%; }
.row { display: flex; flex-wrap: wrap; align-items: start; gap: 0 1.5rem; } .row figure { max-width: 20rem; }
.row img { max-height: 15rem; }
figure { margin: 1rem 0; } figcaption, .note { color: #555; } figcaption { font-size: 13px; }
"""


def write_page(path: Path, title: str, sections: Sequence[str]) -> Path:
    """Write a page."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    with replacing(path) as (file,):
        file.write_text(f"{head}<style>{_STYLE}</style>" + "\n".join(sections) + "</html>\n", encoding="utf-8")
    return path


def html_table(table: pd.DataFrame) -> str:
    """Return a table, the last column of which is text, as HTML: one number of digits for each column."""
    formatters = {name: _number_format(column) for name, column in table.select_dtypes("number").items()}
    with pd.option_context("display.max_colwidth", None):
        return f'<div class="wide">{table.to_html(border=0, na_rep="", formatters=formatters)}</div>'


def _number_format(column: pd.Series) -> Callable[[float], str]:
    """Write numbers with three digits of the largest, and at least three decimals up to 1; nothing for NaN."""
    largest = column[np.isfinite(column)].abs().max()
    whole = pd.api.types.is_integer_dtype(column.dtype) or not largest > 0
    decimals = 0 if whole else int(np.clip(3 - np.ceil(np.log10(largest)), 0, 9))
    return lambda value: f"{value:,.{decimals}f}" if np.isfinite(value) else ""


def as_text(entry: Mapping[str, Any]) -> pd.DataFrame:
    """Turn nested settings into a table of one column, lists as text."""
    flat = pd.json_normalize(dict(entry), sep=" ")
    return pd.DataFrame({"": {name: _text(value) for name, value in flat.iloc[0].items()}}, dtype=object)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(_text, np.asarray(value, object).ravel()))
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def picture(figure: Any, caption: str) -> str:
    """Return a figure as HTML with a caption of plain text, and close it."""
    data = io.BytesIO()
    literal(figure)
    figure.savefig(data, format="png", dpi=110)
    plt.close(figure)
    source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    return f'<figure><img alt="" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'
