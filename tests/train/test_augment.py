"""Augmentation: what belongs together moves together, and what comes from outside is not learned from."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from nimbus_sd.train import Augmentation
from nimbus_sd.train.augment import Augment
from nimbus_sd.train.objective import known_cells, masked_loss
from nimbus_sd.train.tiles import StoredBatch

EXACT = Augmentation(0, 0, 0, 0, 0, 0, 0)
SIDE = 48


def blocks(n: int = 6) -> StoredBatch:
    """Tiles of large square cells, whose brightness tells which cell a pixel is of."""
    squares = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((16, 16), np.int64))
    cells = np.stack([squares + 9 * tile for tile in range(n)])
    inputs = np.stack([cells / 100, cells % 2 == 0], axis=1).astype(np.float32)
    labels = np.arange(9 * n + 1) % 3 / 2
    labels[0] = np.nan
    return StoredBatch(
        inputs=torch.from_numpy(inputs),
        cells=torch.from_numpy(cells),
        labels=torch.from_numpy(labels).float(),
        tile=torch.from_numpy(np.repeat(np.arange(n), 9)),
        inside=torch.ones(n, SIDE, SIDE, dtype=torch.bool),
        stratum=torch.zeros(n, dtype=torch.long),
        rows=torch.zeros(9 * n + 1, dtype=torch.long),
        trusted=torch.zeros(9 * n + 1, dtype=torch.bool),
    )


def shown(strength: Augmentation, step: int = 0, seed: int = 0) -> StoredBatch:
    return Augment(strength, seed)(blocks(), step)


@pytest.mark.parametrize(
    "strength",
    [
        EXACT,
        Augmentation(3, 0, 0, 0, 0, 0, 0),
        Augmentation(0, 180, 0, 0, 0, 0, 0),
        Augmentation(0, 0, 0.3, 0, 0, 0, 0),
        Augmentation(2, 180, 0.2, 0, 0, 0, 0),
    ],
    ids=["squares", "elastic", "rotation", "scale", "all"],
)
def test_image_interior_and_cells_move_together(strength):
    batch = shown(strength)
    changed = 0
    for tile in range(len(batch.inputs)):
        cells, image = batch.cells[tile].numpy(), batch.inputs[tile, 0].numpy()
        # Within two pixels of a cell's edge, bilinear values mix two cells.
        pure = ndimage.minimum_filter(cells, 5, mode="nearest") == ndimage.maximum_filter(cells, 5, mode="nearest")
        pure &= batch.inside[tile].numpy()
        pure[[0, 1, -1, -2]], pure[:, [0, 1, -1, -2]] = False, False
        assert pure.any()
        np.testing.assert_allclose(image[pure], cells[pure] / 100, atol=1e-3)
        np.testing.assert_array_equal(batch.inputs[tile, 1].numpy()[pure], cells[pure] % 2 == 0)
        assert set(np.unique(cells)) <= {0, *range(9 * tile + 1, 9 * tile + 10)}
        changed += not np.array_equal(cells, blocks().cells[tile])
    assert changed >= 3


def test_squares_are_exact_and_all_eight_are_drawn():
    seen = set()
    for step in range(12):
        batch = shown(EXACT, step)
        assert batch.inside.all()
        torch.testing.assert_close(batch.inputs[:, 0], batch.cells / 100)
        seen |= {(tile - tile.min()).numpy().tobytes() for tile in batch.cells}
    assert len(seen) == 8


def test_what_comes_from_outside_is_no_background():
    batch = shown(Augmentation(0, 180, 0.3, 0, 0, 0, 0))
    outside = ~batch.inside
    assert outside.any() and not batch.cells[outside].any() and not batch.inputs[:, 1][outside].any()
    logits = torch.zeros(len(batch.inputs), 1, SIDE, SIDE, requires_grad=True)
    masked_loss(logits, batch, known_cells(batch), "background").backward()
    assert not logits.grad[outside[:, None]].any() and logits.grad.any()


def test_looks_change_the_image_alone():
    strength = Augmentation(0, 0, 0, contrast=0.3, brightness=0.1, noise=0.3, blur=1)
    batch, plain = shown(strength), shown(EXACT)
    torch.testing.assert_close(batch.cells, plain.cells)
    torch.testing.assert_close(batch.inputs[:, 1], plain.inputs[:, 1])
    assert (batch.inputs[:, 0] - plain.inputs[:, 0]).abs().max() > 0.1
    assert batch.inputs[:, 0].min() >= 0 and batch.inputs[:, 0].max() <= 1


def test_elastic_shifts_have_the_strength_asked_for():
    """Of an image of its own coordinates: how far pixels came."""
    batch = blocks(40)
    ramp = torch.arange(SIDE) / SIDE
    batch.inputs[:, 0] = ramp
    found = []
    for strength in (1.0, 2.0):
        moved = Augment(Augmentation(strength, 0, 0, 0, 0, 0, 0), 0)(batch, 0)
        still = Augment(EXACT, 0)(batch, 0)
        middle = np.s_[:, 0, 12:-12, 12:-12]
        shift = (moved.inputs[middle] - still.inputs[middle]).abs().amax((1, 2)) * SIDE
        found.append(float(shift[shift > 0.05].mean()))
    # Largest of a small tile, for a typical shift of 1 and 2 pixels along one axis of two.
    assert 0.4 < found[0] < 4 and 1.5 < found[1] / found[0] < 2.5


def test_draws_follow_seed_and_step_and_leave_the_callers_alone():
    strength = Augmentation()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = shown(strength).inputs
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(shown(strength).inputs, first, rtol=0, atol=0)
    assert not torch.equal(shown(strength, step=1).inputs, first)
    assert not torch.equal(shown(strength, seed=1).inputs, first)


@pytest.mark.parametrize("settings", [{"noise": -1}, {"scale": 1.0}, {"rotation": 200}])
def test_wrong_strengths_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is .* from 0 to"):
        Augmentation(**settings)
