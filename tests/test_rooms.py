"""A room gives others only what its ``__init__`` names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nimbus_sd

PACKAGE = Path(nimbus_sd.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def _foreign_imports(room: str) -> list[str]:
    """Modules inside a room that files of other rooms import from, as "file: module"."""
    inside = f"nimbus_sd.{room}."
    return [
        f"{path.relative_to(PACKAGE)}: {node.module}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != room
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(inside)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_others_import_from_the_room_itself(room: str) -> None:
    assert not _foreign_imports(room)
