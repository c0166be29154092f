"""Weights on the Hugging Face hub: the published ones, and models that users share."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from nimbus_sd import _hub

REPOSITORY = "JLrumberger/Nimbus-Inference"
#: Before the name of a repository that holds a model as :func:`push` writes it.
PREFIX = "hf:"
_FILES = ("model.safetensors", "model.json")

#: sha256 of published files, by name, where it is known from elsewhere than the hub.
KNOWN: Mapping[str, str] = {}

_Reaching = Callable[[], AbstractContextManager[None]]

logger = logging.getLogger("nimbus_sd")


@dataclass(frozen=True)
class Version:
    """A file of weights at a commit of a repository of the hub, and its sha256 where the hub states it."""

    file: str
    commit: str
    sha256: str | None = None

    def __str__(self) -> str:
        """Return e.g. ``"V1.pt@0123abc..."``."""
        return f"{self.file}@{self.commit}"


def fetch(*, update: bool = False) -> tuple[Path, Version]:
    """Find the published weights in the cache, or download them.

    The latest version (the file ``V<number>.pt`` with the highest number) is looked up once and written down
    beside the hub's cache, with its sha256. Later calls use that version, need no connection once it is downloaded, and
    compare the file with its sha256.

    Parameters
    ----------
    update
        Look up the latest version again.

    Returns
    -------
    path
        Of the file in the hub's cache.
    version
        Name of the file, commit and sha256.

    Raises
    ------
    ConnectionError
        If the hub is needed and cannot be reached, or does not hold what is asked of it.
    ValueError
        If the file is not the one of its sha256.

    Notes
    -----
    The environment variables of huggingface_hub apply. ``HF_ENDPOINT`` is read at each call; ``HF_HOME``,
    ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` when huggingface_hub is imported.
    """
    instead = (
        f"With a connection, download V1.pt from {_hub.endpoint()}/{REPOSITORY} and give model='/path/V1.pt'; "
        "or use the bundled model='compact', which needs no download and is another model."
    )
    reaching = partial(_hub.reaching, "The published Nimbus weights", instead)
    return _pinned(REPOSITORY, "nimbus", "V<number>.pt", reaching, update=update)


def pull(name: str, *, update: bool = False) -> tuple[Path, str]:
    """Download a model that somebody pushed, or find it in the cache.

    Without a revision, the latest commit is looked up once and written down, as in :func:`fetch`.

    Parameters
    ----------
    name
        ``"hf:<owner>/<repository>"``, at ``@<revision>`` where one is wanted.
    update
        Look up the latest commit again.

    Returns
    -------
    path
        Of the weights; their card lies beside them.
    name
        ``"hf:<owner>/<repository>@<commit>"``.

    Raises
    ------
    ConnectionError
        The hub cannot be reached, or does not hold the model.
    ValueError
        The name is none of a repository, or the file is not the one of its sha256.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    _check_repository(repository)
    reaching = partial(_hub.reaching, f"The model {name!r}", "Give the path of its .safetensors file, if you have it.")
    if not revision:
        folder = repository.replace("/", "--")
        revision = _pinned(repository, folder, _FILES[0], reaching, update=update)[1].commit
    with reaching():
        found = [
            Path(hf_hub_download(repository, file, revision=revision, endpoint=_hub.endpoint())) for file in _FILES
        ]
    # The cache has a folder for each commit.
    return found[0], f"{PREFIX}{repository}@{found[0].parent.name}"


def _pinned(repository: str, folder: str, file: str, reaching: _Reaching, *, update: bool) -> tuple[Path, Version]:
    """Find weights by the version that the first call wrote down, in a folder of ours; see `fetch`."""
    record = _hub.assets("models", folder) / "version.json"
    recorded = _recorded(record)
    version = recorded if recorded and not update else _look_up(repository, file, reaching, fall_back=not update)
    with reaching():
        path = Path(hf_hub_download(repository, version.file, revision=version.commit, endpoint=_hub.endpoint()))
    version = replace(version, sha256=_hub.check_sha256(path, KNOWN.get(version.file, version.sha256)))
    if version != recorded:
        _hub.write_record(record, asdict(version))
    return path, version


def _recorded(record: Path) -> Version | None:
    """Return the version written down by an earlier call."""
    content = _hub.read_record(record)
    if content is None:
        return None
    try:
        version = Version(**content)
        whole = {r"[\w.]+": version.file, "[0-9a-f]{40}": version.commit, "[0-9a-f]{64}": version.sha256 or "0" * 64}
        if not all(re.fullmatch(pattern, text) for pattern, text in whole.items()):
            raise TypeError("not as it was written")
    except TypeError:
        _hub.warn_unreadable(record)
        return None
    return version


def _look_up(repository: str, file: str, reaching: _Reaching, *, fall_back: bool) -> Version:
    """Ask the hub for the latest version; without a connection take what another program has downloaded."""
    try:
        with reaching():
            return _latest_on_hub(repository, file)
    except ConnectionError:
        version = _latest_in_cache(repository, file) if fall_back else None
        if version is None:
            raise
        logger.warning("The hub cannot be reached: %s, found in its cache, may not be the latest.", version)
        return version


def _latest_in_cache(repository: str, file: str) -> Version | None:
    try:
        folder = Path(snapshot_download(repository, allow_patterns=["V*.pt", *_FILES], local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    found = _latest((path.name for path in folder.iterdir()), file)
    return None if found is None else Version(found, folder.name)


def _latest_on_hub(repository: str, file: str) -> Version:
    info = HfApi(endpoint=_hub.endpoint()).model_info(repository, files_metadata=True, timeout=30)
    stated = {one.rfilename: one.lfs.sha256 if one.lfs else None for one in info.siblings or ()}
    found = _latest(stated, file)
    if found is None or info.sha is None:
        raise LookupError(f"the repository {repository} lists no file {file}")
    return Version(found, info.sha, stated[found])


def _latest(names: Iterable[str], file: str) -> str | None:
    """Return the file of that name; where it is ``V<number>.pt``, the one with the highest number."""
    pattern = re.escape(file).replace("<number>", r"(\d+)")
    numbers = {
        name: int(found[1] if found.re.groups else 0) for name in names if (found := re.fullmatch(pattern, name))
    }
    return max(numbers, key=lambda name: numbers[name], default=None)


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
