"""The zoo: reading and writing models, i.e. weights together with their card."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from nimbus_sd._disk import replacing
from nimbus_sd.models import hub
from nimbus_sd.models.archive import read_archive
from nimbus_sd.models.card import PUBLISHED, Card
from nimbus_sd.models.unet import UNet, architecture

BUNDLED: Traversable = files("nimbus_sd.models") / "weights"
ALLOWED = (
    "'compact' (bundled), 'nimbus' (published, from the hub), a path to .safetensors "
    "with a .json card beside it, 'hf:<owner>/<repository>' (shared on the hub), or a path to a .pt in the layout of "
    "the published weights"
)

_ARCHITECTURE = ("root_filters", "depth", "patch", "padding")
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

logger = logging.getLogger("nimbus_sd")


@dataclass(frozen=True)
class Model:
    """A network with its weights, in eval mode, and the card that says what it expects."""

    card: Card
    network: UNet


def load(model: str | Path, *, update: bool = False) -> Model:
    """Load a model.

    Parameters
    ----------
    model
        - ``"compact"``: bundled with this package; trained on real and simulated tissue, not the published model.
        - ``"nimbus"``: the published weights, downloaded once from the Hugging Face hub.
        - a path to ``<name>.safetensors``, with its card ``<name>.json`` in the same folder.
        - ``"hf:<owner>/<repository>"``, at ``@<revision>`` where wanted: a model that somebody shared with
          :func:`push`. Without a revision, the commit found at the first call is kept to.
        - a path to ``<name>.pt``, a bare state dict in the layout of the published weights, as ``torch.save`` writes
          it since torch 1.6. It is read with the published card, its architecture taken from the shapes.
    update
        For ``"nimbus"`` and ``"hf:<owner>/<repository>"``: look up the latest version instead of using the one found
        at the first call.

    Returns
    -------
    The model on the CPU, in eval mode, float32.

    Raises
    ------
    ValueError
        If ``model`` is none of the above, or a file is damaged or holds something else. Weights of the hub are
        compared with the sha256 that the hub stated, or that they had, at the first download.
    FileNotFoundError
        If the file or its card does not exist.
    ConnectionError
        For models of the hub, if the weights are not in the cache and it cannot be reached.

    Examples
    --------
    >>> model = load("compact")
    >>> model.card.pixel_size
    0.5
    """
    shared = str(model).startswith(hub.PREFIX)
    if update and model != "nimbus" and not (shared and "@" not in str(model)):
        raise ValueError(
            "update=True is for model='nimbus' and 'hf:<owner>/<repository>' without a revision; it was "
            f"{str(model)!r}."
        )
    if str(model) == "compact":
        (name,) = (file.name for file in BUNDLED.iterdir() if file.name.endswith(".safetensors"))
        loaded = _read_safetensors(BUNDLED / name, BUNDLED / f"{Path(name).stem}.json")
        note = "trained on real and simulated tissue, this is not the published Nimbus model"
    elif model == "nimbus":
        path, version = hub.fetch(update=update)
        loaded = _read_published_layout(path, replace(PUBLISHED, revision=str(version)))
        note = f"the published Nimbus model, {version}"
    elif shared:
        path, revision = hub.pull(str(model), update=update)
        loaded = _read_safetensors(path, path.with_suffix(".json"))
        loaded = replace(loaded, card=replace(loaded.card, revision=revision))
        note = f"from {revision}"
    elif Path(model).suffix == ".safetensors":
        path = Path(model).expanduser()
        loaded = _read_safetensors(path, path.with_suffix(".json"))
        note = f"from {path}"
    elif Path(model).suffix == ".pt":
        path = Path(model).expanduser()
        loaded = _read_published_layout(path, _card_of_stranger(path))
        note = f"from {path}, read with the published card"
    else:
        raise ValueError(f"model={str(model)!r} is not known. Give {ALLOWED}.")
    logger.info("Model %s: %s (sha256 %s...).", loaded.card.name, note, (loaded.card.sha256 or "")[:8])
    return loaded


def save(model: Model | UNet, card: Card, path: str | Path, *, half: bool = False) -> Card:
    """Write a model as safetensors, with its card as JSON beside it.

    Parameters
    ----------
    model
        The network, or a model whose network is written.
    card
        Its card. ``sha256`` is filled in.
    path
        ``<name>.safetensors``. The card becomes ``<name>.json`` in the same folder.
    half
        Round the weights of convolutions to 16 bits: a file of half the size. A model is float32 once loaded.

    Returns
    -------
    The card as written. ``load(path)`` gives back the model.

    Raises
    ------
    ValueError
        If ``path`` has another ending, or the card tells of another architecture than the network's.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are written to a path that ends in .safetensors; {str(path)!r} does not.")
    network = model.network if isinstance(model, Model) else model
    told, built = (tuple(getattr(x, k) for k in _ARCHITECTURE) for x in (card, network))
    if told != built:
        raise ValueError(f"The card says {', '.join(_ARCHITECTURE)} = {told}, the network has {built}.")
    tensors = {
        key: (value.half() if half and value.ndim == 4 else value).detach().cpu().contiguous()
        for key, value in network.state_dict().items()
    }
    data = safetensors.torch.save(tensors)
    card = replace(card, sha256=hashlib.sha256(data).hexdigest())
    with replacing(path, path.with_suffix(".json")) as (weights, description):
        weights.write_bytes(data)
        description.write_text(card.to_json(), encoding="utf-8")
    return card


