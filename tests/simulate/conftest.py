"""Tissues, drawn once, that no test changes."""

import numpy as np
import pytest

from nimbus_sd.simulate import Tissue, draw_tissue


@pytest.fixture(scope="session")
def geometry() -> Tissue:
    """Crowded cells of about 10 um on 180 x 200 pixels of 0.5 um, without glass."""
    drawn = draw_tissue((180, 200), 0.5, np.random.default_rng(1), radius=5.0, density=0.95)
    assert not drawn.glass.any()
    return drawn


@pytest.fixture(scope="session")
def with_glass() -> Tissue:
    """A tissue with an edge."""
    drawn = (draw_tissue((120, 120), 1.0, np.random.default_rng(seed), radius=5.0) for seed in range(100))
    return next(tissue for tissue in drawn if 0.1 < tissue.glass.mean() < 0.6)
