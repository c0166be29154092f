"""Archives of data sets: downloaded from the hub or placed by hand, checked, and unpacked beside the hub's cache."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars  # type: ignore
from tqdm.auto import tqdm

from nimbus_sd import _hub
from nimbus_sd._text import listed, plain

logger = logging.getLogger("nimbus_sd")

_ARCHIVE = re.compile(r"(?:.*/)?([^/]+)\.zip(?:\.(\d+))?", re.IGNORECASE)
# What macOS adds to archives.
_OF_MACOS = re.compile(r"__MACOSX(/|$)|(.*/)?(\._[^/]*|\.DS_Store)$", re.DOTALL)
#: An archive may hold this many times its own size, and always `FREE_SIZE` bytes.
MAX_RATIO, FREE_SIZE = 100, 2**30
MAX_ENTRIES = 1_000_000
#: Bytes of a name, as file systems allow them, and of a path, which must fit below the folder's own.
MAX_NAME, MAX_PATH = 255, 1000


class Source(NamedTuple):
    """Unpacked data: where they are, where else their tables may be, and where they are from."""

    root: Path
    beside: list[Path]
    attrs: dict[str, Any]


def fetch(repository: str, name: str | None, *, update: bool, progress: bool) -> Source:
    """Download and unpack the archive of a data set, or (``name`` is None) all of them and the tables beside them.

    The latest commit and its files are looked up once, or with ``update``, and written down beside the hub's cache.
    Later calls use that commit, and need no connection for what is downloaded already.
    """
    address = f"{_hub.endpoint()}/datasets/{repository}"
    advice = f"With a connection, download the zip archive from {address} and pass folder='/path/to/it.zip' (--folder)."
    unpacked = _hub.assets("datasets", repository.replace("/", "--"))
    record = unpacked / "version.json"
    recorded = None if update else _hub.read_record(record, commit=str, files=dict)
    version = recorded or _look_up(repository, advice, update=update)
    commit, sha256 = version["commit"], version["files"]
    parts, tables = archives(sha256), [file for file in sha256 if file.endswith(".csv")]
    if not parts:
        raise ValueError(f"{repository} holds no zip archive, but {listed(sha256) or 'nothing'}.")
    if name is not None:
        if name not in parts:
            raise KeyError(f"{repository} holds no data set {name!r}, but {', '.join(sorted(parts))}.")
        parts, tables = {name: parts[name]}, []
    names = [*(part for each in parts.values() for part in each), *tables]
    with _hub.reaching(f"The data set {repository}", advice), ExitStack() as stack:
        if not progress and not are_progress_bars_disabled():
            disable_progress_bars()
            stack.callback(enable_progress_bars)
        where = {"repo_type": "dataset", "revision": commit, "endpoint": _hub.endpoint()}
        files = {file: Path(hf_hub_download(repository, file, **where)) for file in names}
    root = unpacked / _digest(commit, *sorted(names))
    for archive, of_archive in parts.items():
        if not (root / archive).is_dir():
            for part in of_archive:
                _hub.check_sha256(files[part], sha256[part])
            unpack([files[part] for part in of_archive], root / archive, progress=progress)
    for table in tables:
        _hub.check_sha256(files[table], sha256[table])
    if version != recorded:
        _hub.write_record(record, version)
    attrs = {"source": address, "commit": commit, "license": "CC-BY-SA-4.0"}
    return Source(root, sorted({files[table].parent for table in tables}), attrs)


def open_local(path: Path, repository: str, *, progress: bool) -> Source:
    """Take a folder, or unpack an archive, that was placed by hand."""
    if path.is_dir():
        return Source(path, [], {"source": str(path)})
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.")
    if not (match := _ARCHIVE.fullmatch(path.name)):
        raise ValueError(f"{path} is neither a folder nor a zip archive (.zip, or the first of its parts, .zip.001).")
    files = [path]
    if match[2]:
        stem = path.name.removesuffix(match[2])
        parts = [file.name for file in path.parent.iterdir() if re.fullmatch(re.escape(stem) + r"\d+", file.name)]
        files = [path.with_name(part) for part in archives(parts)[match[1]]]
    digest = _digest(*(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files))
    root = _hub.assets("datasets", repository.replace("/", "--")) / digest
    unpack(files, root / match[1], progress=progress)
    return Source(root, [path.parent], {"source": str(path)})


def archives(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the archives among files by name: a zip, or its parts ``<name>.zip.001``, ... in order."""
    parts: dict[str, dict[int, str]] = {}
    for name in names:
        if match := _ARCHIVE.fullmatch(name):
            parts.setdefault(match[1], {})[int(match[2] or 0)] = name
    for archive, numbered in parts.items():
        if sorted(numbered) not in ([0], list(range(1, len(numbered) + 1))):
            raise ValueError(f"Of the archive {archive}.zip, parts are missing: there is {sorted(numbered.values())}.")
    return {archive: [numbered[i] for i in sorted(numbered)] for archive, numbered in parts.items()}


