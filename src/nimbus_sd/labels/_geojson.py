"""Cells and their states as objects of QuPath, in GeoJSON."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nimbus_sd.labels._states import STATES, WORDS, listed

# Blue to orange, sure ones darker (Okabe and Ito 2008, lightened).
_COLORS = {
    "positive": (213, 94, 0),
    "likely positive": (240, 170, 110),
    "undetermined": (204, 121, 167),
    "likely negative": (130, 185, 220),
    "negative": (0, 114, 178),
}
# QuPath keeps ids of objects if they are of this kind; these tell ours from all others.
_OURS = uuid.UUID("5e3b0c1a-6f0b-5d34-9a57-6c1f0d6a4b1e")


def feature(region: str, cell: int, channel: str, label: float, geometry: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a cell in one channel; its name holds its place, which all versions of QuPath keep.

    Parameters
    ----------
    region, cell, channel
        Where the label belongs; the region's name has no blank.
    label
        One of the five, or NaN: no class.
    geometry
        The outline as GeoJSON, in pixels of the image.
    """
    name = f"{region} {cell} {channel}"
    properties: dict[str, Any] = {"objectType": "detection", "name": name}
    if not np.isnan(label):
        state = WORDS[float(label)]
        properties["classification"] = {"name": state, "color": list(_COLORS[state])}
    return {"type": "Feature", "id": str(uuid.uuid5(_OURS, name)), "geometry": geometry, "properties": properties}


def read_features(path: Path) -> Iterator[tuple[str, int, str, float]]:
    """Yield region, cell, channel and label of each object; NaN for those without a class.

    Raises
    ------
    ValueError
        The file is no GeoJSON, an object has lost its name, or a class is none of the five states.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no GeoJSON file: {error}.") from error
    objects = content.get("features") if isinstance(content, Mapping) else content
    if not isinstance(objects, list) or not all(isinstance(one, Mapping) for one in objects):
        raise ValueError(f"{path} holds no list of objects; export them from QuPath as a FeatureCollection.")
    nameless, classes = [], set()
    for number, one in enumerate(objects, 1):
        properties = one.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        place = str(properties.get("name", "")).split(" ", 2)
        if len(place) < 3 or not place[1].isdecimal():
            nameless.append(number)
            continue
        state = _state(properties.get("classification"))
        if state and state not in STATES:
            classes.add(state)
            continue
        yield place[0], int(place[1]), place[2], STATES[state] if state else float("nan")
    if nameless:
        raise ValueError(
            f"{path} has {len(nameless)} of {len(objects)} objects without a name such as 'fov1_labels 17 CD3', the "
            f"first is number {nameless[0]}. Delete what was drawn beside the cells."
        )
    if classes:
        raise ValueError(f"{path} has the class(es) {listed(sorted(classes))}; a class is one of {list(STATES)}.")


def _state(classification: object) -> str:
    """Read a class as any version of QuPath writes it; empty for none."""
    if isinstance(classification, Mapping):
        names = classification.get("names") or classification.get("name")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else names
    return " ".join(str(classification or "").casefold().split())
