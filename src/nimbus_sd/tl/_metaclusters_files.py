"""What metaclusters are read from and made of: steps, JSON, CSV, colours."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from nimbus_sd._text import columns_of, with_formulas

HEADER = {"format": "nimbus_sd.metaclusters", "version": 1}
# What can be done, with the names of what is given; those in the plural are lists.
_STEPS = {
    "merge": "merge {metaclusters} into {into}",
    "split": "split {clusters} from {metacluster} as {into}",
    "rename": "rename {metacluster} to {name}",
    "recolor": "color {metacluster} {color}",
}
# Okabe and Ito's colours for all kinds of colour vision, then Tol's muted ones, without black and near-doubles.
_PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
    "#332288", "#88ccee", "#117733", "#999933", "#ddcc77", "#882255", "#aa4499",
)  # fmt: skip
_GOLDEN = 0.618034


class Step(NamedTuple):
    """One edit: the name of the method, and the arguments it was given."""

    do: str
    given: tuple[tuple[str, str | tuple[str, ...]], ...]

    def __str__(self) -> str:
        given = {
            name: ", ".join(map(repr, value)) if isinstance(value, tuple) else value if name == "color" else repr(value)
            for name, value in self.given
        }
        return _STEPS[self.do].format(**given)


def parse_json(text: str) -> tuple[dict[str, str], dict[str, str], dict[str, int], list[Step]]:
    """Return the start, its colours, the numbers of cells and the steps; a ValueError says what is wrong."""
    try:
        content = json.loads(text, object_pairs_hook=_unique_keys)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"This is not JSON: {error}.") from error
    header = {key: content.get(key) for key in HEADER} if isinstance(content, dict) else content
    if header != HEADER:
        raise ValueError(f"This JSON is not of metaclusters: it must begin with {HEADER}, but has {header!r:.80}.")
    start, colors, steps = content.get("start"), content.get("colors"), content.get("steps")
    if not (isinstance(start, dict) and isinstance(colors, dict) and isinstance(steps, list)):
        raise ValueError("These metaclusters are not complete; they must have 'start', 'colors' and 'steps'.")
    # Only metaclusters that were made from a table have numbers of cells.
    cells = content.get("cells", {})
    if not (isinstance(cells, dict) and all(type(number) is int and number >= 0 for number in cells.values())):
        raise ValueError(f"The 'cells' of these metaclusters are {cells!r}; they must be a number for each cluster.")
    return start, colors, cells, [_parse_step(number, entry) for number, entry in enumerate(steps, 1)]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object of JSON that names a value twice, as the last would be taken silently."""
    if twice := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
        raise ValueError(f"This JSON gives {twice} more than once; leave one of each.")
    return dict(pairs)


def _parse_step(number: int, entry: Any) -> Step:
    do = str(entry.get("do")) if isinstance(entry, Mapping) else ""
    if do not in _STEPS:
        raise ValueError(f'Step {number} is {entry!r}; it must have a "do" that is one of {list(_STEPS)}.')
    kinds = {name: list if name.endswith("s") else str for name in re.findall(r"{(\w+)}", _STEPS[do])}
    fits = set(entry) == {"do", *kinds} and all(isinstance(entry[name], kind) for name, kind in kinds.items())
    if not (fits and all(isinstance(text, str) for name in kinds for text in entry[name])):
        described = ", ".join(
            f"{name!r} (a {'text' if kind is str else 'list of texts'})" for name, kind in kinds.items()
        )
        raise ValueError(f"Step {number} is {entry!r}; besides 'do', it must have {described} and nothing else.")
    return Step(do, tuple((name, tuple(entry[name]) if kind is list else entry[name]) for name, kind in kinds.items()))


def parse_csv(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the mapping and the colours of metaclusters in a file of columns."""
    columns_of(path)
    table = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False).apply(with_formulas)
    if not {"cluster", "metacluster"} <= set(table.columns):
        raise ValueError(f"{path} has no column 'cluster' or 'metacluster'; it has {list(table.columns)}.")
    if twice := sorted(set(table["cluster"][table["cluster"].duplicated()])):
        raise ValueError(f"{path} has clusters twice: {twice}.")
    colors = table.reindex(columns=["metacluster", "color"], fill_value="").query("color != ''").drop_duplicates()
    if twice := sorted(set(colors["metacluster"][colors["metacluster"].duplicated()])):
        raise ValueError(f"{path} gives the metacluster(s) {twice} several colors; each must have one.")
    return dict(table[["cluster", "metacluster"]].to_numpy()), dict(colors.to_numpy())


def as_path(path: str | Path) -> Path:
    """Check the ending of a file's name."""
    path = Path(path)
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"`path` is {str(path)!r}; it must end in '.json' (with all steps) or '.csv' (the mapping).")
    return path


def hex_color(color: str) -> str:
    """Write a colour, in any way that matplotlib knows, as ``#rrggbb``."""
    from matplotlib.colors import is_color_like, to_hex

    if not is_color_like(color):
        raise ValueError(f"`color` is {color!r}, which is no color; pass a name such as 'tab:blue', or '#rrggbb'.")
    return to_hex(color)


def next_color(taken: Iterable[str]) -> str:
    """Return the first colour that is not taken: of a palette, and then around the colour wheel."""
    used = set(taken)
    return next(color for color in map(_color, count()) if color not in used)


@cache
def _color(i: int) -> str:
    from matplotlib.colors import hsv_to_rgb, to_hex

    if i < len(_PALETTE):
        return _PALETTE[i]
    # Steps of the golden ratio never come back to the same hue, and lightness varies beside it.
    return to_hex(tuple(hsv_to_rgb((i * _GOLDEN % 1, (0.9, 0.5, 0.7)[i % 3], (0.8, 0.95, 0.5)[i // 3 % 3]))))