def _look_up(repository: str, advice: str, *, update: bool) -> dict[str, Any]:
    """Ask the hub for the latest commit, its files and their SHA-256; without it, take what is in its cache."""
    try:
        with _hub.reaching(f"The data set {repository}", advice):
            info = HfApi(endpoint=_hub.endpoint()).dataset_info(repository, files_metadata=True, timeout=30)
        files = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()}
        return {"commit": str(info.sha), "files": files}
    except ConnectionError as error:
        if update:
            raise
        try:
            folder = Path(snapshot_download(repository, repo_type="dataset", local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
    logger.warning("The hub cannot be reached: %s of its cache may not be the latest.", repository)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return {"commit": folder.name, "files": dict.fromkeys(names)}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def unpack(parts: Sequence[Path], folder: Path, *, progress: bool = True) -> None:
    """Unpack a zip archive, or the parts it was cut into, into a folder, unless that is there already.

    Whenever this is stopped, the folder is complete or not there. A damaged or hostile archive is a ValueError.
    """
    if folder.is_dir():
        return
    name = parts[0].name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with io.BufferedReader(_Joined(parts), 1 << 20) as file, zipfile.ZipFile(file) as archive:
            entries = _checked(archive, name, sum(part.stat().st_size for part in parts))
            total = sum(entry.file_size for entry in entries.values())
            if total > (free := shutil.disk_usage(folder.parent).free):
                raise OSError(f"{name} needs {total:,} bytes in {folder.parent}, of which {free:,} are free.")
            label = plain(f"Unpacking {name}")
            with tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=not progress) as bar:
                _extract(archive, entries, folder, bar)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{name} is damaged, or no zip archive: {error}. Remove {parts[0]} to get it anew.") from error
    except RuntimeError as error:
        # An unknown compression, or encrypted.
        raise ValueError(f"{name} cannot be unpacked: {error}. Unpack it by hand, and pass the folder.") from error


def _checked(archive: zipfile.ZipFile, name: str, size: int) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files by their path in the folder, once all of them are harmless."""
    if len(archive.infolist()) > MAX_ENTRIES:
        raise ValueError(f"{name} holds {len(archive.infolist()):,} files, more than {MAX_ENTRIES:,}; not unpacked.")
    entries: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        # Some programs on Windows write their own separator.
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        problem = None
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(entry.filename).drive:
            problem = "which leads out of the folder"
        elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "a link or device"
        elif not path.parts or entry.is_dir() or _OF_MACOS.match(str(path)):
            # Folders with files in them are made anyway.
            continue
        elif max(len(os.fsencode(part)) for part in path.parts) > MAX_NAME or len(os.fsencode(path)) > MAX_PATH:
            problem = "a name too long"
        elif path in entries:
            problem = "twice"
        if problem:
            raise ValueError(f"{name} holds {entry.filename[:40]!r}, {problem}; nothing was unpacked.")
        entries[path] = entry
    if both := entries.keys() & {folder for path in entries for folder in path.parents}:
        raise ValueError(f"{name} holds {str(min(both))!r} as a file and as a folder; nothing was unpacked.")
    if (total := sum(entry.file_size for entry in entries.values())) > max(MAX_RATIO * size, FREE_SIZE):
        raise ValueError(f"{name} of {size:,} bytes claims to hold {total:,} bytes, too much to be real; not unpacked.")
    return entries


def _extract(archive: zipfile.ZipFile, entries: dict[PurePosixPath, zipfile.ZipInfo], folder: Path, bar: tqdm) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        unfinished = Path(beside) / "content"
        unfinished.mkdir()
        for path, entry in entries.items():
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not more than the size stated is read, and its checksum is compared.
            with archive.open(entry) as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            bar.update(entry.file_size)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process may have been first.
            if not folder.is_dir():
                raise


class _Joined(io.RawIOBase):
    """Files that were cut apart, read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._position = paths, 0
        self._starts = [0, *accumulate(path.stat().st_size for path in paths)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._starts[-1]:
            return 0
        index = bisect_right(self._starts, self._position) - 1
        with self._paths[index].open("rb", buffering=0) as file:
            file.seek(self._position - self._starts[index])
            n_read = file.readinto(buffer) or 0
        self._position += n_read
        return n_read
