"""Objects of GeoJSON files as QuPath exports them, plain or compressed."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

#: Endings of such files; compressed ones are recognised by their content.
ENDINGS = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")
# Of an unpacked file: what is larger would not fit into memory.
_MOST_BYTES = 2**32


def read_objects(path: Path) -> list[Mapping[str, Any]]:
    """Read all objects of a file, or of those in a ``.zip`` or ``.gz``; a ValueError if it is no list of objects."""
    objects: list[Mapping[str, Any]] = []
    for content in _unpacked(path):
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no GeoJSON file: {error}.") from error
        features = parsed.get("features") if isinstance(parsed, Mapping) else parsed
        if not isinstance(features, list) or not all(isinstance(feature, Mapping) for feature in features):
            raise ValueError(f"{path} holds no list of objects; export them from QuPath as a FeatureCollection.")
        objects += features
    return objects


def properties_of(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the properties of an object, none where it has no such."""
    properties = feature.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def class_of(feature: Mapping[str, Any]) -> str:
    """Return the class of an object as any version of QuPath writes it, with the blanks that QuPath leaves in it."""
    classification = properties_of(feature).get("classification")
    if isinstance(classification, Mapping):
        names = classification.get("names") or classification.get("name")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else names
    return as_in_qupath(str(classification or ""))


def as_in_qupath(name: str) -> str:
    """Write a class with the blanks that QuPath leaves in it, and puts behind colons."""
    return " ".join(name.replace(":", ": ").split())


def _unpacked(path: Path) -> Iterator[bytes]:
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
                names = [name for name in archive.namelist() if name.lower().endswith(ENDINGS[:2])]
                # What a Mac adds has this in front.
                streams = [archive.open(name) for name in names if not name.startswith("__MACOSX")]
            for stream in streams:
                content = stream.read(_MOST_BYTES + 1)
                if len(content) > _MOST_BYTES:
                    raise ValueError(f"{path} holds more than {_MOST_BYTES >> 30} GiB; export fewer cells at once.")
                yield content
    except (BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}. Export it again.") from error
