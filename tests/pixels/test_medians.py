import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nimbus_sd.pixels import cell_medians


@given(st.integers(1, 6), st.integers(0, 40), st.data())
def test_medians_are_numpys(n, size, data):
    cell = data.draw(arrays.arrays(np.int64, size, elements=st.integers(0, n - 1)))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0])
    values = data.draw(arrays.arrays(np.float32, size, elements=finite))
    expected = [np.median(values[cell == i].astype(np.float64)) if (cell == i).any() else np.nan for i in range(n)]
    np.testing.assert_array_equal(cell_medians(cell, values, n), np.array(expected, np.float32))
