"""What a device's kind decides on, told without the device."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from nimbus_sd.models.scorer import memory_budget, to_device, to_host

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


def test_a_batch_takes_a_share_of_the_memory_that_a_card_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, {CUDA: 80 * 2**30}[device]))
    assert memory_budget(CUDA) == 10 * 2**30
    assert memory_budget(CPU) < memory_budget(MPS) < memory_budget(CUDA)


@pytest.fixture
def copies(monkeypatch):
    """Note of each copy whether its source is in pinned memory and whether it is waited for; all stays on the CPU."""
    noted, pinned = [], []
    empty, to = torch.empty, torch.Tensor.to

    def allocate(*args, pin_memory=False, **kwargs):
        pinned.append(pin_memory)
        return empty(*args, **kwargs)

    def copy(self, device, non_blocking=False):
        noted.append((device.type, pinned[-1], non_blocking))
        return to(self, CPU)

    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(torch.Tensor, "to", copy)
    return noted


@pytest.mark.parametrize(
    "array", [np.eye(6, dtype=np.float32)[::2, ::-1], np.eye(6, dtype=bool)], ids=["float", "bool"]
)
def test_copies_to_cuda_are_pinned_and_asynchronous_and_no_others(copies, array):
    array.flags.writeable = False
    for device in (CUDA, CPU, MPS):
        tensor = to_device(array, device)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert not np.shares_memory(tensor.numpy(), array)
    # Without pinned memory below it, a copy that nobody waits for could read what is overwritten already.
    assert copies == [("cuda", True, True), ("cpu", False, False), ("mps", False, False)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_there_and_back_on_cuda():
    array = np.random.default_rng(0).random((3, 200, 300), dtype=np.float32)
    np.testing.assert_array_equal(to_host(to_device(array, CUDA) + 1), array + 1)


FORKED = """
import os
import numpy as np, torch
from nimbus_sd.models import Scorer, load

torch.set_num_threads(2)
model = load("compact")
inputs = np.random.default_rng(0).random((2, 64, 64), np.float32), np.ones((64, 64), bool)
before = Scorer(model, device="cpu", tta=False)(*inputs)
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
np.testing.assert_allclose(Scorer(model, device="cpu", tta=False)(*inputs), before, rtol=0, atol=1e-5)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked")
def test_a_child_forked_after_scoring_scores_too():
    with subprocess.Popen([sys.executable, "-c", FORKED], start_new_session=True) as process:
        try:
            assert process.wait(timeout=300) == 0
        finally:
            # With a child that hangs.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
