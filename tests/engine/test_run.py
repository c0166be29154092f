"""Tiles, one after the other."""

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from nimbus_sd import engine
from nimbus_sd.engine import BadPixels, Memory, Plan, find_tile_size, tile
from nimbus_sd.engine.run import Job, run_here
from nimbus_sd.models import PUBLISHED, Scorer, load
from nimbus_sd.pixels import Footprint


@pytest.fixture(scope="module")
def scorer(small):
    return Scorer(load(small), device="cpu", tta=False)


FACTORS = np.array([100.0, 80.0, np.nan, 90.0])


@pytest.fixture
def region(regions, tissue):
    """Four channels, the third without a factor."""
    image, labels = tissue((60, 150), 4)
    return regions(image, labels=[labels], pixel_size=1.0)[0]


def score(region, scorer, tile_size=48, on_tile=lambda share: None):
    plan, run = Plan([region], FACTORS, scorer.card, tile_size), partial(run_here, scorer=scorer)
    (result,) = engine.score(plan, run, Memory(), bad=BadPixels(), on_share=on_tile)
    return result


def test_progress_adds_up_to_the_tiles(regions, tissue, scorer, monkeypatch):
    image, labels = tissue((203, 157), 4)
    labels[:, 100:] = 0
    (region,) = regions(image, labels=[labels], pixel_size=1.0)
    monkeypatch.setattr(tile, "GROUP_BYTES", 1)
    shares = []
    score(region, scorer, on_tile=shares.append)
    # Five rows of four tiles, the fourth of each without a cell; four channels, one by one.
    assert len(Plan([region], FACTORS, scorer.card, 48).tiles) == 20
    assert sum(shares) == pytest.approx(20)
    assert len(shares) > 20


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


def test_wide_networks_and_fine_images_get_smaller_tiles(regions):
    def size(root_filters, pixel_size):
        card = replace(PUBLISHED, root_filters=root_filters, depth=2)
        return find_tile_size(None, card, regions(np.ones((1, 8, 8), np.uint8), pixel_size=pixel_size))

    assert size(64, 0.5) < size(16, 0.5)
    assert 100 < size(16, 0.1) < size(16, 0.5) == size(16, 2)
    assert size(16, 0.001) > 0


@pytest.mark.parametrize("tile_size", [48, 1000])
def test_constant_channels_share_one_pass(regions, tissue, scorer, tile_size):
    image, labels = tissue((110, 90), 4)
    passed = []
    hook = scorer._network.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    # The same value once divided by their factors of 100, 80 and 90; the third has no factor.
    image[0], image[1], image[3] = 50, 40, 45
    (region,) = regions(image, labels=[labels], pixel_size=1.0)
    shared, n_shared = score(region, scorer, tile_size), sum(passed)
    # Another value and what is constant in a part of the image only are passes of their own.
    image[3], image[1, 5, 5] = 54, 41
    (region,) = regions(image, labels=[labels], pixel_size=1.0)
    differing, n_differing = score(region, scorer, tile_size), sum(passed) - n_shared
    hook.remove()
    n_tiles = len(Plan([region], FACTORS, scorer.card, tile_size).tiles)
    assert (n_shared, n_differing) == (n_tiles, 2 * n_tiles + 1)
    np.testing.assert_array_equal(shared.scores[:, 0], shared.scores[:, 3])
    np.testing.assert_allclose(differing.scores[:, 0], shared.scores[:, 0], atol=1e-6)
    assert np.abs(differing.scores[:, 3] - shared.scores[:, 3]).max() > 1e-4
    assert np.isnan(shared.scores[:, 2]).all()


def test_channels_are_summed_while_the_next_are_in_the_network(region, scorer, monkeypatch):
    at_once = score(region, scorer)
    assert np.isnan(at_once.scores[:, 2]).all() and np.isfinite(at_once.scores[:, [0, 1, 3]]).all()
    assert np.isfinite(at_once.expression).all()
    monkeypatch.setattr(tile, "GROUP_BYTES", 1)
    forward, sum_map = Scorer.__call__, Footprint.sum_map
    second, calls, waited = threading.Event(), [], []

    def scored(self, *arrays):
        calls.append(threading.get_ident())
        if len(calls) == 2:
            second.set()
        return forward(self, *arrays)

    def summed(self, scores):
        assert threading.get_ident() not in calls
        waited.append(second.wait(20))
        return sum_map(self, scores)

    monkeypatch.setattr(Scorer, "__call__", scored)
    monkeypatch.setattr(Footprint, "sum_map", summed)
    result = score(region, scorer)
    assert len(waited) == 3 / 4 * len(calls) > 6 and all(waited)
    np.testing.assert_array_equal(result.ids, at_once.ids)
    np.testing.assert_array_equal(result.expression, at_once.expression)
    # Another batch: float32 sums in another order.
    np.testing.assert_allclose(result.scores, at_once.scores, atol=1e-5)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_tiles_before_an_error_are_given_out(region, scorer, monkeypatch, error):
    plan = Plan([region], FACTORS, scorer.card, 24)
    forward, calls = Scorer.__call__, []

    def scored(self, *arrays):
        calls.append(1)
        if len(calls) == 4:
            raise error("stopped")
        return forward(self, *arrays)

    monkeypatch.setattr(Scorer, "__call__", scored)
    given = []
    with pytest.raises(error, match="stopped"):
        for number, _ in run_here(plan, map(Job, range(len(plan.tiles))), lambda share: None, scorer=scorer):
            given.append(number)
    assert given == [0, 1, 2]


@pytest.mark.parametrize("maps", [False, True])
def test_a_network_that_overflows_is_an_error_that_names_channels_and_region(region, small, maps):
    model = load(small)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(1e30)
    scorer = Scorer(model, device="cpu", tta=False)
    names = r"'\w+'" if maps else "'DAPI', 'CD3', 'PanCK'"
    with pytest.raises(ValueError, match=rf"scores of channel\(s\) {names} in labels 'fov0_cells' .* are not numbers"):
        if maps:
            engine.score_map(region, FACTORS, scorer, 48).to_numpy()
        score(region, scorer)
