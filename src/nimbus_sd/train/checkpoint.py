"""What a run keeps in its folder, so that it can be stopped at any moment and goes on exactly."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from nimbus_sd._disk import replacing
from nimbus_sd.models import read_archive


def read_checkpoint(path: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the state of a run; None where there is none.

    Raises
    ------
    ValueError
        If it is of another run than one of these inputs, or cannot be read.
    """
    if not path.exists():
        return None
    state, there = read_state(path)
    wanted = json.loads(json.dumps(inputs))
    if differing := [_difference(key, there.get(key), wanted[key]) for key in wanted if there.get(key) != wanted[key]]:
        raise ValueError(
            f"{path} is of another run: {'; '.join(differing)}. Call with the same inputs to go on with it, or name "
            "another folder."
        )
    return state


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the state of a run, and the inputs that it is of.

    Raises
    ------
    ValueError
        It cannot be read.
    """
    try:
        state = read_archive(path.read_bytes(), str(path))
    except ValueError as error:
        raise ValueError(f"{error} To start anew, delete it.") from error
    try:
        return state, dict(json.loads(state["inputs"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no state of a training run. To start anew, delete it.") from error


def write_checkpoint(path: Path, state: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Write the state of a run."""
    with replacing(path) as (file,):
        torch.save({**state, "inputs": json.dumps(inputs)}, file)


class Log:
    """Writes figures to ``metrics.csv``, and for TensorBoard.

    Parameters
    ----------
    folder
        Of the run.
    step
        What the folder has after this step is of a stopped run, and is repeated.
    """

    NAMES = ("step", "phase", "loss", "learning_rate", "kept", "validation_f1")

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.csv"
        rows = []
        if step and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with replacing(self._path) as (new,), new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.NAMES)
            writer.writeheader()
            writer.writerows(rows)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, phase: str, **values: float) -> None:
        """Add a row."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.NAMES).writerow({"step": step, "phase": phase, **values})
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        # The run may be stopped at any moment.
        self._board.flush()

    def close(self) -> None:
        """Write what is left."""
        self._board.close()


def _difference(key: str, there: Any, wanted: Any) -> str:
    if isinstance(there, dict) and isinstance(wanted, dict):
        parts = [_difference(f"{key}.{k}", there.get(k), v) for k, v in wanted.items() if there.get(k) != v]
        return "; ".join(parts)
    shown = [text if len(text := repr(value)) < 60 else "..." for value in (there, wanted)]
    return f"{key} was {shown[0]}, now {shown[1]}" if shown[0] != shown[1] else f"{key} differs"
