"""The zoo: reading and writing models, i.e. weights together with their card."""

import hashlib
import io
import logging
import textwrap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from nimbus_sd._disk import replacing
from nimbus_sd.models import hub
from nimbus_sd.models.card import PUBLISHED, WEIGHTS, Card
from nimbus_sd.models.unet import ARCHITECTURE, IN_CHANNELS, MAX_DEPTH, Padding, UNet

ALLOWED = (
    "'compact' (bundled), 'nimbus' (published, from the hub), a path to .safetensors with a .json card beside it, "
    "'hf:<owner>/<repository>' (shared on the hub), or a path to a .pt in the layout of the published weights"
)

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# In a zip archive's entry.
_FOLDER = 0x10

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
        - ``"hf:<owner>/<repository>[@<revision>]"``: a model that somebody shared with :func:`push`.
        - a path to ``<name>.pt``, a bare state dict in the layout of the published weights, as ``torch.save`` writes
          it since torch 1.6. It is read with the published card, its architecture taken from the shapes.
    update
        Look up the latest version on the hub; else the version found at the first call is used. Weights of the hub
        are compared with the sha256 that the hub stated, or that they had, at the first download.

    Returns
    -------
    The model on the CPU, in eval mode, float32.

    Raises
    ------
    ConnectionError
        For models of the hub, if the weights are not in the cache and it cannot be reached.

    Examples
    --------
    >>> model = load("compact")
    >>> model.card.pixel_size
    0.5
    """
    name, path = str(model), Path(model).expanduser()
    if update and name != "nimbus" and (not name.startswith(hub.PREFIX) or "@" in name):
        latest = "model='nimbus' and 'hf:<owner>/<repository>' without a revision"
        raise ValueError(f"update=True is for {latest}; it was {name!r}.")
    note = f"from {path}"
    if name == "compact":
        (path,) = WEIGHTS.glob("*.safetensors")
        loaded = _read_safetensors(path)
        note = "trained on real and simulated tissue, this is not the published Nimbus model"
    elif name == "nimbus":
        path, version = hub.fetch(update=update)
        loaded = _read_published_layout(path, replace(PUBLISHED, revision=version))
        note = f"the published Nimbus model, {version}"
    elif name.startswith(hub.PREFIX):
        path, version = hub.pull(name, update=update)
        loaded = _read_safetensors(path, revision=version)
        note = f"from {version}"
    elif path.suffix == ".safetensors":
        loaded = _read_safetensors(path)
    elif path.suffix == ".pt":
        # Same input as the published model's, without its claims on quality and license.
        unknown: dict[str, Any] = {"license": "not stated", "trained_on": "not stated", "figures": {}}
        description = "Weights in the layout of the published Nimbus model."
        card = replace(PUBLISHED, name=path.stem, description=description, source=path.name, **unknown)
        loaded = _read_published_layout(path, card)
        note += ", read with the published card"
    else:
        raise ValueError(f"model={name!r} is not known. Give {ALLOWED}.")
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
        ``<name>.safetensors``; the card becomes ``<name>.json`` in the same folder.
    half
        Round the weights of convolutions to 16 bits: a file of half the size. A model is float32 once loaded.

    Returns
    -------
    The card as written. ``load(path)`` gives back the model.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are written to a path that ends in .safetensors; {str(path)!r} does not.")
    network = model.network if isinstance(model, Model) else model
    _check_architecture(card, network, "The network")
    tensors = {
        key: (value.half() if half and value.ndim == 4 else value).detach().cpu().contiguous()
        for key, value in network.state_dict().items()
    }
    data = safetensors.torch.save(tensors)
    card = replace(card, sha256=hashlib.sha256(data).hexdigest())
    with replacing(path, path.with_suffix(".json")) as (weights, description):
        weights.write_bytes(data)
        card.write(description)
    return card


def read_archive(data: bytes, where: str) -> Any:
    """Read what ``torch.save`` wrote: checksums first, then tensors on the CPU and plain values, nothing else."""
    # Damaged and hostile files make zipfile and the unpickler raise almost anything.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # torch takes an entry that is marked as a folder for empty, whatever it holds.
            marked = (entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER)
            damaged = archive.testzip() or next(marked, None)
    except Exception as error:
        advice = "Older forms hold no checksums and are not read: load such a file with torch, and save it anew."
        raise ValueError(f"{where} is damaged or not a zip archive, as torch.save writes it. {advice}") from error
    if damaged:
        raise ValueError(f"{where} is damaged: {damaged!r} in it is not what was written. Get the file anew.")
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(f"{where} is damaged or holds more than tensors; it was not loaded.") from error


def _read_safetensors(path: Path, revision: str | None = None) -> Model:
    described = path.with_suffix(".json")
    if missing := [str(file) for file in (path, described) if not file.is_file()]:
        pair = "<name>.safetensors with the weights and <name>.json with the card"
        raise FileNotFoundError(f"{missing[0]} does not exist. A model is two files in one folder: {pair}.")
    card, data = Card.read(described), path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if card.sha256 is None:
        logger.warning("The card of %s names no sha256 of its weights: damage to them would go unseen.", path)
    elif sha256 != card.sha256:
        raise ValueError(f"{path} is not the file of its card: sha256 is {sha256}, the card says {card.sha256}.")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}).") from error
    network = _network(tensors, card.padding, path)
    _check_architecture(card, network, str(path))
    return Model(replace(card, sha256=sha256, revision=revision or card.revision), network)


def _read_published_layout(path: Path, card: Card) -> Model:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Give {ALLOWED}.")
    data = path.read_bytes()
    network = _network(read_archive(data, str(path)), card.padding, path)
    return Model(replace(card, **_architecture(network), sha256=hashlib.sha256(data).hexdigest()), network)


def _architecture(described: Card | UNet) -> dict[str, Any]:
    return {key: getattr(described, key) for key in ARCHITECTURE}


def _check_architecture(card: Card, network: UNet, what: str) -> None:
    """Raise a ValueError if a card describes another network."""
    stated, actual = _architecture(card), _architecture(network)
    if stated != actual:
        raise ValueError(f"{what} has {actual}; its card says {stated}.")


def _network(tensors: Any, padding: Padding, path: Path) -> UNet:
    """Build the network that these are the weights of, its architecture read off their shapes."""
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{path} holds a {type(tensors).__name__}; it must be a state dict, tensors by name.")
    for key, value in tensors.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(key, str) or not dense:
            raise ValueError(f"{path} must be a state dict, tensors by name; its entry {key!r} is not one.")
    levels = [f"contracting_layers.{2 * level}.conv2d_0.weight" for level in range(MAX_DEPTH)]
    if levels[0] not in tensors or tensors[levels[0]].ndim != 4:
        problem = f"{levels[0]!r} is missing or no 2-D convolution"
        raise ValueError(f"{path} holds no weights of a Nimbus network: {problem}.")
    root_filters, in_channels, *_ = tensors[levels[0]].shape
    depth, patch = 1 + sum(key in tensors for key in levels), isqrt(in_channels // IN_CHANNELS)
    weights = {}
    for key, given in tensors.items():
        # Only the count of batches, which nothing uses, is of integers.
        if given.dtype not in _FLOATS and not (given.dtype == torch.int64 and key.endswith("num_batches_tracked")):
            raise ValueError(f"{path}: {key!r} is of {given.dtype}; weights must be of one of {_FLOATS}.")
        weights[key] = value = given.float() if given.is_floating_point() else given
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {key!r} holds values that are not finite as float32.")
        if key.endswith("running_var") and bool((value < 0).any()):
            raise ValueError(f"{path}: {key!r} holds negative variances.")
    try:
        # Random weights, only to be overwritten, would take as long as reading those of a file.
        with torch.device("meta"):
            network = UNet(root_filters, depth, padding, patch)
        network.load_state_dict(weights, strict=True, assign=True)
    except (ValueError, RuntimeError) as error:
        reason = textwrap.shorten(str(error), 400)
        raise ValueError(f"{path} does not hold the weights of a Nimbus network: {reason}") from error
    return network.eval()
