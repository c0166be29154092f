"""Weights on the Hugging Face hub: the published ones, and models that users share."""

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from nimbus_sd import _hub

REPOSITORY = "JLrumberger/Nimbus-Inference"
#: Before the name of a repository that holds a model as :func:`push` writes it.
PREFIX = "hf:"
#: sha256 of published files, by name, where it is known from elsewhere than the hub.
KNOWN: Mapping[str, str] = {}

_FILES = ("model.safetensors", "model.json")
# The file, its commit, and its sha256 where it is known.
_Version = dict[str, str | None]
# What a model is called in errors, and what to do without the hub.
_Hint = tuple[str, str]

logger = logging.getLogger("nimbus_sd")


def fetch(*, update: bool = False) -> tuple[Path, str]:
    """Find the published weights in the cache, or download them: the file ``V<number>.pt`` with the highest number.

    ``HF_ENDPOINT`` is read at each call; ``HF_HOME``, ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` when huggingface_hub is
    imported. Returns their path and version: ``"<file>@<commit>"``.
    """
    download = f"With a connection, download V1.pt from {_hub.endpoint()}/{REPOSITORY} and give model='/path/V1.pt'"
    instead = f"{download}; or use model='compact', another model, which is bundled."
    hint = ("The published Nimbus weights", instead)
    path, commit = _pinned(REPOSITORY, "nimbus", "V<number>.pt", hint, update=update)
    return path, f"{path.name}@{commit}"


def pull(name: str, *, update: bool = False) -> tuple[Path, str]:
    """Find a shared model, ``"hf:<owner>/<repository>[@<revision>]"``, in the cache, or download it.

    Returns the path of the weights, with their card beside them, and ``"hf:<owner>/<repository>@<commit>"``.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    _check_repository(repository)
    hint = (f"The model {name!r}", "Give the path of its .safetensors file, if you have it.")
    if not revision:
        _, revision = _pinned(repository, repository.replace("/", "--"), _FILES[0], hint, update=update)
    weights, _ = (_download(repository, file, revision, hint) for file in _FILES)
    # The cache has a folder for each commit.
    return weights, f"{PREFIX}{repository}@{weights.parent.name}"


def _download(repository: str, file: str, revision: str, hint: _Hint) -> Path:
    """Return the path of a file in the hub's cache."""
    with _hub.reaching(*hint):
        return Path(hf_hub_download(repository, file, revision=revision, endpoint=_hub.endpoint()))


def _pinned(repository: str, folder: str, file: str, hint: _Hint, *, update: bool) -> tuple[Path, str]:
    """Return the path and the commit of a file at the version that the first call recorded beside the hub's cache.

    Its sha256 must be the one that the hub stated or, where it stated none, that of the first download.
    """
    record = _hub.assets("models", folder) / "version.json"
    recorded = _recorded(record)
    version = recorded if recorded and not update else _look_up(repository, file, hint, fall_back=not update)
    name, commit = str(version["file"]), str(version["commit"])
    path = _download(repository, name, commit, hint)
    version = version | {"sha256": _hub.check_sha256(path, KNOWN.get(name, version.get("sha256")))}
    if version != recorded:
        _hub.write_record(record, version)
    return path, commit


def _recorded(record: Path) -> _Version | None:
    """Read the version that an earlier call recorded."""
    patterns = {"file": r"[\w.]+", "commit": "[0-9a-f]{40}", "sha256": "([0-9a-f]{64}|None)?"}
    version = _hub.read_record(record)
    if isinstance(version, dict) and all(re.fullmatch(p, str(version.get(key, ""))) for key, p in patterns.items()):
        return {key: version.get(key) for key in patterns}
    if version is not None:
        _hub.warn_unreadable(record)
    return None


def _look_up(repository: str, file: str, hint: _Hint, *, fall_back: bool) -> _Version:
    """Ask the hub for the latest version; without a connection take what another program has downloaded."""
    try:
        with _hub.reaching(*hint):
            info = HfApi(endpoint=_hub.endpoint()).model_info(repository, files_metadata=True, timeout=30)
            stated = {sibling.rfilename: sibling.lfs.sha256 if sibling.lfs else None for sibling in info.siblings or ()}
            latest = _latest(stated, file)
            if latest is None or info.sha is None:
                raise LookupError(f"the repository {repository} lists no file {file}")
            return {"file": latest, "commit": info.sha, "sha256": stated[latest]}
    except ConnectionError:
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(repository, allow_patterns=["V*.pt", *_FILES], local_files_only=True))
            if fall_back and (latest := _latest((path.name for path in folder.iterdir()), file)):
                note = "The hub cannot be reached: %s@%s, found in its cache, may not be the latest."
                logger.warning(note, latest, folder.name)
                return {"file": latest, "commit": folder.name, "sha256": None}
        raise


def _latest(names: Iterable[str], file: str) -> str | None:
    """Return the file of that name; where it is ``V<number>.pt``, the one with the highest number."""
    pattern = re.escape(file).replace("<number>", r"\d+")
    matching = (name for name in names if re.fullmatch(pattern, name))
    return max(matching, key=lambda name: int("0" + re.sub(r"\D", "", name)), default=None)


def push(path: str | Path, repository: str, *, private: bool = True) -> str:
    """Upload a model to the Hugging Face hub, where ``load("hf:<owner>/<repository>")`` finds it.

    Parameters
    ----------
    path
        ``<name>.safetensors``, with its card beside it.
    repository
        ``"<owner>/<repository>"``; created where it does not exist. You must be logged in (``hf auth login``, or the
        environment variable ``HF_TOKEN``).
    private
        Whether only its owner can see a new repository.

    Returns
    -------
    Name by which :func:`~nimbus_sd.models.load` finds this very version.

    Raises
    ------
    ConnectionError
        If the hub cannot be reached, or refuses the upload.
    """
    weights = Path(path).expanduser()
    files = dict(zip(_FILES, (weights, weights.with_suffix(".json")), strict=True))
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise FileNotFoundError(f"{' and '.join(missing)} does not exist; `nimbus_sd.models.save` writes both.")
    _check_repository(repository)
    api = HfApi(endpoint=_hub.endpoint())
    with _hub.reaching(f"The repository {repository!r}", "Log in with `hf auth login`.", done="written to"):
        api.create_repo(repository, private=private, exist_ok=True)
        added = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
        commit = api.create_commit(repository, added, commit_message="Model with its card")
    return f"{PREFIX}{repository}@{commit.oid}"


def _check_repository(repository: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is no repository of the hub; it must be '<owner>/<repository>'.")
