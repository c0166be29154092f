"""The scorer against a plain loop over views and channels, and what it does with a device's memory."""

import contextlib
import copy
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from nimbus_sd.models import Scorer, scorer

SQUARE, WIDE = (24, 24), (16, 28)
CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def data(shape, channels=3):
    rng = np.random.default_rng(0)
    return rng.random((channels, *shape), dtype=np.float32), rng.random(shape) < 0.5


def plain(model, image, interior):
    """One channel, one view, the network as it was trained."""
    x = torch.from_numpy(np.stack([image, interior]).astype(np.float32))[None]
    with torch.inference_mode():
        return model.network(x).sigmoid()[0, 0].numpy()


# The same view of an array, and its inverse, in numpy: an independent spelling of the square's symmetry.
SYMMETRY = [
    (lambda a: a, lambda a: a),
    *((own, own) for own in (np.fliplr, np.flipud, lambda a: a[::-1, ::-1], np.transpose)),
    (lambda a: np.rot90(a, 1), lambda a: np.rot90(a, 3)),
    (lambda a: np.rot90(a, 3), lambda a: np.rot90(a, 1)),
    (lambda a: np.rot90(a, 2).T, lambda a: np.rot90(a.T, 2)),
]


@pytest.mark.parametrize("views", [1, 8])
@pytest.mark.parametrize("shape", [SQUARE, WIDE])
def test_scores_are_the_mean_of_a_plain_loop_whatever_the_batches(model, shape, views):
    images, interior = data(shape)
    scorer = Scorer(model, device="cpu", tta=views == 8)
    before = copy.deepcopy(model.network.state_dict())
    scores = scorer(images, interior)
    assert scores.dtype == np.float32 and scores.shape == images.shape and np.ptp(scores) > 0.01
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    for image, score in zip(images, scores, strict=True):
        expected = [undo(plain(model, of(image), of(interior))) for of, undo in SYMMETRY[:views]]
        np.testing.assert_allclose(score, np.mean(expected, axis=0), atol=1e-5)
    assert np.array_equal(scorer(images, interior), scores)
    assert np.array_equal(pickle.loads(pickle.dumps(scorer))(images, interior), scores)
    for batch_size in (1, 3, 100):
        other = Scorer(model, device="cpu", tta=views == 8, batch_size=batch_size)
        np.testing.assert_allclose(other(images, interior), scores, atol=1e-6)
        np.testing.assert_allclose(other(images[2:3], interior), scores[2:3], atol=1e-6)


def test_other_layouts_and_no_channel(model, no_warning):
    images, interior = data(SQUARE, channels=4)
    scorer = Scorer(model, device="cpu")
    assert scorer.tta is model.card.tta is True
    expected = scorer(images[::2].copy(), interior)
    np.testing.assert_array_equal(scorer(images[::2], interior.astype(np.float32)), expected)
    images.flags.writeable = False
    np.testing.assert_array_equal(scorer(images, interior)[::2], expected)
    np.testing.assert_allclose(scorer(images[::2, ::-1], interior[::-1]), expected[:, ::-1], atol=1e-6)
    assert scorer(images[:0], interior).shape == (0, *SQUARE)


@pytest.mark.parametrize(("budget", "batches"), [(5 * 24 * 24 * 4 * 4 * 10, [5, 5, 5, 5, 4]), (1, [1] * 24)])
def test_batch_fits_the_budget_without_changing_scores(model, monkeypatch, budget, batches):
    images, interior = data(SQUARE)
    limited, sizes = with_memory_for(model, None, 100)
    expected = limited(images, interior)
    sizes.clear()
    monkeypatch.setattr(scorer, "MEMORY_BUDGET_CPU", budget)
    np.testing.assert_allclose(limited(images, interior), expected, atol=1e-6)
    assert sizes == batches


def test_a_batch_takes_a_share_of_the_memory_that_a_card_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, {CUDA: 80 * 2**30}[device]))
    assert scorer.memory_budget(CUDA) == 10 * 2**30
    assert scorer.memory_budget(CPU) < scorer.memory_budget(MPS) < scorer.memory_budget(CUDA)


def test_bfloat16_is_close_and_warns_where_it_is_emulated(model, monkeypatch, no_warning):
    images, interior = data(SQUARE)
    expected = Scorer(model, device="cpu")(images, interior)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    scores = Scorer(model, device="cpu", precision="bfloat16")(images, interior)
    assert scores.dtype == np.float32 and not np.array_equal(scores, expected)
    # A random network's logits spread further than a trained one's.
    np.testing.assert_allclose(scores, expected, atol=0.02)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_f": True}, raising=False)
    with pytest.warns(UserWarning, match="emulates bfloat16"):
        Scorer(model, device="cpu", precision="bfloat16")


