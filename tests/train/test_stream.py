"""Batches of tiles, and the stream that they come from."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nimbus_sd.simulate import TrainingTile
from nimbus_sd.train.stream import SimulatedTiles, collate, turned


def tile(cells: list[list[int]], labels: list[float], seed: int = 0) -> TrainingTile:
    cells = np.array(cells, np.int32)
    image = np.random.default_rng(seed).random(cells.shape, np.float32)
    labels = np.array(labels, np.float32)
    return TrainingTile(image, cells > 0, cells, labels, np.zeros_like(labels))


def taken(stream: SimulatedTiles, n: int) -> list[TrainingTile]:
    return [one for one, _ in zip(stream, range(n), strict=False)]


def test_collate_numbers_cells_through_the_batch():
    tiles = [
        tile([[0, 1], [2, 2]], [0, 1, 0.5], seed=1),
        # Cell 1 covers no pixel, and there is no cell at all in the third.
        tile([[2, 0], [3, 3]], [0, 0, 1, 0], seed=2),
        tile([[0, 0], [0, 0]], [0], seed=3),
        tile([[1, 1], [0, 0]], [0, 1], seed=4),
    ]
    batch = collate(tiles)
    assert batch.inputs.shape == (4, 2, 2, 2) and batch.inputs.dtype == torch.float32
    assert batch.cells.dtype == torch.int64 and batch.labels.dtype == torch.float32
    np.testing.assert_array_equal(batch.cells, [[[0, 1], [2, 2]], [[4, 0], [5, 5]], [[0, 0], [0, 0]], [[6, 6], [0, 0]]])
    np.testing.assert_array_equal(batch.labels[1:], [1, 0.5, 0, 1, 0, 1])
    for number, one in enumerate(tiles):
        np.testing.assert_array_equal(batch.inputs[number, 0], one.image)
        np.testing.assert_array_equal(batch.inputs[number, 1], one.interior)
        # Each pixel's label is that of its own tile.
        here = one.cells > 0
        np.testing.assert_array_equal(batch.labels[batch.cells[number]][here], one.labels[one.cells][here])


def test_views_keep_image_interior_and_cells_on_each_other():
    cells = np.arange(30, dtype=np.int32).reshape(5, 6)
    # So that each array tells where a pixel came from; dark enough that no brightness is cut off.
    drawn = TrainingTile(
        cells.astype(np.float32) / 100, cells % 3 == 0, cells, np.arange(30, dtype=np.float32), np.zeros(30, np.float32)
    )
    seen = set()
    rng = np.random.default_rng(0)
    for _ in range(60):
        view = turned(drawn, rng)
        np.testing.assert_array_equal(view.interior, view.cells % 3 == 0)
        brightness = view.image[view.cells > 0] / (view.cells[view.cells > 0] / 100)
        assert np.ptp(brightness) < 1e-5 and 0.6 < brightness[0] < 1.6
        np.testing.assert_array_equal(np.sort(view.cells, axis=None), cells.ravel())
        np.testing.assert_array_equal(view.labels, drawn.labels)
        assert view.image.dtype == np.float32 and view.image.flags.c_contiguous
        seen.add(view.cells.tobytes() + bytes(view.cells.shape))
    assert len(seen) == 8


def test_brightness_stays_within_its_range():
    bright = TrainingTile(
        np.ones((4, 4), np.float32), np.ones((4, 4), bool), np.ones((4, 4), np.int32), np.ones(2), np.ones(2)
    )
    rng = np.random.default_rng(0)
    assert max(turned(bright, rng).image.max() for _ in range(20)) == 1


def test_the_same_seed_gives_the_same_tiles_and_another_seed_others():
    first, again, other = (taken(SimulatedTiles(seed, 32), 6) for seed in (1, 1, 2))
    assert [one.image.tobytes() for one in first] == [one.image.tobytes() for one in again]
    assert [one.image.tobytes() for one in first] != [one.image.tobytes() for one in other]


def test_a_full_pool_shows_each_new_tile_several_times_and_goes_on():
    shown = taken(SimulatedTiles(0, 32, pool=8, reuse=3), 8 + 3 * 20)
    kinds = [one.labels.tobytes() + one.expression.tobytes() for one in shown]
    # Twenty new ones at most, since eight came first.
    assert 12 < len(set(kinds)) <= 28
    assert max(kinds.count(kind) for kind in kinds) < 20
    images = [one.image.tobytes() for one in shown]
    assert len(set(images)) > 60


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_workers_draw_different_tiles():
    loader = DataLoader(
        SimulatedTiles(0, 32),
        batch_size=2,
        collate_fn=collate,
        num_workers=2,
        prefetch_factor=1,
        multiprocessing_context="fork",
        timeout=60,
    )
    batches = [batch.inputs.numpy() for batch, _ in zip(loader, range(4), strict=False)]
    assert len({batch.tobytes() for batch in batches}) == 4
    # The first worker's tiles are those that a process of its own draws.
    alone = collate(taken(SimulatedTiles(0, 32), 2)).inputs.numpy()
    np.testing.assert_array_equal(batches[0], alone)


def test_streams_can_be_sent_to_other_processes():
    stream = pickle.loads(pickle.dumps(SimulatedTiles(5, 32)))
    np.testing.assert_array_equal(taken(stream, 1)[0].image, taken(SimulatedTiles(5, 32), 1)[0].image)
    assert pickle.loads(pickle.dumps(collate)) is collate
