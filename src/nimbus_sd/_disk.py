"""Writing to disk: whatever stops it, what was there before is as it was, or what replaces it is whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

#: How names begin of what is not finished.
UNFINISHED: Final = ".unfinished-"


@contextmanager
def replacing(*paths: str | Path) -> Iterator[list[Path]]:
    """Give a file beside each of these to write instead; all get their names at the end, or none after an error."""
    # A link stays a link.
    targets = [Path(os.path.realpath(path)) for path in paths]
    # Some writers go by the ending.
    unfinished = [path.with_name(f"{UNFINISHED}{uuid4().hex}{path.suffix}") for path in targets]
    try:
        yield unfinished
        for source, target in zip(unfinished, targets, strict=True):
            if target.exists():
                shutil.copymode(target, source)
            sync(source)
        for source, target in zip(unfinished, targets, strict=True):
            put(source, target)
    except (OSError, RuntimeError) as error:
        message = f"Nothing was written to {', '.join(map(str, paths))}."
        if isinstance(error, RuntimeError):
            # So HDF5 and torch say that the disk is full.
            raise OSError(f"{error}. {message}") from error
        error.add_note(message)
        raise
    finally:
        for source in unfinished:
            source.unlink(missing_ok=True)


def put(unfinished: Path, path: Path) -> None:
    """Force a file to disk, and put it in the place of one that may be there, in the same folder."""
    sync(unfinished)
    unfinished.replace(path)
    sync_folder(path.parent)


def put_folder(unfinished: Path, path: Path, aside: Path) -> None:
    """Force a folder to disk, and put it in the place of one that may be there; after a kill call :func:`settle`."""
    sync(unfinished)
    aside.parent.mkdir(exist_ok=True)
    try:
        if path.exists():
            path.rename(aside)
        unfinished.rename(path)
        for folder in (path.parent, unfinished.parent, aside.parent):
            sync_folder(folder)
    finally:
        settle(unfinished, path, aside)


def settle(unfinished: Path, path: Path, aside: Path) -> None:
    """Put back what a stopped :func:`put_folder` moved aside, if nothing took its place, and delete the rest."""
    shutil.rmtree(unfinished, ignore_errors=True)
    if aside.exists():
        # Deleted under another name: half of it must never be put back.
        aside.rename(unfinished if path.exists() else path)
        shutil.rmtree(unfinished, ignore_errors=True)


def sync(path: Path) -> None:
    """Force a file, or a folder with all that is in it, to disk."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    for folder, _, names in os.walk(path):
        for name in names:
            sync(Path(folder, name))
        sync_folder(Path(folder))


def lock(descriptor: int, *, wait: bool) -> None:
    """Lock what is open until it is closed (not on Windows); a BlockingIOError if it is locked and we do not wait."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def sync_folder(folder: Path) -> None:
    """Force names of files to disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems sync files only.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
