"""What was done in a review: lines of JSON that are only ever added, each on disk before it is answered."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from nimbus_sd._disk import lock, sync_folder


class Log:
    """The steps of a review that are not in the table yet, kept beside the store.

    A line is a step (``{"n", "time", "annotator", "do"}``), what took one back (``{"undo": n}``), says that all up to a
    step are in the table (``{"saved": n}``), or who opened the log (``{"open": ..., "log": ...}``). Without a path
    nothing is kept; with ``reading`` nothing is added to what is there.
    """

    def __init__(self, path: Path | None, *, reading: bool = False) -> None:
        self.path, self.notices = path, list[str]()
        #: Steps that were neither saved nor taken back, and the names of the log and of who made its last step.
        self.steps, self.name, self.annotator = list[dict[str, Any]](), uuid4().hex, ""
        self._last, self._file = 0, -1
        if path is None or (reading and not path.exists()):
            return
        flags = os.O_RDONLY if reading else os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._file = os.open(path, flags, 0o666)
        try:
            if not reading:
                self._lock()
            self._read(reading)
            if reading:
                self.close()
            else:
                sync_folder(path.parent)
                holder = {"pid": os.getpid(), "host": socket.gethostname(), "time": _now()}
                self._add({"open": holder, "log": self.name})
        except BaseException:
            self.close()
            raise

    def add(self, annotator: str, do: dict[str, Any]) -> int:
        """Keep a step; return its number."""
        step = {"n": self._last + 1, "time": _now(), "annotator": annotator, "do": do}
        self._add(step)
        self._last += 1
        self.steps.append(step)
        return self._last

    def undo(self) -> None:
        """Keep that the last step was taken back."""
        self._add({"undo": self.steps[-1]["n"]})
        self.steps.pop()

    def saved(self) -> None:
        """Keep that the table has all steps."""
        self._add({"saved": self._last})
        self.steps.clear()

    @property
    def last(self) -> int:
        """Number of the last step that was ever made."""
        return self._last

    def forget(self, n: int) -> None:
        """Leave out the steps up to one: a table that was saved just before a kill has them."""
        self.steps = [step for step in self.steps if step["n"] > n]

    def close(self) -> None:
        """Let others open the log."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _add(self, line: dict[str, Any]) -> None:
        if self._file < 0:
            return
        end = os.fstat(self._file).st_size
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError:
            # What is not kept whole must not stay in front of the next line.
            os.ftruncate(self._file, end)
            raise

    def _lock(self) -> None:
        try:
            lock(self._file, wait=False)
        except BlockingIOError:
            lines = Path(str(self.path)).read_bytes().splitlines()
            holders = [
                json.loads(line)["open"] for line in lines if line.startswith(b'{"open"') and line.endswith(b"}")
            ]
            who = "process {pid} on {host}, since {time}".format(**holders[-1]) if holders else "another process"
            message = f"{self.path} is in use by a review of this store: {who}. Go on there, or stop it first"
            raise BlockingIOError(f"{message} (Ctrl-C where it runs).") from None
        except OSError:
            self.notices.append(f"The file system of {self.path} has no locks: open the review once only.")

    def _read(self, reading: bool) -> None:
        with open(str(self.path), "rb") as file:
            content = file.read()
        lines, place = content.splitlines(keepends=True), 0
        for number, line in enumerate(lines, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("half a line")
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    what = f"Line {number} of {self.path} is damaged, so that what follows cannot be trusted"
                    advice = "mend or delete that line to go on with the rest, or move the file to begin anew"
                    raise ValueError(f"{what}; {advice}. Nothing was changed.") from error
                self.notices.append(f"The last line of {self.path} was half written; that one step is lost.")
                if not reading:
                    os.ftruncate(self._file, place)
            place += len(line)

    def _take(self, line: dict[str, Any]) -> None:
        if "open" in line:
            self.name = str(line["log"])
        elif "saved" in line:
            self.forget(int(line["saved"]))
        elif "undo" in line:
            self.steps = [step for step in self.steps if step["n"] != int(line["undo"])]
        else:
            self._last, self.annotator = int(line["n"]), str(line["annotator"])
            self.steps.append({**line, "do": dict(line["do"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