@needs_cuda
def test_cuda_agrees_with_cpu(model):
    images, interior = data(WIDE)
    expected, on_cuda = Scorer(model, device="cpu")(images, interior), Scorer(model, device="cuda")
    np.testing.assert_allclose(on_cuda(images, interior), expected, atol=1e-5)
    assert np.array_equal(on_cuda(images, interior), on_cuda(images, interior))
    np.testing.assert_array_equal(scorer.to_host(scorer.to_device(images, CUDA) + 1), images + 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "abacus"}, "device='abacus' is not known.*'auto'"),
        ({"device": "meta"}, "device='meta' is not there.*'cpu'"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"tta": 8}, "tta=8"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_other_parameters_are_refused(model, wrong, message):
    with pytest.raises(ValueError, match=message):
        Scorer(model, **wrong)


@pytest.mark.parametrize(
    ("images", "interior", "message"),
    [
        (np.zeros((1, 8, 8)), np.zeros((8, 8), bool), "images must be float32"),
        (np.zeros((1, 8, 8), np.float32), np.zeros((8, 12), bool), r"interior must be .*\(8, 8\)"),
        (np.zeros((1, 8, 8), np.float32), np.zeros((8, 8), int), "interior must be bool or float32"),
    ],
)
def test_other_arrays_are_refused(model, images, interior, message):
    with pytest.raises(ValueError, match=message):
        Scorer(model, device="cpu")(images, interior)


MEMORY_ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, max allowed: 9 GB)."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
]


def with_memory_for(model, error, most, **settings):
    """Make a scorer on whose device no more than so many images find room."""
    scorer, sizes = Scorer(model, device="cpu", **settings), []

    def allocate(_, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > most:
            raise error

    scorer._network.register_forward_pre_hook(allocate)
    return scorer, sizes


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=str)
@pytest.mark.parametrize("shape", [SQUARE, WIDE])
def test_a_batch_that_does_not_fit_is_halved_and_that_is_said_once(model, error, shape, no_warning):
    images, interior = data(shape)
    expected = Scorer(model, device="cpu")(images, interior)
    scorer, sizes = with_memory_for(model, error, 5)
    with pytest.warns(UserWarning, match="images at once are too many for .* 'cpu'; it goes on with half") as said:
        scores = scorer(images, interior)
    assert len(said) == 1
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert sizes[:4] == ([24, 12, 6, 3] if shape == SQUARE else [12, 6, 3, 3])
    sizes.clear()
    np.testing.assert_array_equal(scorer(images, interior), scores)
    assert max(sizes) <= 5


@pytest.mark.filterwarnings("ignore:2 images at once are too many")
@pytest.mark.parametrize(
    ("error", "raised", "message", "attempts"),
    [
        (MEMORY_ERRORS[0], MemoryError, r"An image of 24 x 24 pixels does not fit .* smaller `tile_size`", [2, 1]),
        (RuntimeError("expected 2 channels"), RuntimeError, "expected 2 channels", [2]),
    ],
)
def test_an_image_that_does_not_fit_alone_and_other_errors(model, error, raised, message, attempts):
    scorer, sizes = with_memory_for(model, error, 0, batch_size=2)
    with pytest.raises(raised, match=message):
        scorer(*data(SQUARE))
    assert sizes == attempts


@pytest.mark.parametrize("array", [np.eye(6, dtype=np.float32)[::2, ::-1], np.eye(6, dtype=bool)], ids=str)
def test_copies_to_cuda_are_pinned_and_asynchronous_and_no_others(monkeypatch, array):
    copies, pinned, empty, to = [], [], torch.empty, torch.Tensor.to

    def allocate(*args, pin_memory=False, **kwargs):
        pinned.append(pin_memory)
        return empty(*args, **kwargs)

    def copy_to(self, device, non_blocking=False):
        copies.append((device.type, pinned[-1], non_blocking))
        return to(self, CPU)

    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(torch.Tensor, "to", copy_to)
    for device in (CUDA, CPU, MPS):
        tensor = scorer.to_device(array, device)
        assert tensor.dtype == torch.float32 and not np.shares_memory(tensor.numpy(), array)
        np.testing.assert_array_equal(tensor.numpy(), array)
    # Without pinned memory below it, a copy that nobody waits for could read what is overwritten already.
    assert copies == [("cuda", True, True), ("cpu", False, False), ("mps", False, False)]


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
