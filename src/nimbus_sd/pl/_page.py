"""Pieces of a page of HTML that needs no other file."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: 2px 10px; text-align: right; }
th:first-child, td:first-child, td.text { text-align: left; } thead th { border-bottom: 1px solid #888; }
tbody tr:nth-child(even) { background: #f5f5f5; } .wide { overflow-x: auto; } img { max-width: 100%; }
.row { display: flex; flex-wrap: wrap; align-items: start; }
.row img { max-height: 19rem; } td:last-child { max-width: 24rem; }
.note { color: #555; }
"""


def write_page(path: Path, title: str, sections: Sequence[str]) -> Path:
    """Write a page in one go: an interrupted run leaves no half of it."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(f"{head}<style>{_STYLE}</style>" + "\n".join(sections) + "</html>\n", encoding="utf-8")
    unfinished.replace(path)
    return path


def html_table(table: pd.DataFrame) -> str:
    """Return a table as HTML, numbers with three digits."""
    return f'<div class="wide">{table.to_html(border=0, na_rep="", float_format=_number)}</div>'


def _number(value: float) -> str:
    """Write three digits, without powers of ten where they are not needed."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def drawn(draw: Callable[..., Any], table: pd.DataFrame) -> str:
    return picture(draw(table).figure)


def picture(figure: Figure) -> str:
    import matplotlib.pyplot as plt

    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    plt.close(figure)
    return f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"></p>'
