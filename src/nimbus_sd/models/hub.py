"""Weights on the Hugging Face hub: the published ones, and models that users share."""

import logging
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from nimbus_sd import _hub

REPOSITORY = "JLrumberger/Nimbus-Inference"
#: Before the name of a repository that holds a model as :func:`push` writes it.
PREFIX = "hf:"
_FILES = ("model.safetensors", "model.json")

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


def pull(name: str) -> Path:
    """Download a model that somebody pushed, or find it in the cache.

    Parameters
    ----------
    name
        ``"hf:<owner>/<repository>"``, at ``@<revision>`` where one is wanted.

    Returns
    -------
    Path of the weights; their card lies beside them.

    Raises
    ------
    ValueError
        The name is none of a repository.
    ConnectionError
        The hub cannot be reached, or does not hold the model.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    _check_repository(repository)
    endpoint = _hub.endpoint()
    with _hub.reaching(f"The model {name!r}", "Give the path of its .safetensors file, if you have it."):
        found = [hf_hub_download(repository, file, revision=revision or None, endpoint=endpoint) for file in _FILES]
    return Path(found[0])


def push(path: str | Path, repository: str, *, private: bool = True) -> str:
    """Upload a model to the Hugging Face hub, where ``load("hf:<owner>/<repository>")`` finds it.

    Parameters
    ----------
    path
        ``<name>.safetensors``, with its card beside it.
    repository
        ``"<owner>/<repository>"``; it is made where it does not exist. You must be logged in (``hf auth login``, or the
        environment variable ``HF_TOKEN``).
    private
        Whether a new repository can be seen by its owner only.

    Returns
    -------
    Name by which :func:`~nimbus_sd.models.load` finds this very version.

    Raises
    ------
    FileNotFoundError
        The file or its card does not exist.
    ValueError
        The name is none of a repository.
    ConnectionError
        The hub cannot be reached, or does not accept it.
    """
    weights = Path(path).expanduser()
    files = dict(zip(_FILES, (weights, weights.with_suffix(".json")), strict=True))
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise FileNotFoundError(f"{' and '.join(missing)} does not exist; `nimbus_sd.models.save` writes both.")
    _check_repository(repository)
    api = HfApi(endpoint=_hub.endpoint())
    added = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
    with _hub.reaching(f"The repository {repository!r}", "Log in with `hf auth login`.", done="written to"):
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(repository, added, commit_message="Model with its card")
    return f"{PREFIX}{repository}@{commit.oid}"


def _check_repository(repository: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is no repository of the hub; it must be '<owner>/<repository>'.")
