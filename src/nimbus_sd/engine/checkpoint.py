"""Where finished tiles are kept: in memory, or in a folder from which a stopped run goes on."""

from __future__ import annotations

import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nimbus_sd._disk import lock, put
from nimbus_sd.engine.plan import differences
from nimbus_sd.engine.tile import TileSums

logger = logging.getLogger("nimbus_sd")

_INPUTS = "inputs.json"
_LOCK = "lock"
_TILE = "tile-{:07d}.npz"
_TILES = f"tile-{'[0-9]' * 7}.npz"
_UNFINISHED = ".unfinished"


class Memory:
    """Keeps finished tiles until they are added up."""

    def __init__(self) -> None:
        self._tiles: dict[int, TileSums] = {}

    def opened(self, inputs: dict[str, Any]) -> AbstractContextManager[None]:
        """Do nothing: there is nothing to open or to compare."""
        return nullcontext()

    def completed_tiles(self) -> dict[int, NDArray[np.uint8]]:
        """Return no tile."""
        return {}

    def save(self, number: int, sums: TileSums) -> None:
        """Keep a tile."""
        self._tiles[number] = sums

    def load(self, number: int) -> TileSums:
        """Return a tile, once."""
        return self._tiles.pop(number)

    def resume_hint(self, total: int | None) -> str:
        """Tell a user how to go on; ``total`` as for :meth:`Checkpoint.resume_hint`."""
        if total is None:
            return "Nothing was kept, as no tile had begun when it was stopped; the same call begins anew."
        return "Nothing was kept; with `checkpoint`, a folder, the same call goes on where it was stopped."


class Checkpoint:
    """A folder with the sums of finished tiles, a file for each, and a description of what they were made from.

    Files are written under another name, forced to disk and renamed, so that each is complete or not there. ``folder``
    is created once it is opened; that it is a file or holds something else is an error.
    """

    def __init__(self, folder: str | Path) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"`checkpoint` is a {type(folder).__name__}; pass the path of a folder, or None.")
        self.folder = Path(folder).expanduser()
        if self.folder.exists():
            self._check_content()
        nearest = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not os.access(nearest, os.W_OK):
            raise PermissionError(f"{str(nearest)!r} cannot be written to; pass another `checkpoint`.")

    @contextmanager
    def opened(self, inputs: dict[str, Any]) -> Iterator[None]:
        """Compare the inputs with those of the folder's tiles, and lock it for as long as this process lives.

        Hashes of the pixels are in each tile.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_content()
        with (self.folder / _LOCK).open("ab") as file:
            try:
                lock(file.fileno(), wait=False)
            except BlockingIOError as error:
                used = f"Another call works with the checkpoint in {str(self.folder)!r}"
                raise BlockingIOError(f"{used}; wait for it, or pass another `checkpoint`.") from error
            except OSError as error:
                logger.info("%s cannot be locked (%s); use it in one call at a time", self.folder, error.strerror)
            self._check_inputs(inputs)
            yield

    def completed_tiles(self) -> dict[int, NDArray[np.uint8]]:
        """Return the hashes of the pixels of each tile that is there; a damaged tile is an error."""
        return {number: self.load(number).digests for number in self._numbers()}

    def load(self, number: int) -> TileSums:
        """Read the sums of a tile; a ValueError if its file is damaged."""
        path = self.folder / _TILE.format(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                return TileSums(**{field.name: file[field.name] for field in fields(TileSums)})
        except (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{str(path)!r} is damaged ({error}); delete it, and its tile is made again.") from error

    def save(self, number: int, sums: TileSums) -> None:
        """Write the sums of a tile."""
        self._write(_TILE.format(number), lambda file: np.savez(file, **vars(sums)))

    def resume_hint(self, total: int | None) -> str:
        """Tell a user whose run of ``total`` tiles was stopped how to go on; None: before its first tile."""
        kept = f"are kept in {str(self.folder)!r}: the same call"
        if total is None:
            return f"{len(self._numbers())} tiles {kept} finds the factors anew and goes on from there."
        return f"{len(self._numbers())} of {total} tiles {kept} goes on from there."

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("tile-")) for path in self.folder.glob(_TILES))

    def _check_content(self) -> None:
        """Refuse a folder of something else before anything is written into it."""
        if not self.folder.is_dir():
            raise NotADirectoryError(f"The checkpoint {str(self.folder)!r} is a file; pass a new or an empty folder.")
        names = {path.name for path in self.folder.iterdir() if not path.name.endswith(_UNFINISHED)}
        if _INPUTS not in names and (others := sorted(names - {_LOCK})):
            content = f"{str(self.folder)!r} is no checkpoint, but holds other files ({others[0]!r})"
            raise ValueError(f"{content}; pass a new or an empty folder.")

    def _check_inputs(self, inputs: dict[str, Any]) -> None:
        """Compare the inputs with those of the tiles that are there; write them into a new folder."""
        path = self.folder / _INPUTS
        if not path.exists():
            self._write(_INPUTS, lambda file: file.write(json.dumps(inputs, indent=1).encode()))
            return
        try:
            before = json.loads(path.read_bytes())
            if not isinstance(before, dict):
                raise ValueError("it describes no inputs")
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is damaged ({error}); delete the folder to begin anew.") from error
        if other := list(differences(before, inputs)):
            changes = f"The checkpoint in {str(self.folder)!r} is of other inputs: {'; '.join(other[:5])}"
            raise ValueError(f"{changes}. Repeat the call that made it, or pass another `checkpoint` to begin anew.")

    def _write(self, name: str, content: Callable[[IO[bytes]], object]) -> None:
        path = self.folder / name
        unfinished = self.folder / f"{name}{_UNFINISHED}"
        try:
            with unfinished.open("wb") as file:
                content(file)
            put(unfinished, path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            reason = f"The checkpoint cannot be written ({error.strerror or error}); the tiles in it are intact"
            raise OSError(error.errno, reason, str(path)) from error


@contextmanager
def add_resume_hint(store: Memory | Checkpoint, total: int | None = None) -> Iterator[None]:
    """Add to an error how to go on, but not to those that refuse the input: the same call would be refused again.

    ``total`` is the number of tiles, None where the work comes before the first one.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Stopped. {store.resume_hint(total)}") from None
    except (ValueError, KeyError, TypeError):
        raise
    except Exception as error:
        error.add_note(store.resume_hint(total))
        raise
