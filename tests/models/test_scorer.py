"""The scorer against a plain loop over views and channels."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch

from nimbus_sd.models import Scorer, load

SQUARE, WIDE = (24, 24), (16, 28)


def data(shape, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.random((channels, *shape), dtype=np.float32)
    return images, rng.random(shape) < 0.5


def plain(model, image, interior):
    """One channel, one view, the network as it was trained."""
    x = torch.from_numpy(np.stack([image, interior]).astype(np.float32))[None]
    with torch.inference_mode():
        return model.network(x).sigmoid()[0, 0].numpy()


# The same view of an array, and its inverse, in numpy: an independent spelling of the square's symmetry.
SYMMETRY = [
    (lambda a: a, lambda a: a),
    (np.fliplr, np.fliplr),
    (np.flipud, np.flipud),
    (lambda a: a[::-1, ::-1], lambda a: a[::-1, ::-1]),
    (np.transpose, np.transpose),
    (lambda a: np.rot90(a, 1), lambda a: np.rot90(a, 3)),
    (lambda a: np.rot90(a, 3), lambda a: np.rot90(a, 1)),
    (lambda a: np.rot90(a, 2).T, lambda a: np.rot90(a.T, 2)),
]


@pytest.mark.parametrize("views", [1, 8])
@pytest.mark.parametrize("shape", [SQUARE, WIDE])
def test_scores_are_the_mean_of_a_plain_loop(model, shape, views):
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
    # As on a worker of a cluster.
    assert np.array_equal(pickle.loads(pickle.dumps(scorer))(images, interior), scores)


def test_other_layouts_and_no_channel(model):
    images, interior = data(SQUARE, channels=4)
    scorer = Scorer(model, device="cpu")
    assert scorer.tta is model.card.tta is True
    expected = scorer(images[::2].copy(), interior)
    np.testing.assert_array_equal(scorer(images[::2], interior.astype(np.float32)), expected)
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(scorer(images, interior)[::2], expected)
    np.testing.assert_allclose(scorer(images[::2, ::-1], interior[::-1]), expected[:, ::-1], atol=1e-6)
    assert scorer(images[:0], interior).shape == (0, *SQUARE)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("shape", [SQUARE, WIDE])
def test_batch_size_and_other_channels_do_not_matter(model, shape, tta):
    images, interior = data(shape, channels=4)
    expected = Scorer(model, device="cpu", tta=tta)(images, interior)
    for batch_size in (1, 3, 100):
        scorer = Scorer(model, device="cpu", tta=tta, batch_size=batch_size)
        np.testing.assert_allclose(scorer(images, interior), expected, atol=1e-6)
        np.testing.assert_allclose(scorer(images[2:3], interior), expected[2:3], atol=1e-6)


def test_batch_fits_the_budget_without_changing_scores(model, monkeypatch):
    images, interior = data(SQUARE)
    seen = []
    scorer = Scorer(model, device="cpu")
    expected = scorer(images, interior)
    scorer._network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr("nimbus_sd.models.scorer.MEMORY_BUDGET_CPU", 5 * 24 * 24 * 4 * 4 * 10)
    np.testing.assert_allclose(scorer(images, interior), expected, atol=1e-6)
    assert seen == [5, 5, 5, 5, 4]
    monkeypatch.setattr("nimbus_sd.models.scorer.MEMORY_BUDGET_CPU", 1)
    seen.clear()
    scorer(images, interior)
    assert seen == [1] * 24


def test_bfloat16_is_close_and_warns_where_it_is_emulated(model, monkeypatch):
    images, interior = data(SQUARE)
    expected = Scorer(model, device="cpu")(images, interior)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = Scorer(model, device="cpu", precision="bfloat16")(images, interior)
    assert scores.dtype == np.float32
    assert not np.array_equal(scores, expected)
    np.testing.assert_allclose(scores, expected, atol=0.01)

    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_f": True}, raising=False)
    with pytest.warns(UserWarning, match="emulates bfloat16"):
        Scorer(model, device="cpu", precision="bfloat16")


def test_reference_instance_folded(reference):
    io = np.load(reference / "unet_root8_io.npz")
    scorer = Scorer(load(reference / "unet_root8_random.pt"), device="cpu", tta=False)
    for (image, interior), expected in zip(io["input"], io["output"][:, 0], strict=True):
        difference = np.abs(scorer(image[None], interior)[0] - expected)
        # See test_unet: the reference itself is 2.3e-5 from float64.
        assert difference.max() < 6e-5 and difference.mean() < 1e-6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu(model):
    images, interior = data(WIDE)
    expected = Scorer(model, device="cpu")(images, interior)
    scorer = Scorer(model, device="cuda")
    np.testing.assert_allclose(scorer(images, interior), expected, atol=1e-5)
    assert np.array_equal(scorer(images, interior), scorer(images, interior))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "abacus"}, "device='abacus' is not known.*'auto'"),
        ({"device": "meta"}, "device='meta' is not there.*'cpu'"),
        ({"device": "cuda:99"}, "device='cuda:99' is not there"),
        ({"precision": "float16"}, "precision='float16'"),
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
        (np.zeros((1, 8, 10), np.float32), np.zeros((8, 10), bool), "multiples of 4 and at least 8"),
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


def limited(model, error, most, **settings):
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
def test_a_batch_that_does_not_fit_is_halved_and_that_is_said_once(model, error, shape):
    images, interior = data(shape)
    expected = Scorer(model, device="cpu")(images, interior)
    scorer, sizes = limited(model, error, 5)
    with pytest.warns(UserWarning, match="images at once are too many for .* 'cpu'; it goes on with half") as said:
        scores = scorer(images, interior)
    assert len(said) == 1
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert sizes[:4] == ([24, 12, 6, 3] if shape == SQUARE else [12, 6, 3, 3])
    # It has learnt.
    sizes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(scorer(images, interior), scores)
    assert max(sizes) <= 5


def test_an_image_that_does_not_fit_alone_is_an_error_that_says_what_to_do(model):
    scorer, sizes = limited(model, MEMORY_ERRORS[0], 0, batch_size=2)
    images, interior = data(SQUARE)
    with (
        pytest.warns(UserWarning, match="half as many"),
        pytest.raises(MemoryError, match=r"An image of 24 x 24 pixels does not fit .* Pass a smaller `tile_size`"),
    ):
        scorer(images, interior)
    assert sizes == [2, 1]
    scorer, sizes = limited(model, RuntimeError("expected 2 channels"), 0)
    with pytest.raises(RuntimeError, match="expected 2 channels"):
        scorer(images, interior)
    assert len(sizes) == 1
