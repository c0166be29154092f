"""Metaclusters by hand: merge, split, rename and colour clusters, step by step, on a value that never changes.

Each function takes :class:`Metaclusters` and returns a new one that remembers the step, so that decisions can be
undone, saved (JSON), reviewed (:func:`history`) and replayed on another clustering. A name is any text that can be
written to disk, without line breaks and blanks at its ends.

Examples
--------
>>> import nimbus_sd as ns
>>> mc = ns.tl.metaclusters
>>> value = mc.merge(mc.start(["0", "1", "2", "3"]), ["0", "2"], into="T cell")
>>> value = mc.rename(value, "3", "B cell")
>>> dict(value.mapping)
{'0': 'T cell', '1': '1', '2': 'T cell', '3': 'B cell'}
>>> mc.undo(value).names
('T cell', '1', '3')
"""

from nimbus_sd.tl.metaclusters.edit import history, merge, recolor, rename, replay, split, undo
from nimbus_sd.tl.metaclusters.files import from_json, load, save, to_frame, to_json
from nimbus_sd.tl.metaclusters.table import apply, from_table
from nimbus_sd.tl.metaclusters.value import Metaclusters, start

__all__ = [
    "Metaclusters",
    "apply",
    "from_json",
    "from_table",
    "history",
    "load",
    "merge",
    "recolor",
    "rename",
    "replay",
    "save",
    "split",
    "start",
    "to_frame",
    "to_json",
    "undo",
]
