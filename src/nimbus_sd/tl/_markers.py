"""Names of markers: synonyms, and which channel of a table is meant."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files


def match_markers(markers: Iterable[str], channels: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Find the channel of each marker, by its name or else a synonym; return those, and the markers without one."""
    synonyms = [(channel, canonical(channel)) for channel in channels]
    candidates = {
        marker: [channel for channel in channels if channel == marker]
        or [channel for channel, synonym in synonyms if synonym == canonical(marker)]
        for marker in markers
    }
    problems = [
        f"{marker!r} could be any of the channels {names}" for marker, names in candidates.items() if len(names) > 1
    ]
    channel_of = {marker: names[0] for marker, names in candidates.items() if len(names) == 1}
    for channel in dict.fromkeys(channel_of.values()):
        if len(same := [marker for marker, name in channel_of.items() if name == channel]) > 1:
            problems.append(f"the markers {same} are all the channel {channel!r}")
    if problems:
        raise ValueError(f"Markers and channels do not match one to one: {'; '.join(problems)}. Rename or drop some.")
    return channel_of, [marker for marker, names in candidates.items() if not names]


def canonical(name: str) -> str:
    """Return the same name for all synonyms of a marker (in its simplified form)."""
    return _synonyms().get(simplified(name), simplified(name))


def nearest(name: str, channels: Sequence[str], similarity: float = 0.6) -> list[str]:
    """Channels with similar names, the most similar first; ``similarity`` is difflib's ratio, 1 for the same."""
    by_name = {simplified(channel): channel for channel in channels}
    return [by_name[near] for near in get_close_matches(simplified(name), list(by_name), n=3, cutoff=similarity)]


def simplified(name: str) -> str:
    """Write a marker without case, blanks and punctuation: ``"HLA-DR"`` and ``"hla dr"`` are the same."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or folded


@cache
def _synonyms() -> dict[str, str]:
    text = files("nimbus_sd.tl").joinpath("data/synonyms.csv").read_text(encoding="utf-8")
    return {
        simplified(name): simplified(row["marker"])
        for row in csv.DictReader(text.splitlines())
        for name in (row["marker"], *filter(None, row["synonyms"].split(";")))
    }
