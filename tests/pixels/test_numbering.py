"""Numbering labels."""

import numpy as np
import pytest

from nimbus_sd.pixels import numbered


@pytest.mark.parametrize(
    "labels",
    [
        [],
        [7],
        [5, 2, 2, 9, 0, 5],
        [2**62, 1, 2**40, 1],
    ],
    ids=["none", "one", "gaps", "far apart"],
)
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_as_numpy_unique(labels, dtype):
    labels = np.array(labels, dtype)
    ids, number = numbered(labels)
    expected_ids, expected = np.unique(labels, return_inverse=True)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(number, expected)
    assert ids.dtype == dtype and number.dtype == np.int64
