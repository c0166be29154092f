"""One tissue, drawn once, that no test changes."""

import numpy as np
import pytest

from nimbus_sd.simulate import Tissue, draw_tissue


@pytest.fixture(scope="session")
def geometry() -> Tissue:
    """Crowded cells of about 10 um on 180 x 200 pixels of 0.5 um, without glass."""
    drawn = draw_tissue((180, 200), 0.5, np.random.default_rng(1), radius=5.0, density=0.95)
    assert not drawn.glass.any()
    return drawn
