"""Files of a data set repository of the Hugging Face hub: found once, downloaded once, checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from nimbus_sd import _hub
from nimbus_sd._disk import replacing

logger = logging.getLogger("nimbus_sd")

#: Name of a file in the repository to the SHA-256 that the hub states, None where it states none.
Listing = dict[str, str | None]


@dataclass(frozen=True)
class Download:
    """Files of a repository at a commit, in the hub's cache: name in the repository to path."""

    commit: str
    files: dict[str, Path]


def fetch(
    repository: str, choose: Callable[[Sequence[str]], list[str]], advice: str, *, update: bool, progress: bool
) -> Download:
    """Find files of a data set repository in the cache, or download them.

    The latest commit and its files are looked up once and written down beside the hub's cache. Later calls use that
    commit, and need no connection for what is downloaded already. The hub's client takes up a connection that broke.

    Parameters
    ----------
    repository
        Owner and name on the hub.
    choose
        Picks the files to download from the names of all.
    advice
        What to do without the hub, for the error.
    update
        Look up the latest commit again.
    progress
        Show the hub's progress bars.

    Raises
    ------
    ConnectionError
        The hub is needed and cannot be reached, or does not have the repository.
    ValueError
        A file is not what the hub says it is; or from ``choose``.
    """
    what = f"The data set {repository}"
    record = _hub.assets("datasets", repository.replace("/", "--")) / "version.json"
    recorded = _recorded(record)
    commit, listing = recorded if recorded and not update else _look_up(repository, what, advice, fall_back=not update)
    names = choose(list(listing))
    with _progress_bars(progress), _hub.reaching(what, advice):
        files = {
            name: Path(
                hf_hub_download(repository, name, repo_type="dataset", revision=commit, endpoint=_hub.endpoint())
            )
            for name in names
        }
    for name, path in files.items():
        _check(path, listing[name], record.parent)
    if (commit, listing) != recorded:
        _hub.write_record(record, {"commit": commit, "files": listing})
    return Download(commit, files)


def _recorded(record: Path) -> tuple[str, Listing] | None:
    """Return the commit and files written down by an earlier call."""
    content: Any = _hub.read_record(record)
    if content is None:
        return None
    try:
        return str(content["commit"]), dict(content["files"])
    except (TypeError, KeyError, ValueError):
        _hub.warn_unreadable(record)
        return None


def _look_up(repository: str, what: str, advice: str, *, fall_back: bool) -> tuple[str, Listing]:
    """Ask the hub for the latest commit; without a connection take what another program has downloaded."""
    try:
        with _hub.reaching(what, advice):
            api = HfApi(endpoint=_hub.endpoint())
            info = api.dataset_info(repository, files_metadata=True, timeout=30)
            if info.sha is None:
                raise LookupError(f"the hub states no commit of {repository}")
        return info.sha, {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()}
    except ConnectionError:
        found = _in_cache(repository) if fall_back else None
        if found is None:
            raise
        logger.warning("The hub cannot be reached: %s of its cache may not be the latest.", repository)
        return found


def _in_cache(repository: str) -> tuple[str, Listing] | None:
    try:
        folder = Path(snapshot_download(repository, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder.name, {path.relative_to(folder).as_posix(): None for path in folder.rglob("*") if path.is_file()}


def _check(path: Path, sha256: str | None, notes: Path) -> None:
    """Compare a file with the hub's statement, once; one that differs is removed, to be downloaded again."""
    if sha256 is None:
        return
    blob = path.resolve()
    note, changed = notes / f"{sha256}.checked", str(blob.stat().st_mtime_ns)
    if note.exists() and note.read_text() == changed:
        return
    _hub.check_sha256(path, sha256)
    with replacing(note) as (file,):
        file.write_text(changed)


@contextmanager
def _progress_bars(wanted: bool) -> Iterator[None]:
    """Switch the hub's progress bars off for a while."""
    if wanted or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
