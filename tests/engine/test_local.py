"""Tiles, one after the other."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from nimbus_sd import engine
from nimbus_sd.engine import BadPixels, Memory, Plan, find_tile_size, read, run_here
from nimbus_sd.models import PUBLISHED, Scorer, load


@pytest.fixture(scope="module")
def scorer(small):
    return Scorer(load(small), device="cpu", tta=False)


FACTORS = np.array([100.0, 80.0, np.nan, 90.0])


def score(region, scorer, tile_size=48, on_tile=lambda share: None):
    plan, run = Plan([region], FACTORS, scorer.card, tile_size), partial(run_here, scorer=scorer)
    (result,) = engine.score(plan, run, Memory(), bad=BadPixels(), on_share=on_tile)
    return result


def test_progress_adds_up_to_the_tiles(regions, tissue, scorer, monkeypatch):
    image, labels = tissue((203, 157), 4)
    labels[:, 100:] = 0
    (region,) = regions(image, labels=[labels], pixel_size=1.0)
    monkeypatch.setattr(read, "GROUP_BYTES", 1)
    shares = []
    score(region, scorer, on_tile=shares.append)
    # Five rows of four tiles, the fourth of each without a cell; four channels, one by one.
    assert len(Plan([region], FACTORS, scorer.card, 48).tiles) == 20
    assert sum(shares) == pytest.approx(20)
    assert len(shares) > 20


def test_channels_in_groups(regions, tissue, scorer, monkeypatch):
    image, labels = tissue((150, 130), 4)
    (region,) = regions(image, labels=[labels])
    at_once = score(region, scorer)
    monkeypatch.setattr(read, "GROUP_BYTES", 150 * 130 * 4 * 3)
    in_groups = score(region, scorer)
    np.testing.assert_array_equal(in_groups.ids, at_once.ids)
    np.testing.assert_array_equal(in_groups.expression, at_once.expression)
    # Another batch: float32 sums in another order.
    np.testing.assert_allclose(in_groups.scores, at_once.scores, atol=1e-5)
    assert np.isnan(at_once.scores[:, 2]).all() and np.isfinite(at_once.scores[:, [0, 1, 3]]).all()
    assert np.isfinite(at_once.expression).all()


@pytest.mark.parametrize("tile_size", [16, 48, 1000])
def test_cells_without_an_interior_are_counted_once(regions, scorer, tile_size):
    labels = np.zeros((200, 200), np.int32)
    labels[10:30, 10:30] = 1
    labels[95:97, 100:102] = 2  # nothing but boundary
    labels[31:34, 51:54] = 3  # one inner pixel, (32, 52), which is sampled at half the resolution
    labels[32:35, 71:74] = 4  # one inner pixel, (33, 72), which is not
    image = np.ones((4, 200, 200), np.uint8)
    (region,) = regions(image, labels=[labels])
    result = score(region, scorer, tile_size)
    assert result.ids.tolist() == [1, 2, 3, 4]
    assert result.too_small == 2
    assert np.isfinite(result.scores[:, 0]).all()


def test_a_region_without_a_cell(regions, scorer):
    (region,) = regions(np.ones((4, 50, 50), np.uint8), labels=[np.zeros((50, 50), np.int32)])
    result = score(region, scorer)
    assert result.scores.shape == result.expression.shape == (0, 4) and result.too_small == 0


def test_wide_networks_and_fine_images_get_smaller_tiles(regions):
    def size(root_filters, pixel_size):
        card = replace(PUBLISHED, root_filters=root_filters, depth=2)
        return find_tile_size(None, card, regions(np.ones((1, 8, 8), np.uint8), pixel_size=pixel_size))

    assert size(64, 0.5) < size(16, 0.5)
    assert 100 < size(16, 0.1) < size(16, 0.5) == size(16, 2)
    assert size(16, 1e-5) > 0
