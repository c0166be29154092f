"""Small image files and, where it is at hand, real tissue."""

from pathlib import Path

import pytest

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def real_tissue() -> Path:
    if not REAL.is_dir():
        pytest.skip("real tissue (../shared/data) is not here")
    return REAL
