"""Unpacking of archives from elsewhere: nothing outside of the folder, no links, no bombs, all or nothing."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from tqdm.auto import tqdm

from nimbus_sd._text import plain

#: An archive may hold this many times its own size, and always `FREE_SIZE` bytes.
MAX_RATIO, FREE_SIZE = 100, 2**30
MAX_ENTRIES = 1_000_000
#: Bytes of a name, as file systems allow them, and of a path, which must fit below the folder's own.
MAX_NAME, MAX_PATH = 255, 1000


def unpack(parts: Sequence[Path], folder: Path, *, progress: bool = True) -> Path:
    """Unpack a zip archive into a folder, unless that is there already.

    All names and sizes are checked before the first byte is written, into a folder beside that takes its name in the
    end: whenever this is stopped, the folder is complete or not there.

    Parameters
    ----------
    parts
        The archive, or the parts it was cut into, in order.
    folder
        Where to. Folders above it are made.
    progress
        Show a progress bar.

    Returns
    -------
    ``folder``

    Raises
    ------
    ValueError
        The archive is damaged or hostile: names that lead out of the folder, that are too long, or that are of a file
        and a folder at once; links; more content than is plausible.
    OSError
        The disk is too small.
    """
    if folder.is_dir():
        return folder
    name = parts[0].name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(parts) as file, zipfile.ZipFile(file) as archive:
            entries = _checked(archive, name, sum(part.stat().st_size for part in parts))
            total = sum(entry.file_size for entry in entries.values())
            if total > (free := shutil.disk_usage(folder.parent).free):
                raise OSError(f"{name} needs {total:,} bytes in {folder.parent}, of which {free:,} are free.")
            with tqdm(
                total=total, desc=plain(f"Unpacking {name}"), unit="B", unit_scale=True, disable=not progress
            ) as bar:
                _extract(archive, entries, folder, bar)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{name} is damaged, or no zip archive: {error}. Remove {parts[0]} to get it anew.") from error
    except NotImplementedError as error:
        raise ValueError(
            f"{name} is packed in a way that Python cannot unpack: {error}. Unpack it by hand, and pass the folder."
        ) from error
    return folder


def _checked(archive: zipfile.ZipFile, name: str, size: int) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files by their path in the folder, once all of them are harmless."""
    entries: dict[PurePosixPath, zipfile.ZipInfo] = {}
    if len(archive.infolist()) > MAX_ENTRIES:
        raise ValueError(f"{name} holds {len(archive.infolist()):,} files, more than {MAX_ENTRIES:,}; not unpacked.")
    for entry in archive.infolist():
        # Some programs on Windows write their own separator.
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(entry.filename).drive:
            raise ValueError(f"{name} holds {entry.filename!r}, which leads out of the folder; nothing was unpacked.")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{name} holds {entry.filename!r}, a link or device; nothing was unpacked.")
        if entry.flag_bits & 1:
            raise ValueError(f"{name} is encrypted; nothing was unpacked.")
        # What macOS adds, and folders: those with files in them are made anyway.
        if (
            not path.parts
            or entry.is_dir()
            or path.parts[0] == "__MACOSX"
            or path.name == ".DS_Store"
            or path.name.startswith("._")
        ):
            continue
        if max(len(os.fsencode(part)) for part in path.parts) > MAX_NAME or len(os.fsencode(path)) > MAX_PATH:
            raise ValueError(f"{name} holds {entry.filename[:40]!r}..., a name too long; nothing was unpacked.")
        if path in entries:
            raise ValueError(f"{name} holds {entry.filename!r} twice; nothing was unpacked.")
        entries[path] = entry
    if both := entries.keys() & {folder for path in entries for folder in path.parents}:
        raise ValueError(f"{name} holds {str(min(both))!r} as a file and as a folder; nothing was unpacked.")
    total = sum(entry.file_size for entry in entries.values())
    if total > max(MAX_RATIO * size, FREE_SIZE):
        raise ValueError(
            f"{name} of {size:,} bytes claims to hold {total:,} bytes, too much to be real; nothing was unpacked."
        )
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


def _opened(parts: Sequence[Path]) -> IO[bytes]:
    return parts[0].open("rb") if len(parts) == 1 else io.BufferedReader(_Joined(parts), 1 << 20)


class _Joined(io.RawIOBase):
    """Files that were cut apart, read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self._starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._starts[-1]:
            return 0
        which = bisect_right(self._starts, self._position) - 1
        file = self._files[which]
        file.seek(self._position - self._starts[which])
        content = file.read(len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
