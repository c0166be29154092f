"""What the machine has: devices, their memory and copies to and from it, bfloat16, faults, rounding."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# In bytes. On a CPU, tensors above 32 MiB are slower, as the allocator returns them to the system each time.
MEMORY_BUDGET = 2**30
MEMORY_BUDGET_CPU = 2**27
# Of all memory of a CUDA device, not of what is free: the same call makes the same batches, hence the same last digits.
MEMORY_SHARE = 1 / 8

# A forked child has none of its parent's OpenMP threads, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a device's memory was too small; PyTorch has a class of errors for CUDA only."""
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(sign in str(error).lower() for sign in signs)


def reproducible(device: torch.device) -> AbstractContextManager[None]:
    """Make cuDNN give the same bytes each time, and no TensorFloat-32, whose scores differ in the third digit."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
