"""What the published weights and the data of the paper share of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import cached_assets_path, constants
from huggingface_hub.errors import LocalEntryNotFoundError

from nimbus_sd._disk import replacing

logger = logging.getLogger("nimbus_sd")


def endpoint() -> str:
    """Address of the hub; ``HF_ENDPOINT`` is read at each call."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def assets(namespace: str, subfolder: str) -> Path:
    """Return our own folder beside the hub's cache; it is made where it does not exist."""
    return cached_assets_path("nimbus_sd", namespace, subfolder, assets_dir=constants.HF_ASSETS_CACHE)


def read_record(path: Path, **fields: type) -> Any:
    """Return what an earlier call wrote down; None if it wrote nothing, or lacks a field of this type."""
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        if not path.exists():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(content[name], kind) for name, kind in fields.items()):
            return content
    warn_unreadable(path)
    return None


def warn_unreadable(path: Path) -> None:
    """Log that a record is of no use."""
    logger.warning("%s is not readable; the version is looked up again.", path)


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    with replacing(path) as (file,):
        file.write_text(json.dumps(content), encoding="utf-8")


def check_sha256(path: Path, wanted: str | None) -> str:
    """Return the sha256 of a file of the hub's cache; one that should have another is removed and a ValueError."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if wanted not in (None, sha256):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        advice = "It was removed; call again to download it again."
        raise ValueError(f"{path.name} is damaged: its sha256 is {sha256}, and must be {wanted}. {advice}")
    return sha256


@contextmanager
def reaching(what: str, instead: str, done: str = "fetched from") -> Iterator[None]:
    """Turn whatever the hub's client raises into a ConnectionError: what could not be done, and what to do instead."""
    try:
        yield
    except Exception as error:
        # The client's HTTP library, and with it the classes of its errors, differs between versions of
        # huggingface_hub (requests, httpx, httpx2, hf_xet). Faults of this machine's disk stay as they are.
        network = isinstance(error, ConnectionError | TimeoutError | LocalEntryNotFoundError)
        if isinstance(error, OSError) and error.errno is not None and not network:
            raise
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        cause = f"{type(error).__name__}: {reason}"
        raise ConnectionError(f"{what} could not be {done} {endpoint()} ({cause}). {instead}") from error
