"""Reading ahead, and pixels that are no numbers."""

import threading

import numpy as np
import pytest

from nimbus_sd.engine import BadPixels
from nimbus_sd.engine.tile import TileReader, read_ahead
from nimbus_sd.pixels import Grid, Tile, tiles


@pytest.mark.parametrize("pixel_size", [0.3, 0.5, 1.0, 1.7])
def test_a_tile_sees_what_the_whole_image_would_show_there(regions, tissue, pixel_size):
    """Also at its very edge, where a cell's boundary depends on pixels outside."""
    image, labels = tissue((203, 157), 2)
    (region,) = regions(image, labels=[labels], pixel_size=pixel_size)
    grid = Grid(region.shape, pixel_size, 4)
    everything = tuple(slice(0, n) for n in grid.padded_shape), tuple(slice(0, n) for n in grid.model_shape)
    whole = TileReader.open(region, grid, Tile(window=everything[0], core=everything[1]))
    factors, bad = np.array([100.0, 80.0]), BadPixels()
    inputs, expression = whole.channels([0, 1], factors, bad)
    total = np.zeros_like(expression)
    for tile in tiles(grid, 20, 8):
        reader = TileReader.open(region, grid, tile)
        np.testing.assert_array_equal(reader.interior, whole.interior[tile.window])
        own, sums = reader.channels([0, 1], factors, bad)
        np.testing.assert_array_equal(own, inputs[(slice(None), *tile.window)])
        total[np.searchsorted(whole.footprint.ids, reader.footprint.ids)] += sums
    np.testing.assert_array_equal(total, expression)


def test_read_ahead_keeps_the_order_and_is_one_item_ahead():
    made = []

    def items():
        for i in range(5):
            made.append((i, threading.get_ident()))
            yield i

    for expected, item in enumerate(read_ahead(items())):
        assert item == expected
        assert len(made) <= item + 2
    assert [i for i, _ in made] == list(range(5))
    assert threading.get_ident() not in {thread for _, thread in made}


def test_read_ahead_passes_errors_on_after_the_items_before():
    def items():
        yield 1
        raise OSError("disk")

    found = read_ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="disk"):
        next(found)


def test_read_ahead_of_nothing():
    assert list(read_ahead([])) == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_cleaning_works_on_a_copy(dtype):
    image = np.array([[[1, np.nan], [np.inf, -2]], [[1, 2], [3, 4]]], dtype)
    before, bad = image.copy(), BadPixels()
    cleaned = bad.clean(image, ["a", "b"])
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(cleaned, [[[1, 0], [0, -2]], [[1, 2], [3, 4]]])
    assert cleaned.dtype == dtype
    assert bad.not_finite["a"] == 2 and bad.negative["a"] == 1 and bad.not_finite["b"] == bad.negative["b"] == 0


def test_only_the_core_is_counted_and_counts_add_up():
    image = np.full((1, 4, 4), np.nan, np.float32)
    bad = BadPixels()
    core = (slice(1, 3), slice(0, 4))
    for _ in range(2):
        cleaned = bad.clean(image, ["a"], core)
    assert bad.not_finite["a"] == 16
    assert (cleaned == 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "bool"])
def test_unsigned_images_pass_untouched(dtype):
    image = np.ones((1, 2, 2), dtype)
    assert BadPixels().clean(image, ["a"]) is image
