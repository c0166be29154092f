"""Import of a script in ``benchmarks/`` or ``tools/compact/``, which are no packages."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def module(name: str, folder: str = "benchmarks") -> ModuleType:
    """Import a script by name; it finds the scripts beside it, as when it is run."""
    path = ROOT / folder
    sys.path.insert(0, str(path))
    try:
        spec = importlib.util.spec_from_file_location(name, path / f"{name}.py")
        found = importlib.util.module_from_spec(spec)
        # A dataclass looks its module up by name.
        sys.modules[name] = found
        spec.loader.exec_module(found)
    finally:
        sys.path.remove(str(path))
    return found
