"""Simulated tiles that the bundled model is trained on."""

import hashlib

import numpy as np
import pytest
from benchmark_module import module

from nimbus_sd.simulate import Marker

simulated = module("simulated", "tools/compact")


def drawn(seed: int, size: int = 48, **settings) -> list:
    return list(simulated.training_tiles(np.random.default_rng(seed), size, **{"regions": 1, **settings}))


def test_tiles_are_those_that_the_model_was_trained_on():
    tiles = drawn(1, regions=2, counterstain=0.5)
    cells = b"".join(tile.cells.tobytes() + tile.labels.tobytes() for tile in tiles)
    assert hashlib.sha256(cells).hexdigest().startswith("2371562e1608f2c6")
    for tile in tiles:
        assert tile.image.shape == tile.interior.shape == tile.cells.shape == (48, 48)
        assert (tile.image.dtype, tile.cells.dtype, tile.labels.dtype) == (np.float32, np.int32, np.float32)
        assert tile.image.min() >= 0 and tile.image.max() <= 1 and not tile.interior[tile.cells == 0].any()
    # Floats differ in the last digits between processors.
    assert sum(float(tile.image.mean()) for tile in tiles) == pytest.approx(0.6184721784666181, rel=1e-5)
    assert sum(float(tile.expression.mean()) for tile in tiles) == pytest.approx(0.9901336766779423, rel=1e-5)


def test_expression_is_the_mean_intensity_of_the_cell(monkeypatch):
    monkeypatch.setattr(simulated, "PIXEL_SIZES", {0.5: 1.0})
    for tile in [tile for seed in range(5) for tile in drawn(seed, 64)]:
        total, bright = (
            np.bincount(tile.cells.ravel(), values.ravel(), len(tile.labels))
            for values in (tile.image, tile.image == 1)
        )
        area = np.bincount(tile.cells.ravel(), minlength=len(tile.labels))
        # The image is clipped where the expression is not.
        large = (area > 30) & (bright == 0) & (np.arange(len(area)) > 0)
        np.testing.assert_allclose((total / np.maximum(area, 1))[large], tile.expression[large], atol=1e-5)


def test_the_factor_is_five_times_the_threshold_between_dim_and_bright_cells():
    labels = np.zeros((128, 128), np.int32)
    labels[:, :96] = 1
    image = np.full((128, 128), 0.5, np.float32)
    image[:32, :96] = 2.5
    # Neither glass nor single bright pixels count.
    image[:, 96:] = 0
    image[40, ::20] = 30
    assert simulated.level_factor([image], [labels], 0.5) == pytest.approx(5 * 1.5, rel=0.03)
    assert simulated.level_factor([np.zeros_like(image)], [labels], 0.5) == 1


def test_regions_share_their_normalisation(monkeypatch):
    """So that, where one region has positive cells and another none, the other's cells stay dim."""
    regions = []
    monkeypatch.setattr(simulated, "level_factor", lambda images, *_: regions.append(len(images)) or 1.0)
    assert len(drawn(3, 64, regions=3)) == 12 and regions == [3, 3, 3, 3]


def test_what_glows_in_cells_glows_between_them():
    def backgrounds(prevalence: float, unspecific: float) -> list[float]:
        rng, marker = np.random.default_rng(0), Marker("membrane", prevalence, unspecific=unspecific)
        return [d.background for d in (simulated.draw_detector(rng, marker) for _ in range(300)) if not d.counting]

    assert min(backgrounds(0.3, 0.0)) < 0.02 and min(backgrounds(0.3, 0.5)) >= 0.1
    # No cell positive: hardly any contrast. All: plain contrast.
    assert min(backgrounds(0.0, 0.5)) >= 0.4
    assert max(backgrounds(0.3, 0.0)) > 0.5 and max(backgrounds(1.0, 0.0)) <= 0.3
