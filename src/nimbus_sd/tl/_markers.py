"""One marker, many names: which channel of a table is meant."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files


def plain(name: str) -> str:
    """Write a marker without case, blanks, hyphens and other punctuation: ``"HLA-DR"`` and ``"hla dr"`` are one."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or folded


def canonical(name: str) -> str:
    """Give all synonyms of a marker the same name (in its plain form)."""
    return _synonyms().get(plain(name), plain(name))


def match_markers(markers: Iterable[str], channels: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Find the channel of each marker: the one of exactly that name, else the one that is a synonym of it.

    Parameters
    ----------
    markers
        Names in a signature table.
    channels
        Names in a table of cells.

    Returns
    -------
    Channel of each marker found, and the markers that no channel is of.

    Raises
    ------
    ValueError
        If several channels could be meant by a marker, or several markers mean one channel; all of them are listed.
    """
    channels = [str(channel) for channel in channels]
    by_name: dict[str, list[str]] = {}
    for channel in channels:
        by_name.setdefault(canonical(channel), []).append(channel)
    found: dict[str, str] = {}
    missing, problems = [], []
    for marker in markers:
        exact = [channel for channel in channels if channel == marker]
        candidates = exact or by_name.get(canonical(marker), [])
        if len(candidates) > 1:
            problems.append(f"{marker!r} could be any of the channels {candidates}")
        elif candidates:
            found[marker] = candidates[0]
        else:
            missing.append(marker)
    for channel in dict.fromkeys(found.values()):
        if len(same := [marker for marker, one in found.items() if one == channel]) > 1:
            problems.append(f"the markers {same} are all the channel {channel!r}")
    if problems:
        raise ValueError(f"Markers and channels do not match one to one: {'; '.join(problems)}. Rename or drop some.")
    return found, missing


def nearest(name: str, channels: Sequence[str], alike: float = 0.6) -> list[str]:
    """Channels whose names look like this one, most alike first; ``alike`` is difflib's ratio, 1 for the same."""
    by_name = {plain(channel): channel for channel in channels}
    return [by_name[one] for one in get_close_matches(plain(name), list(by_name), n=3, cutoff=alike)]


@cache
def _synonyms() -> dict[str, str]:
    text = files("nimbus_sd.tl").joinpath("data/synonyms.csv").read_text(encoding="utf-8")
    return {
        plain(name): plain(row["marker"])
        for row in csv.DictReader(text.splitlines())
        for name in (row["marker"], *filter(None, row["synonyms"].split(";")))
    }
