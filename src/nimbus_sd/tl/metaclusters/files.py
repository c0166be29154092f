"""Metaclusters on disk: JSON with every step, CSV with the mapping alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd

from nimbus_sd._disk import replacing
from nimbus_sd._text import columns_of, with_formulas, without_formulas
from nimbus_sd.tl.metaclusters.edit import EDITS, redo
from nimbus_sd.tl.metaclusters.value import Metaclusters, Step, start

_FORMAT = "nimbus_sd.metaclusters"
_VERSION = 1
_COLUMNS = ["cluster", "metacluster", "color"]


def to_frame(value: Metaclusters) -> pd.DataFrame:
    """List the clusters.

    Returns
    -------
    DataFrame
        One row for each cluster: ``cluster``, ``metacluster``, ``color`` (of the metacluster, ``#rrggbb``).
    """
    rows = [(cluster, name, value.colors[name]) for cluster, name in value.mapping.items()]
    return pd.DataFrame(rows, columns=_COLUMNS)


def to_json(value: Metaclusters) -> str:
    """Write metaclusters and the steps that led to them as JSON, readable and the same each time."""
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "start": dict(value.initial),
        "colors": dict(value.initial_colors),
        **({"cells": dict(value.cells)} if value.cells else {}),
        "steps": [{"do": step.do, **dict(step.given)} for step in value.steps],
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


def from_json(text: str) -> Metaclusters:
    """Read what `to_json` wrote, doing every step again.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is not such a text, or a step cannot be done; the message says which.
    """
    try:
        content = json.loads(text, object_pairs_hook=_each_once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"This is not JSON: {error}.") from error
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise ValueError(f'This JSON is not of metaclusters: it must have "format": "{_FORMAT}", as `save` writes it.')
    if content.get("version") != _VERSION:
        raise ValueError(
            f"These metaclusters are of version {content.get('version')!r}; this nimbus-sd reads version {_VERSION}."
        )
    # Earlier files, and metaclusters that were not made from a table, have no numbers of cells.
    cells = content.get("cells", {})
    parts = content.get("start"), content.get("colors"), content.get("steps")
    if not (isinstance(parts[0], Mapping) and isinstance(parts[1], Mapping) and isinstance(parts[2], list)):
        raise ValueError("These metaclusters are not complete; they must have 'start', 'colors' and 'steps'.")
    if not (isinstance(cells, Mapping) and all(type(number) is int and number >= 0 for number in cells.values())):
        raise ValueError(f"The 'cells' of these metaclusters are {cells!r}; they must be a number for each cluster.")
    begun = start(parts[0], parts[1])
    # The order of colours is that of the metaclusters, which the order of clusters need not be.
    ordered = {name: dict(begun.initial_colors)[name] for name in [*parts[1], *dict(begun.initial_colors)]}
    steps = [_step(number, entry) for number, entry in enumerate(parts[2], 1)]
    return redo(steps, Metaclusters(begun.initial, tuple(ordered.items()), tuple(cells.items())))


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object of JSON that names a value twice, as the last would be taken silently."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"This JSON gives {twice} more than once; leave one of each.")
    return content


def save(value: Metaclusters, path: str | Path) -> None:
    """Write metaclusters to a file: ``.json`` with all steps, ``.csv`` the mapping as :func:`to_frame` lists it.

    Parameters
    ----------
    value
        The metaclusters.
    path
        The file, which is replaced if it exists.

    Raises
    ------
    ValueError
        If it ends in neither.
    """
    path = _known(path)
    if path.suffix == ".json":
        text = to_json(value)
    else:
        text = without_formulas(to_frame(value)).to_csv(index=False, lineterminator="\n")
    with replacing(path) as (file,):
        file.write_bytes(text.encode())


def load(path: str | Path) -> Metaclusters:
    """Read metaclusters from a file.

    Parameters
    ----------
    path
        What :func:`save` wrote, or a CSV file with the columns ``cluster``, ``metacluster`` and, if wanted, ``color``.

    Returns
    -------
    Metaclusters
        From JSON with all steps; from CSV without any, as a start.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError, TypeError, ValueError
        If it is not of metaclusters, or a step cannot be done; the message says which.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> mc = ns.tl.metaclusters
    >>> mc.save(mc.start(["0", "1"]), "metaclusters.json")  # doctest: +SKIP
    >>> mc.load("metaclusters.json").names  # doctest: +SKIP
    ('0', '1')
    """
    path = _known(path)
    # Spreadsheets put a byte order mark in front.
    return from_json(path.read_bytes().decode("utf-8-sig")) if path.suffix == ".json" else _from_csv(path)


def _from_csv(path: Path) -> Metaclusters:
    columns_of(path)
    table = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False).apply(with_formulas)
    if lacking := [name for name in _COLUMNS[:2] if name not in table.columns]:
        raise ValueError(f"{path} has no column {lacking}; it has {list(table.columns)}, and must have {_COLUMNS[:2]}.")
    if table["cluster"].duplicated().any():
        raise ValueError(f"{path} has clusters twice: {sorted(set(table['cluster'][table['cluster'].duplicated()]))}.")
    colored = table[table["color"] != ""] if "color" in table.columns else table.iloc[:0].assign(color="")
    pairs = colored[["metacluster", "color"]].drop_duplicates()
    if twice := sorted(set(pairs["metacluster"][pairs["metacluster"].duplicated()])):
        raise ValueError(f"{path} gives the metacluster(s) {twice} several colors; each must have one.")
    mapping = dict(zip(table["cluster"], table["metacluster"], strict=True))
    return start(mapping, dict(zip(pairs["metacluster"], pairs["color"], strict=True)))


def _step(number: int, entry: Any) -> Step:
    do = str(entry.get("do")) if isinstance(entry, Mapping) else ""
    if do not in EDITS:
        raise ValueError(f'Step {number} is {entry!r}; it must have a "do" that is one of {list(EDITS)}.')
    # All that an editing function is given beside the value; names in the plural are lists.
    wanted = [name for name in signature(EDITS[do][0]).parameters if name != "value"]
    given = {name: entry.get(name) for name in wanted}
    fits = set(entry) == {"do", *wanted}
    for name, one in given.items():
        texts = one if isinstance(one, list) else [one]
        fits = fits and isinstance(one, list) == name.endswith("s") and all(isinstance(text, str) for text in texts)
    if not fits:
        described = ", ".join(f"{name!r} ({'a list of texts' if name.endswith('s') else 'a text'})" for name in wanted)
        raise ValueError(f"Step {number} is {entry!r}; besides 'do', it must have {described} and nothing else.")
    return Step(do, tuple((name, tuple(one) if isinstance(one, list) else one) for name, one in given.items()))


def _known(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"`path` is {str(path)!r}; it must end in '.json' (with all steps) or '.csv' (the mapping).")
    return path
