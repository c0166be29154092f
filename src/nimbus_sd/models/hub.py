"""The published weights on the Hugging Face hub."""

import logging
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from nimbus_sd import _hub

REPOSITORY = "JLrumberger/Nimbus-Inference"

logger = logging.getLogger("nimbus_sd")


@dataclass(frozen=True)
class Version:
    """A file of weights at a commit of the hub's repository."""

    file: str
    commit: str

    def __str__(self) -> str:
        """Return e.g. ``"V1.pt@0123abc..."``."""
        return f"{self.file}@{self.commit}"


def fetch(*, update: bool = False) -> tuple[Path, Version]:
    """Find the published weights in the cache, or download them.

    The latest version (the file ``V<number>.pt`` with the highest number) is looked up once and written down
    beside the hub's cache. Later calls use that version, and need no connection once it is downloaded.

    Parameters
    ----------
    update
        Look up the latest version again.

    Returns
    -------
    path
        Of the file in the hub's cache.
    version
        Name of the file and commit.

    Raises
    ------
    ConnectionError
        If the hub is needed and cannot be reached, or does not hold what is asked of it.

    Notes
    -----
    The environment variables of huggingface_hub apply. ``HF_ENDPOINT`` is read at each call; ``HF_HOME``,
    ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` when huggingface_hub is imported.
    """
    endpoint = _hub.endpoint()
    record = _hub.assets("models", "nimbus") / "version.json"
    recorded = _recorded(record)
    version = _look_up(endpoint, fall_back=not update) if recorded is None or update else recorded
    with _reaching(endpoint):
        path = hf_hub_download(REPOSITORY, version.file, revision=version.commit, endpoint=endpoint)
    if version != recorded:
        _hub.write_record(record, asdict(version))
    return Path(path), version


def _recorded(record: Path) -> Version | None:
    """Return the version written down by an earlier call."""
    content = _hub.read_record(record)
    try:
        return None if content is None else Version(**content)
    except TypeError:
        _hub.warn_unreadable(record)
        return None


def _look_up(endpoint: str, *, fall_back: bool) -> Version:
    """Ask the hub for the latest version; without a connection take what another program has downloaded."""
    try:
        return _latest_on_hub(endpoint)
    except ConnectionError:
        version = _latest_in_cache() if fall_back else None
        if version is None:
            raise
        logger.warning("The hub cannot be reached: %s, found in its cache, may not be the latest.", version)
        return version


def _latest_in_cache() -> Version | None:
    try:
        folder = Path(snapshot_download(REPOSITORY, allow_patterns="V*.pt", local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    file = _latest(path.name for path in folder.iterdir())
    return None if file is None else Version(file, folder.name)


def _latest_on_hub(endpoint: str) -> Version:
    with _reaching(endpoint):
        info = HfApi(endpoint=endpoint).model_info(REPOSITORY, timeout=30)
        file = _latest(file.rfilename for file in info.siblings or ())
        if file is None or info.sha is None:
            raise LookupError(f"the repository {REPOSITORY} lists no file V<number>.pt")
    return Version(file, info.sha)


def _latest(files: Iterable[str]) -> str | None:
    """Return the file ``V<number>.pt`` with the highest number."""
    numbers = {file: int(found[1]) for file in files if (found := re.fullmatch(r"V(\d+)\.pt", file))}
    return max(numbers, key=lambda file: numbers[file], default=None)


def _reaching(endpoint: str) -> AbstractContextManager[None]:
    return _hub.reaching(
        "The published Nimbus weights",
        f"With a connection, download V1.pt from {endpoint}/{REPOSITORY} and give model='/path/V1.pt'; "
        "or use the bundled model='compact', which needs no download and is another model.",
    )
