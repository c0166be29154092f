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
    image, labels = tissue((103, 87), 2)
    (region,) = regions(image, labels=[labels], pixel_size=pixel_size)
    grid = Grid(region.shape, pixel_size, 4)
    window, core = (tuple(slice(0, n) for n in shape) for shape in (grid.padded_shape, grid.model_shape))
    whole = TileReader.open(region, grid, Tile(window=window, core=core))
    factors, bad = np.array([100.0, 80.0]), BadPixels()
    inputs, expression = whole.channels([0, 1], factors, bad)
    total = np.zeros_like(expression)
    for tile in tiles(grid, 20, 8):
        reader = TileReader.open(region, grid, tile)
        np.testing.assert_array_equal(reader.interior, whole.interior[tile.window])
        part, sums = reader.channels([0, 1], factors, bad)
        np.testing.assert_array_equal(part, inputs[(slice(None), *tile.window)])
        total[np.searchsorted(whole.footprint.ids, reader.footprint.ids)] += sums
    np.testing.assert_array_equal(total, expression)


def test_read_ahead_keeps_the_order_and_is_one_item_ahead():
    made, taken = [], []

    def items():
        for i in range(5):
            made.append(threading.get_ident())
            yield i
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        for item in read_ahead(items()):
            assert len(made) <= item + 2
            taken.append(item)
    assert taken == [0, 1, 2, 3, 4] and threading.get_ident() not in made
    assert list(read_ahead([])) == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_cleaning_works_on_a_copy_and_counts_in_the_core(dtype):
    image = np.array([[[1, np.nan], [np.inf, -2]], [[1, 2], [3, 4]]], dtype)
    before, bad = image.copy(), BadPixels()
    for core in ((slice(None), slice(None)), (slice(1), slice(2))):
        cleaned = bad.clean(image, ["a", "b"], core)
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(cleaned, [[[1, 0], [0, -2]], [[1, 2], [3, 4]]])
        assert cleaned.dtype == dtype
    assert dict(bad.not_finite) == {"a": 2 + 1, "b": 0} and dict(bad.negative) == {"a": 1 + 0, "b": 0}
    for unsigned in (np.ones((2, 2, 2), "uint16"), image > 1):
        assert bad.clean(unsigned, ["a", "b"]) is unsigned