def _read_safetensors(weights: Traversable, description: Traversable) -> Model:
    for path in (weights, description):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist. A model is two files in one folder, <name>.safetensors with the weights "
                f"and <name>.json with the card; nimbus_sd.models.save writes both."
            )
    card = Card.from_json(description.read_bytes(), where=str(description))
    data = weights.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if card.sha256 is None:
        logger.warning("%s names no sha256 of its weights: damage to them would go unseen.", description)
    if card.sha256 is not None and found != card.sha256:
        raise ValueError(f"{weights} is not the file of its card: sha256 is {found}, the card says {card.sha256}.")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a readable safetensors file ({error}).") from error
    return _assemble(tensors, replace(card, sha256=found), str(weights))


def _read_published_layout(path: Path, base: Card) -> Model:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Give {ALLOWED}.")
    data = path.read_bytes()
    tensors = _tensors(read_archive(data, str(path)), str(path))
    root_filters, depth, patch = _architecture(tensors, str(path))
    sha256 = hashlib.sha256(data).hexdigest()
    card = replace(base, root_filters=root_filters, depth=depth, patch=patch, sha256=sha256)
    return _assemble(tensors, card, str(path))


def _card_of_stranger(path: Path) -> Card:
    """Return the published card for a file of unknown origin: same input, no claims on quality and license."""
    return replace(
        PUBLISHED,
        name=path.stem,
        license="not stated",
        description="Weights in the layout of the published Nimbus model.",
        trained_on="not stated",
        source=path.name,
        figures={},
    )


def _tensors(content: Any, where: str) -> Mapping[str, Tensor]:
    """Check that a file held a plain dictionary of dense tensors."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} holds a {type(content).__name__}; it must be a state dict, tensors by name.")
    for key, value in content.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(key, str) or not dense:
            raise ValueError(f"{where} must be a state dict, tensors by name; its entry {key!r} is not one.")
    return content


def _architecture(tensors: Mapping[str, Tensor], where: str) -> tuple[int, int, int]:
    try:
        return architecture(tensors)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _assemble(tensors: Mapping[str, Tensor], card: Card, where: str) -> Model:
    found = _architecture(tensors, where)
    told = (card.root_filters, card.depth, card.patch)
    if found != told:
        raise ValueError(f"{where} has (root_filters, depth, patch) = {found}; its card says {told}.")
    full = {}
    for key, given in tensors.items():
        # Only the count of batches, which nothing uses, is of integers.
        if given.dtype not in _FLOATS and not (given.dtype == torch.int64 and key.endswith("num_batches_tracked")):
            raise ValueError(f"{where}: {key!r} is of {given.dtype}; weights must be of one of {_FLOATS}.")
        full[key] = value = given.float() if given.is_floating_point() else given
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{where}: {key!r} holds values that are not finite as float32.")
        if key.endswith("running_var") and bool((value < 0).any()):
            raise ValueError(f"{where}: {key!r} holds negative variances.")
    # Random weights, only to be overwritten, would take as long as reading those of a file.
    with torch.device("meta"):
        network = UNet(card.root_filters, card.depth, card.padding, card.patch)
    network.load_state_dict(full, strict=True, assign=True)
    return Model(card=card, network=network.eval())
