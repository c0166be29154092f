"""Scoring arrays: images in, confidence maps out, on the device that there is."""

import copy
import os
import sys
import warnings
from contextlib import nullcontext
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nimbus_sd.models.unet import Block, UNet
from nimbus_sd.models.zoo import Model

Precision = Literal["float32", "bfloat16"]

# Measured at the peak of a forward pass: float32 values alive per pixel and root filter.
ALIVE_VALUES = 10
# In bytes. On a CPU, tensors above 32 MiB are slower, as the allocator returns them to the system each time.
MEMORY_BUDGET, MEMORY_BUDGET_CPU = 2**30, 2**27
# Of all memory of a CUDA device, not of what is free: the same call makes the same batches, hence the same last digits.
MEMORY_SHARE = 1 / 8
#: Ways to lay a square on itself: quarter turns, and whether to flip then. The first is the image as it is; the first
#: four keep height and width.
VIEWS = tuple((turns, flipped) for turns in (0, 2, 1, 3) for flipped in (False, True))

# A forked child has none of its parent's OpenMP threads, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class Scorer:
    """A model made ready to score images.

    Parameters
    ----------
    model
        From :func:`~nimbus_sd.models.load`. It is copied, not changed.
    device
        ``"auto"`` (CUDA, else MPS, else CPU) or what :class:`torch.device` takes, e.g. ``"cuda:1"``.
    precision
        ``"float32"`` or ``"bfloat16"``, which is faster where the hardware supports it (elsewhere it warns) and rounds
        scores to about 0.01. ``"auto"`` is ``"float32"``.
    tta
        Average the eight views of an image (flips, quarter turns). None follows the model's card.
    batch_size
        How many images, i.e. channels x views, pass the network at once. None takes as many as fit in about an
        eighth of a CUDA device's memory, in 1 GiB on MPS, in 128 MiB on a CPU, where larger batches are slower.
        Scores do not depend on it. A batch for which the device's memory is too small is halved, with a warning.

    Examples
    --------
    >>> import numpy as np
    >>> from nimbus_sd.models import load
    >>> scorer = Scorer(load("compact"), device="cpu")
    >>> image, interior = np.zeros((3, 64, 96), np.float32), np.zeros((64, 96), bool)
    >>> scorer(image, interior).shape
    (3, 64, 96)
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device = "auto",
        precision: Literal["auto"] | Precision = "auto",
        tta: bool | None = None,
        batch_size: int | None = None,
    ) -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision={precision!r}: give 'auto', 'float32' or 'bfloat16'.")
        if tta is not None and not isinstance(tta, bool | np.bool_):
            raise ValueError(f"tta={tta!r}: give True, False, or None.")
        if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size >= 1):
            raise ValueError(f"batch_size={batch_size!r}: give a whole number of at least 1, or None.")
        self.card, self.device = model.card, find_device(device)
        self.precision: Precision = "float32" if precision == "auto" else precision
        self.tta = model.card.tta if tta is None else bool(tta)
        self.batch_size = None if batch_size is None else int(batch_size)
        # Lowered where the device runs out of memory.
        self._most = sys.maxsize
        if self.precision == "bfloat16" and self.device.type == "cpu" and not cpu_has_bfloat16():
            slow = "This processor emulates bfloat16, which is many times slower than float32. Use precision='float32'."
            warnings.warn(slow, UserWarning, stacklevel=2)
        self._network = _fold(model.network).to(self.device, getattr(torch, self.precision))
        # The logits decide on the last digits of a score, so the last layer keeps its full precision.
        self._network.final_conv.float().register_forward_pre_hook(_to_float32)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.float32], interior: NDArray[Any]) -> NDArray[np.float32]:
        """Score every pixel of every channel.

        Parameters
        ----------
        images
            (C, h, w) float32: the normalised channels, in [0, 1], at the model's pixel size. h and w are
            multiples of the card's stride and at least two strides.
        interior
            (h, w) bool or float32: where a cell's interior is.

        Returns
        -------
        (C, h, w) float32: confidence in [0, 1] that a pixel belongs to a cell that is positive.
        """
        if images.dtype != np.float32 or images.ndim != 3:
            raise ValueError(f"images must be float32 (C, h, w); they are {images.dtype} {images.shape}.")
        if interior.dtype not in (np.bool_, np.float32) or interior.shape != images.shape[1:]:
            wanted = f"bool or float32 {images.shape[1:]}, like the images"
            raise ValueError(f"interior must be {wanted}; it is {interior.dtype} {interior.shape}.")
        channels, mask = to_device(images, self.device), to_device(interior, self.device)
        views = VIEWS if self.tta else VIEWS[:1]
        scores = torch.zeros_like(channels)
        image_bytes = 4 * ALIVE_VALUES * self.card.root_filters * mask.numel() // self.card.patch**2
        size = self.batch_size or max(1, memory_budget(self.device) // max(1, image_bytes))
        square = channels.shape[1] == channels.shape[2]
        for alike in [views] if square else [views[:4], views[4:]]:
            jobs = [(channel, view) for channel in range(len(channels)) for view in alike]
            while jobs:
                batch = jobs[: min(size, self._most)]
                if (confidence := self._attempt(channels, mask, batch)) is None:
                    self._halve(len(batch), mask.shape)
                    continue
                for (channel, (turns, flipped)), score in zip(batch, confidence, strict=True):
                    # A view that is flipped undoes itself.
                    scores[channel] += turn(score, turns if flipped else -turns, flipped)
                jobs = jobs[len(batch) :]
        return to_host(scores / len(views))

    def _attempt(self, channels: Tensor, mask: Tensor, batch: list[tuple[int, tuple[int, bool]]]) -> Tensor | None:
        """Score views of channels, (B, h, w); None where the device's memory is too small for so many at once."""
        # The same bytes each time, and no TensorFloat-32, whose scores differ in the third digit.
        exact = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
        try:
            inputs = torch.stack([turn(torch.stack([channels[i], mask]), *view) for i, view in batch])
            # Convolutions are faster with the channels of a pixel side by side; the layout stays through the network.
            inputs = inputs.to(getattr(torch, self.precision), memory_format=torch.channels_last)
            with torch.backends.cudnn.flags(**exact) if self.device.type == "cuda" else nullcontext():
                logits: Tensor = self._network(inputs)
            return torch.sigmoid(logits[:, 0])
        except RuntimeError as error:
            # PyTorch has a class of errors for CUDA only.
            signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
            if isinstance(error, torch.cuda.OutOfMemoryError) or any(sign in str(error).lower() for sign in signs):
                return None
            raise

    def _halve(self, size: int, shape: tuple[int, ...]) -> None:
        """Let half as many images pass the network at once, from now on; say so the first time."""
        memory = f"the memory of {str(self.device)!r}"
        if size == 1:
            image = f"An image of {shape[0]} x {shape[1]} pixels"
            advice = "Pass a smaller `tile_size`, or another `device`."
            raise MemoryError(f"{image} does not fit into {memory} together with what is there already. {advice}")
        if self._most == sys.maxsize:
            advice = "Pass a smaller `batch_size` to have it right from the start."
            text = f"{size} images at once are too many for {memory}; it goes on with half as many. {advice}"
            warnings.warn(text, UserWarning, stacklevel=4)
        self._most = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def turn(x: Tensor, quarter_turns: int, flipped: bool) -> Tensor:
    """Turn, then flip the last two axes."""
    x = torch.rot90(x, quarter_turns, (-2, -1))
    return x.flip(-1) if flipped else x


