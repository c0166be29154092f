"""Windows for training cover a region and share enough."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nimbus_sd.pixels import overlapping_tiles


@given(st.integers(1, 300), st.integers(2, 80), st.data())
def test_windows_cover_a_region_and_share_enough(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    tiles = list(overlapping_tiles((length, size), size, overlap))
    starts = [tile.window[0].start for tile in tiles]
    # Each pixel is in one core.
    assert [tile.core[0].start for tile in tiles] == starts
    assert [tile.core[0].stop for tile in tiles] == [*starts[1:], starts[-1] + size]
    assert starts[0] == 0 and starts[-1] == max(0, length - size)
    assert all(0 < later - start <= size - overlap for start, later in pairwise(starts))
    # None is there for nothing.
    assert len(starts) == 1 or (len(starts) - 1) * (size - overlap) < length - overlap
