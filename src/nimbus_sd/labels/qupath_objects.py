"""Region, cell and class of the objects that came back from QuPath."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nimbus_sd._geojson import class_of, properties_of, read_objects
from nimbus_sd._text import listed
from nimbus_sd.labels.layers import STATES


def read_features(path: Path, *, types: bool, numbers: bool) -> list[tuple[str, str, str, Any]]:
    """Read region, cell, channel and label of each object, NaN for those without a class; or its type, None without."""
    objects = read_objects(path)
    rows: list[tuple[str, str, str, Any]] = []
    nameless, classes = [], set()
    for number, feature in enumerate(objects, 1):
        # Names of regions and ids have no blank.
        place, name = str(properties_of(feature).get("name", "")).split(" ", 2), class_of(feature)
        state = name.casefold()
        if len(place) != 3 - types or not (place[1].isdecimal() or not numbers):
            nameless.append(number)
        elif types:
            rows.append((place[0], unquote(place[1]), "", name or None))
        elif state and state not in STATES:
            classes.add(state)
        else:
            rows.append((place[0], unquote(place[1]), place[2], STATES.get(state, float("nan"))))
    if nameless:
        example = "'fov1_labels 17'" if types else "'fov1_labels 17 CD3'"
        what = f"{len(nameless)} of {len(objects)} objects without a name such as {example}"
        advice = "Delete what was drawn beside the cells. Types are read with `class_key`, labels without."
        raise ValueError(f"{path} has {what}, the first is number {nameless[0]}. {advice}")
    if classes:
        raise ValueError(f"{path} has the class(es) {listed(sorted(classes))}; a class is one of {list(STATES)}.")
    return rows
