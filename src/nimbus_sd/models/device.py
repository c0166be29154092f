"""What the machine has: devices, bfloat16, and how its faults and its rounding are told."""

from contextlib import AbstractContextManager, nullcontext

import torch


def find_device(device: str | torch.device) -> torch.device:
    """Choose a device: for ``"auto"`` CUDA, else MPS, else the CPU.

    Raises
    ------
    ValueError
        It is not known, or not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    there = [kind for kind in available if available[kind]]
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not known. Give 'auto' or one of {there}.") from error
    count = {"cuda": torch.cuda.device_count()}.get(chosen.type, 1)
    if chosen.type not in there or (chosen.index or 0) >= count:
        raise ValueError(f"device={str(device)!r} is not there. Give 'auto' or one of {there}.")
    return chosen


def cpu_has_bfloat16() -> bool:
    """Tell whether this processor has instructions for matrix products in bfloat16."""
    if hasattr(torch.cpu, "get_capabilities"):
        features = torch.cpu.get_capabilities()
        return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error, which is of a class of its own for CUDA only, says that memory is full."""
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(sign in str(error).lower() for sign in signs)


def reproducible(device: torch.device) -> AbstractContextManager[None]:
    """Make cuDNN give the same bytes each time, and no TensorFloat-32, whose scores differ in the third digit."""
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags
