"""Tiles cover the image once, and their cores' results are the whole image's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_sd.pixels import Grid, tiles


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
    st.sampled_from([0.29, 0.38, 0.5, 1.0, 1.7]),
    st.sampled_from([(4, 24), (16, 96)]),
    st.sampled_from([1, 16, 48, 100, 1024]),
)
def test_cores_cover_the_model_shape_once_and_windows_suit_the_network(shape, scale, network, tile_size):
    stride, halo = network
    grid = Grid(shape, scale, stride)
    covered = np.zeros(grid.model_shape, np.int8)
    for tile in tiles(grid, tile_size, halo):
        covered[tile.core] += 1
        for core, window, size, padded in zip(tile.core, tile.window, grid.model_shape, grid.padded_shape, strict=True):
            assert core.start % stride == window.start % stride == window.stop % stride == 0
            assert window.start >= 0 and window.stop <= padded and window.stop - window.start >= 2 * stride
            # The network's reach on each side, or the edge.
            assert window.start == max(0, core.start - halo)
            assert window.stop >= min(core.stop + halo, padded)
            assert core.stop == size or core.stop % stride == 0
            assert core.stop - core.start <= -(-tile_size // stride) * stride
        inner = tile.core_in_window
        assert all(i.stop - i.start == c.stop - c.start for i, c in zip(inner, tile.core, strict=True))
    assert (covered == 1).all()


@pytest.mark.parametrize("root_filters, depth", [(2, 5), (3, 4)])
def test_a_network_gives_the_same_on_tiles_as_on_the_whole(random_network, root_filters, depth):
    network = random_network(root_filters, depth).double()
    image = torch.rand(2, 400, 336, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stride = network.stride
    grid = Grid((400, 336), 1.0, stride)
    with torch.no_grad():
        whole = torch.sigmoid(network(image[None]))[0, 0]

    def furthest(halo):
        difference = 0.0
        for tile in tiles(grid, 112, halo):
            with torch.no_grad():
                part = torch.sigmoid(network(image[(None, slice(None), *tile.window)]))[0, 0]
            difference = max(difference, (part[tile.core_in_window] - whole[tile.core]).abs().max().item())
        return difference

    # Not "nearly the same": these are the rounding errors of float64.
    assert furthest(6 * stride) < 1e-12
    # The test would see a halo that is too small.
    assert furthest(2 * stride) > 1e-4
