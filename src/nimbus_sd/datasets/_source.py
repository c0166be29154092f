"""Where data sets are: downloaded from the hub and unpacked, or placed by hand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimbus_sd import _hub
from nimbus_sd.datasets._download import fetch
from nimbus_sd.datasets._labelled import find_datasets, read_labelled
from nimbus_sd.datasets._unpack import unpack

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData

_ARCHIVE = re.compile(r"(?:.*/)?([^/]+)\.zip(?:\.(\d+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Unpacked data: where they are, where else tables may be, and where they are from."""

    root: Path
    beside: tuple[Path, ...]
    attrs: Mapping[str, Any]

    def datasets(self) -> dict[str, Path]:
        """Find the data sets: their folders by name."""
        if found := find_datasets(self.root):
            return found
        raise ValueError(f"{self.root} holds no data set: no folder with a folder of images (fovs) and one of masks.")

    def folders_of(self, dataset: Path) -> list[Path]:
        """List where the labels of a data set may be: its folder, those above it, and beside the archive."""
        above = [path for path in dataset.parents if path == self.root or self.root in path.parents]
        return list(dict.fromkeys([dataset, *above, *self.beside]))

    def read(
        self, dataset: Path, layers: Mapping[str, pd.DataFrame], *, pixel_size: float | None, progress: bool
    ) -> SpatialData:
        """Read a data set, see `read_labelled`."""
        return read_labelled(dataset, layers, pixel_size=pixel_size, attrs=self.attrs, progress=progress)


def find_source(
    repository: str,
    choose: Callable[[Sequence[str]], list[str]],
    folder: str | Path | None,
    *,
    update: bool,
    progress: bool,
) -> Source:
    """Find, download and unpack what is needed.

    Parameters
    ----------
    repository
        Data set repository on the hub.
    choose
        Picks the files to download from the names of all.
    folder, update, progress
        As in `pan_m_gold_standard`.
    """
    unpacked = _hub.assets("datasets", repository.replace("/", "--"))
    if folder is not None:
        return _local(Path(folder).expanduser().resolve(), unpacked, progress)
    address = f"{_hub.endpoint()}/datasets/{repository}"
    advice = f"With a connection, download the zip archive from {address} and pass folder='/path/to/it.zip' (--folder)."
    download = fetch(repository, choose, advice, update=update, progress=progress)
    root = unpacked / _digest(download.commit, *sorted(download.files))
    for archive, parts in archives(download.files).items():
        unpack([download.files[part] for part in parts], root / archive, progress=progress)
    beside = sorted({path.parent for name, path in download.files.items() if name.endswith(".csv")})
    attrs = {"source": address, "commit": download.commit, "license": "CC-BY-SA-4.0"}
    return Source(root, tuple(beside), attrs)


def _local(path: Path, unpacked: Path, progress: bool) -> Source:
    """Take a folder, or unpack an archive, that was placed by hand."""
    if path.is_dir():
        return Source(path, (), {"source": str(path)})
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.")
    match = _ARCHIVE.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is neither a folder nor a zip archive (.zip, or the first of its parts, .zip.001).")
    files = [path]
    if match[2]:
        siblings = (one.name for one in path.parent.iterdir() if _ARCHIVE.fullmatch(one.name) and one != path)
        parts = [name for name in (path.name, *siblings) if name[: -len(match[2])] == path.name[: -len(match[2])]]
        files = [path.with_name(part) for part in archives(parts)[match[1]]]
    root = unpacked / _digest(*(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files))
    unpack(files, root / match[1], progress=progress)
    return Source(root, (path.parent,), {"source": str(path)})


def all_archives(names: Sequence[str], repository: str) -> list[str]:
    """Choose all archives, and tables beside them."""
    found = archives(names)
    if not found:
        raise ValueError(f"{repository} holds no zip archive, but {', '.join(names[:20]) or 'nothing'}.")
    return [part for parts in found.values() for part in parts] + [name for name in names if name.endswith(".csv")]


def archive_of(names: Sequence[str], name: str, repository: str) -> list[str]:
    """Choose the archive of one data set."""
    found = archives(names)
    if name not in found:
        raise KeyError(f"{repository} holds no data set {name!r}, but {', '.join(sorted(found) or names[:20])}.")
    return found[name]


def archives(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the archives among files by name: a zip, or its parts ``<name>.zip.001``, ... in order."""
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if match := _ARCHIVE.fullmatch(name):
            found.setdefault(match[1], {})[int(match[2] or 0)] = name
    for archive, parts in found.items():
        if sorted(parts) != [0] and sorted(parts) != list(range(1, len(parts) + 1)):
            raise ValueError(f"Of the archive {archive}.zip, parts are missing or too many: {sorted(parts.values())}.")
    return {archive: [parts[number] for number in sorted(parts)] for archive, parts in found.items()}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
