"""Objects that QuPath exported, read from GeoJSON, also from what is compressed."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from gzip import BadGzipFile
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote
from zipfile import BadZipFile, ZipFile

from nimbus_sd._text import listed
from nimbus_sd.labels.layers import STATES

#: How names of files end.
ENDING: Final = ".geojson"
# Of an unpacked file: what is larger would not fit into memory.
_MOST_BYTES = 2**32


def unpacked(path: Path) -> Iterator[bytes]:
    """Read a file, or those in a ``.zip`` or ``.gz``, into memory."""
    try:
        with path.open("rb") as file, ExitStack() as stack:
            start = file.read(2)
            file.seek(0)
            streams: list[Any] = [file]
            if start == b"\x1f\x8b":
                streams = [gzip.GzipFile(fileobj=file)]
            elif start == b"PK":
                archive = stack.enter_context(ZipFile(file))
                names = [name for name in archive.namelist() if name.endswith((ENDING, ".json"))]
                # What a Mac adds has this in front.
                streams = [archive.open(name) for name in names if not name.startswith("__MACOSX")]
            for stream in streams:
                content = stream.read(_MOST_BYTES + 1)
                if len(content) > _MOST_BYTES:
                    raise ValueError(f"{path} holds more than {_MOST_BYTES >> 30} GiB; export fewer cells at once.")
                yield content
    except (BadZipFile, BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}. Export it again.") from error


def read_features(path: Path, content: bytes, *, types: bool, numbers: bool) -> list[tuple[str, str, str, Any]]:
    """Read region, cell, channel and label of each object, NaN for those without a class; or its type, None without."""
    try:
        content = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no GeoJSON file: {error}.") from error
    objects = content.get("features") if isinstance(content, Mapping) else content
    if not isinstance(objects, list) or not all(isinstance(feature, Mapping) for feature in objects):
        raise ValueError(f"{path} holds no list of objects; export them from QuPath as a FeatureCollection.")
    rows: list[tuple[str, str, str, Any]] = []
    nameless, classes = [], set()
    for number, feature in enumerate(objects, 1):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        # Names of regions and ids have no blank.
        place, name = str(properties.get("name", "")).split(" ", 2), _class(properties.get("classification"))
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


def _class(classification: object) -> str:
    """Read a class as any version of QuPath writes it; empty for none."""
    if isinstance(classification, Mapping):
        names = classification.get("names") or classification.get("name")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else names
    return as_in_qupath(str(classification or ""))


def as_in_qupath(name: str) -> str:
    """Write a class with the blanks that QuPath leaves in it, and puts behind colons."""
    return " ".join(name.replace(":", ": ").split())
