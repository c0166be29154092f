"""Training tiles: what the network sees, and what it should say."""

import dataclasses
from unittest import mock

import numpy as np
import pytest

from nimbus_sd.simulate import TrainingTile, training_tiles
from nimbus_sd.simulate import tile as tile_module
from nimbus_sd.simulate.tile import level_factor


def drawn(seed: int, size: int = 48, **settings) -> list[TrainingTile]:
    return list(training_tiles(np.random.default_rng(seed), size, **{"regions": 1, **settings}))


def as_bytes(tile: TrainingTile) -> list[bytes]:
    return [getattr(tile, field.name).tobytes() for field in dataclasses.fields(tile)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_tiles():
    first, again, other = drawn(1), drawn(1), drawn(2)
    assert [as_bytes(tile) for tile in first] == [as_bytes(tile) for tile in again]
    assert as_bytes(first[0]) != as_bytes(other[0])
    # Each tile shows a marker of its own.
    assert len({tile.image.tobytes() for tile in first}) == 4


# Of ten seeds, all pixel sizes occur: sides that are and are not a multiple of anything.
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [32, 45])
def test_shapes_types_and_ranges(seed, size):
    tiles = drawn(seed, size)
    assert len(tiles) == 4
    for tile in tiles:
        assert tile.image.shape == tile.interior.shape == tile.cells.shape == (size, size)
        assert (tile.image.dtype, tile.interior.dtype, tile.cells.dtype) == (np.float32, bool, np.int32)
        assert np.isfinite(tile.image).all() and tile.image.min() >= 0 and tile.image.max() <= 1
        n = len(tile.labels)
        assert tile.labels.dtype == tile.expression.dtype == np.float32
        assert tile.expression.shape == (n,)
        assert tile.cells.min() >= 0 and tile.cells.max() < n
        assert set(np.unique(tile.labels)) <= {0, 0.5, 1}
        assert tile.expression.min() >= 0
        # The interior is that of the cells, without their boundaries.
        assert not tile.interior[tile.cells == 0].any()
        assert tile.interior.sum() < max(1, (tile.cells > 0).sum())


def test_the_number_of_markers_and_the_pixel_size_are_respected():
    assert [len(drawn(0, 32, markers=n)) for n in (1, 3)] == [1, 3]
    assert len(drawn(0, 32, markers=2, regions=3)) == 6

    def cell_area(model_pixel_size: float) -> float:
        tiles = [tile for seed in range(6) for tile in drawn(seed, 64, model_pixel_size=model_pixel_size, markers=1)]
        return float(np.median(np.concatenate([np.bincount(tile.cells.ravel())[1:] for tile in tiles])))

    # Cells are as large in um, and so cover more pixels of half the size.
    assert cell_area(0.5) > 2 * cell_area(1.0)


def test_expression_follows_the_labels():
    separation = []
    for seed in range(40):
        for tile in drawn(seed, 64):
            positive, negative = (tile.expression[1:][tile.labels[1:] == state] for state in (1, 0))
            if len(positive) > 3 and len(negative) > 3:
                separation.append(positive.mean() > negative.mean())
    assert len(separation) >= 8 and np.mean(separation) > 0.85


def off_by(seeds: range) -> list[float]:
    """By how much the expression of a tile's cells differs from the mean of the tile's pixels, in the median."""
    off = []
    for tile in [tile for seed in seeds for tile in drawn(seed, 64)]:
        area = np.bincount(tile.cells.ravel(), minlength=len(tile.labels))
        mean = np.bincount(tile.cells.ravel(), tile.image.ravel(), minlength=len(tile.labels)) / np.maximum(area, 1)
        # The image is clipped where the expression is not.
        clipped = np.bincount(tile.cells.ravel(), tile.image.ravel() == 1, minlength=len(tile.labels)) > 0
        large = (area > 30) & ~clipped
        large[0] = False
        if large.any():
            off.append(float(np.median(np.abs(mean - tile.expression)[large])))
    return off


def test_expression_is_the_mean_intensity_of_the_cell():
    with mock.patch.dict(tile_module._PIXEL_SIZES, {0.5: 1.0}, clear=True):
        as_drawn = off_by(range(10))
    assert len(as_drawn) > 20 and max(as_drawn) < 1e-6
    # It is measured at full resolution, so only nearly what the pixels of a resized tile say.
    assert np.quantile(off_by(range(10)), 0.9) < 0.05


def test_the_factor_is_five_times_the_threshold_between_dim_and_bright_cells():
    labels = np.zeros((128, 128), np.int32)
    labels[:, :96] = 1
    image = np.full((128, 128), 0.5, np.float32)
    image[:32, :96] = 2.5
    # Neither glass nor single bright pixels count.
    image[:, 96:] = 0
    image[40, ::20] = 30
    assert level_factor([image], [labels], 0.5) == pytest.approx(5 * 1.5, rel=0.03)
    assert level_factor([np.zeros_like(image)], [labels], 0.5) == 1


def test_regions_share_their_normalisation():
    """So that, where one region has positive cells and another none, the other's cells stay dim."""
    factors = []

    def measured(images, labels, pixel_size):
        factors.append((len(images), level_factor(images, labels, pixel_size)))
        return factors[-1][1]

    with mock.patch("nimbus_sd.simulate.tile.level_factor", measured):
        tiles = drawn(3, 64, markers=4, regions=3)
    assert len(tiles) == 12 and [number for number, _ in factors] == [3, 3, 3, 3]
    with mock.patch("nimbus_sd.simulate.tile.level_factor", lambda *_: 2 * measured(*_)):
        dimmer = drawn(3, 64, markers=4, regions=3)
    for tile, half in zip(tiles, dimmer, strict=True):
        np.testing.assert_allclose(half.expression, tile.expression / 2, rtol=1e-5)


def test_a_counterstain_is_in_nearly_all_cells():
    plain, stained = (
        np.concatenate([tile.labels[1:] for seed in range(4) for tile in drawn(seed, 96, counterstain=share)])
        for share in (0.0, 1.0)
    )
    assert (stained == 0).mean() < 0.15 and (stained == 1).mean() > 0.6
    assert (plain == 0).mean() > 0.4


def test_without_counterstains_tiles_are_as_they_were():
    assert [as_bytes(tile) for tile in drawn(1, counterstain=0.0)] == [as_bytes(tile) for tile in drawn(1)]
