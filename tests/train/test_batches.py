"""Batches: tiles in order, cells numbered through, and augmentation by which what belongs together moves together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_training import EXACT

from nimbus_sd.train import Augmentation
from nimbus_sd.train.batches import Augment, Batch, Order, collate, cut, read_batches, read_tile
from nimbus_sd.train.objective import labelled_cells, masked_loss

SIDE = 48


def test_every_tile_is_shown_once_before_one_is_shown_again():
    order = Order(10, 4, seed=0)
    shown = np.concatenate([order(step) for step in range(5)])
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10)) and list(shown[:10]) != list(shown[10:])
    shared = np.stack([order(3, rank, 2) for rank in range(2)], axis=1).ravel()
    np.testing.assert_array_equal(shared, order(3))
    assert not np.array_equal(Order(10, 4, seed=1)(0), order(0))


def tile_of(cells, labels, number: int) -> Batch:
    cells, n = torch.tensor([cells]), len(labels)
    inputs = torch.stack([torch.rand(cells.shape, generator=torch.Generator().manual_seed(number)), cells == 2], dim=1)
    tile, rows, trusted = torch.zeros(n).long(), torch.arange(n) + 10 * number, torch.arange(n) % 2 == 0
    return Batch(inputs, cells, torch.tensor(labels), tile, cells >= 0, torch.tensor([number]), rows, trusted)


def test_cells_are_numbered_through_the_batch():
    nan = float("nan")
    tiles = [
        tile_of([[0, 1], [2, 2]], [0.5, 1, 0.5], 1),
        # Cell 1 covers no pixel, and there is no cell at all in the third.
        tile_of([[2, 0], [3, 3]], [0.5, 0, 1, 0], 2),
        tile_of([[0, 0], [0, 0]], [0.5], 3),
        tile_of([[1, 1], [0, 0]], [0.5, nan], 4),
    ]
    batch = collate(tiles)
    assert batch.inputs.dtype == batch.labels.dtype == torch.float32 and batch.cells.dtype == torch.int64
    np.testing.assert_array_equal(batch.cells, [[[0, 1], [2, 2]], [[4, 0], [5, 5]], [[0, 0], [0, 0]], [[6, 6], [0, 0]]])
    np.testing.assert_array_equal(batch.labels, [0.5, 1, 0.5, 0, 1, 0, nan])
    np.testing.assert_array_equal(batch.tile, [0, 0, 0, 1, 1, 1, 3])
    np.testing.assert_array_equal(batch.rows[1:], [11, 12, 21, 22, 23, 41])
    np.testing.assert_array_equal(batch.trusted[1:], [False, True, False, True, False, False])
    np.testing.assert_array_equal(batch.stratum, [1, 2, 3, 4])
    np.testing.assert_array_equal(batch.inputs, torch.cat([tile.inputs for tile in tiles]))


def test_batches_are_read_in_order(store):
    batches = cut(store.tiles("train")[:5], 3)
    for tiles, batch in zip(batches, read_batches(store, batches), strict=True):
        for name, value in vars(collate([read_tile(store, *tile) for tile in tiles])).items():
            np.testing.assert_array_equal(getattr(batch, name), value, err_msg=name)
        assert len(batch.inputs) == len(tiles) and int(batch.cells.max()) == len(batch.labels) - 1


def blocks(n: int = 6) -> Batch:
    """Tiles of large square cells, whose brightness tells which cell a pixel is of."""
    squares = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((16, 16), np.int64))
    cells = torch.from_numpy(np.stack([squares + 9 * tile for tile in range(n)]))
    labels = torch.arange(9 * n + 1) % 3 / 2
    tile = torch.cat([torch.zeros(1).long(), torch.arange(n).repeat_interleave(9)])
    inputs, unused = torch.stack([cells / 100, cells % 2 == 0], dim=1), torch.zeros(9 * n + 1)
    return Batch(inputs, cells, labels, tile, cells > 0, torch.zeros(n).long(), unused.long(), unused.bool())


def shown(strength: Augmentation, step: int = 0, seed: int = 0) -> Batch:
    return Augment(strength, seed, SIDE)(blocks(), step)


@pytest.mark.parametrize("elastic, rotation, scale", [(3, 0, 0), (0, 180, 0), (0, 0, 0.3), (2, 180, 0.2)])
def test_image_interior_and_cells_move_together(elastic, rotation, scale):
    batch, changed = shown(replace(EXACT, elastic=elastic, rotation=rotation, scale=scale)), 0
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
    for batch in (batches := [shown(EXACT, step) for step in range(12)]):
        torch.testing.assert_close(batch.inputs[:, 0], batch.cells / 100)
    assert len({(tile - tile.min()).numpy().tobytes() for batch in batches for tile in batch.cells}) == 8


def test_what_comes_from_outside_is_not_learned_from():
    batch = shown(Augmentation(0, 180, 0.3, 0, 0, 0, 0))
    outside = ~batch.inside
    assert outside.any() and not batch.cells[outside].any() and not batch.inputs[:, 1][outside].any()
    logits = torch.zeros(len(batch.inputs), 1, SIDE, SIDE, requires_grad=True)
    masked_loss(logits, batch, labelled_cells(batch), "background").backward()
    assert not logits.grad[outside[:, None]].any() and logits.grad.any()


def test_looks_change_the_image_alone():
    batch, plain = shown(replace(EXACT, contrast=0.3, brightness=0.1, noise=0.3, blur=1)), shown(EXACT)
    torch.testing.assert_close(batch.cells, plain.cells)
    torch.testing.assert_close(batch.inputs[:, 1], plain.inputs[:, 1])
    assert (batch.inputs[:, 0] - plain.inputs[:, 0]).abs().max() > 0.1
    assert batch.inputs[:, 0].min() >= 0 and batch.inputs[:, 0].max() <= 1


def test_elastic_shifts_have_the_strength_asked_for():
    """Of an image of its own coordinates: how far pixels came."""
    batch, middle, shifts = blocks(40), np.s_[:, 0, 12:-12, 12:-12], []
    batch.inputs[:, 0] = torch.arange(SIDE) / SIDE
    for strength in (1.0, 2.0):
        moved, still = (Augment(Augmentation(by, 0, 0, 0, 0, 0, 0), 0, SIDE)(batch, 0).inputs for by in (strength, 0))
        shift = (moved[middle] - still[middle]).abs().amax((1, 2)) * SIDE
        shifts.append(float(shift[shift > 0.05].mean()))
    # Largest of a small tile, for a typical shift of 1 and 2 pixels along one axis of two.
    assert 0.4 < shifts[0] < 4 and 1.5 < shifts[1] / shifts[0] < 2.5


def test_draws_follow_seed_and_step_and_leave_the_callers_alone():
    torch.manual_seed(5)
    before, first = torch.get_rng_state(), shown(Augmentation()).inputs
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(shown(Augmentation()).inputs, first, rtol=0, atol=0)
    assert not torch.equal(shown(Augmentation(), step=1).inputs, first)
    assert not torch.equal(shown(Augmentation(), seed=1).inputs, first)