def _fold(network: UNet) -> UNet:
    """Copy a network with each BatchNorm merged into the convolution before it."""
    network = copy.deepcopy(network).eval().cpu()
    for block in [module for module in network.modules() if isinstance(module, Block)]:
        for number in (1, 2):
            conv, bn = getattr(block, f"conv2d_{number}"), getattr(block, f"bn_{number}")
            # In double precision, so that scores are those of the network as it was.
            setattr(block, f"conv2d_{number}", fuse_conv_bn_eval(conv.double(), bn.double()).float())
            setattr(block, f"bn_{number}", nn.Identity())
    return network.requires_grad_(False)


def _to_float32(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].float()


def find_device(device: str | torch.device) -> torch.device:
    """Choose a device: for ``"auto"`` CUDA, else MPS, else the CPU."""
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    available = [kind for kind, count in counts.items() if count]
    try:
        chosen = torch.device(available[0] if device == "auto" else device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not known. Give 'auto' or one of {available}.") from error
    if (chosen.index or 0) >= counts.get(chosen.type, 0):
        raise ValueError(f"device={str(device)!r} is not there. Give 'auto' or one of {available}.")
    return chosen


def cpu_has_bfloat16() -> bool:
    """Tell whether this processor has instructions for matrix products in bfloat16."""
    if hasattr(torch.cpu, "get_capabilities"):
        features = torch.cpu.get_capabilities()
        return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")


def memory_budget(device: torch.device) -> int:
    """Return the bytes that a batch should take in a device's memory."""
    if device.type == "cuda":
        return int(MEMORY_SHARE * torch.cuda.mem_get_info(device)[1])
    return MEMORY_BUDGET_CPU if device.type == "cpu" else MEMORY_BUDGET


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device, as float32; to CUDA from pinned memory, while the caller goes on."""
    pinned = device.type == "cuda"
    host = torch.empty(array.shape, dtype=torch.float32, pin_memory=pinned)
    host.numpy()[...] = array
    return host.to(device, non_blocking=pinned)


def to_host(tensor: Tensor) -> NDArray[np.float32]:
    """Wait for a tensor and copy it from its device; from CUDA into pinned memory."""
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host.numpy()
