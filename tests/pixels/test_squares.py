"""Mean intensity of cells in squares, against plain loops."""

import numpy as np
import pytest

from nimbus_sd.pixels import square_means


def looped(image, inside, side):
    values = []
    for top in range(0, inside.shape[0], side):
        for left in range(0, inside.shape[1], side):
            here = inside[top : top + side, left : left + side]
            window = image[:, top : top + side, left : left + side]
            if here.mean() >= 0.25:
                values.append(window[:, here].mean(axis=1))
    return np.stack(values, axis=1)


@pytest.mark.parametrize("side", [1, 4, 7, 100])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_means_are_those_of_cells_pixels(side, dtype):
    rng = np.random.default_rng(0)
    image = (rng.random((3, 37, 50)) * 900).astype(dtype)
    inside = rng.random((37, 50)) < np.linspace(0, 1, 50)
    inside[:8] = True
    found = square_means(image, inside, side)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, looped(image, inside, side), rtol=1e-5)


def test_glass_does_not_count_and_sparse_cells_do():
    image, inside = np.full((1, 40, 40), 5.0), np.zeros((40, 40), bool)
    assert square_means(image, inside, 8).shape == (1, 0)
    # No square is a quarter full; the one with most of the cell is taken.
    inside[2:5, 2:5] = True
    inside[20, 20] = True
    image[:, 2:5, 2:5] = 9
    np.testing.assert_array_equal(square_means(image, inside, 8), [[9]])
