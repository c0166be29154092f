"""Exposure: noise, blur, counts and the damage that real images have."""

import numpy as np
import pytest
from scipy import ndimage

from nimbus_sd.simulate import Detector, expose

QUIET = {"gain": 1e6, "blur": 0.0, "tail": 0.0, "background": 0.0, "read_noise": 0.0, "clumps": 0.0}
# Poisson noise at a gain of 1e6, six standard deviations.
NOISE = 6e-3
ALL = {"clumps": 2.0, "dots": 20.0, "hot": 1e-3, "shading": 0.3, "shift": (1.0, -2.0), "defocus": 1.0, "fold": 0.5}
ALL |= {"edge": 0.3, "seam": 2, "compression": 0.05, "quantum": 0.02, "subtract": 0.3, "cutoff": 0.05}


@pytest.fixture
def taken(geometry):
    def take(expected, seed=0, **settings) -> np.ndarray:
        light = np.broadcast_to(np.float32(expected), geometry.shape).copy()
        return expose(light, geometry, Detector(**{**QUIET, **settings}), np.random.default_rng(seed))

    return take


@pytest.fixture
def spot(geometry):
    light = np.zeros(geometry.shape, np.float32)
    light[80:84, 100:104] = 1
    return light


@pytest.fixture
def texture(geometry):
    return np.random.default_rng(0).random(geometry.shape).astype(np.float32)


@pytest.mark.parametrize("counting", [False, True])
def test_every_damage_at_once(with_glass, counting):
    """Nothing negative, the same bytes for the same seed, and the signal stays as it was."""
    light = np.where(with_glass.owner % 3 == 0, np.float32(1), np.float32(0.05))
    given, detector = light.copy(), Detector(counting=counting, gain=20, **ALL)
    first, again, other = (expose(light, with_glass, detector, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.float32 and first.shape == with_glass.shape
    assert np.isfinite(first).all() and first.min() >= 0
    assert first.tobytes() == again.tobytes() and not np.array_equal(first, other)
    np.testing.assert_array_equal(light, given)


def test_a_perfect_detector_shows_the_expected_signal_and_a_shift_moves_it(taken, spot):
    np.testing.assert_allclose(taken(spot), spot, atol=NOISE)
    before, after = (np.array(ndimage.center_of_mass(image)) for image in (spot, taken(spot, shift=(2.0, -1.0))))
    np.testing.assert_allclose(after - before, [4.0, -2.0], atol=0.02)


def test_noise_of_cameras_and_of_counts(taken):
    # The standard deviation goes with the root of the gain.
    for gain in (10, 1000):
        assert taken(1.0, gain=gain).std() == pytest.approx(1 / np.sqrt(gain), rel=0.05)
    assert taken(1.0, read_noise=0.05).std() == pytest.approx(0.05, rel=0.05)
    for gain in (0.7, 5.0):
        counts = gain * taken(1.0, counting=True, gain=gain, read_noise=0.5, background=0.1, hot=1e-3)
        np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
        # Counts of Poisson have a variance that equals their mean; the camera's noise plays no part.
        assert abs(counts.var() / counts.mean() - 1) < 0.1 and len(np.unique(np.rint(counts))) > 2


def test_blur_spreads_light_and_keeps_it(taken, spot, geometry):
    for settings in ({"blur": 1.0}, {"tail": 0.2, "tail_width": 5.0}, {"blur": 0.6, "tail": 0.1}):
        image = taken(spot, **settings)
        assert image.sum() == pytest.approx(spot.sum(), rel=0.02)
        assert image.max() < 0.97
    profile, y = taken(spot, blur=1.5).sum(axis=1), np.arange(geometry.shape[0]) + 0.5
    variance = np.average((y - np.average(y, weights=profile)) ** 2, weights=profile)
    # That of the spot (4 pixels wide) and that of the point spread (1.5 um are 3 pixels, cut off at 3 sigma).
    assert variance == pytest.approx((4**2 - 1) / 12 + 3**2, rel=0.07)


def test_background_is_low_on_glass_and_shading_uneven(with_glass, taken):
    detector = Detector(**{**QUIET, "background": 0.3})
    image = expose(np.zeros(with_glass.shape, np.float32), with_glass, detector, np.random.default_rng(0))
    cell = with_glass.owner > 0
    assert 0.1 < image[cell].mean() < 0.6
    assert image[with_glass.glass].mean() < 0.6 * image[cell].mean()
    even, uneven = (np.mean([taken(1.0, seed=s, shading=strength).std() for s in range(4)]) for strength in (0.0, 0.6))
    assert even < NOISE < 0.03 < uneven


def test_what_the_lab_subtracts_or_cuts_off_is_gone(taken):
    ramp = np.linspace(0, 1, 200, dtype=np.float32)
    expected = np.broadcast_to(np.maximum(ramp - 0.2, 0), (180, 200))
    np.testing.assert_allclose(taken(ramp, subtract=0.2), expected, atol=NOISE)
    cut = taken(ramp, cutoff=0.3)
    assert not ((cut > 0) & (cut < 0.3)).any()
    np.testing.assert_allclose(cut[:, ramp > 0.32], np.broadcast_to(ramp[ramp > 0.32], (180, 136)), atol=NOISE)
    kept, cleaned = (taken(0.004, counting=True, gain=1.0, cutoff=cutoff) for cutoff in (0.0, 0.05))
    assert kept.sum() > 50 and cleaned.sum() < 0.2 * kept.sum(), "lonely counts"


def test_hot_pixels_clumps_and_dots_add_light(taken, geometry):
    assert (taken(0.0, hot=0.01) > 0).mean() == pytest.approx(0.01, rel=0.3)
    clumps = taken(0.0, clumps=10.0)
    assert 0 < (clumps > 0.1).mean() < 0.3 and clumps.max() > 0.5
    dots = taken(0.0, dots=40.0)
    bright = dots > 0.25 * dots.max()
    count, area = ndimage.label(bright)[1], dots.size * geometry.pixel_size**2
    assert 0.3 < count / (40 * area / 100**2) < 1.5
    assert bright.sum() / count * geometry.pixel_size**2 < 3.0


def test_a_seam_shifts_one_side_by_its_pixels_and_leaves_the_other(taken, texture):
    plain, shifted = taken(texture), taken(texture, seam=2)
    moved = (np.abs(shifted - plain) > 0.1).any(axis=0)
    first = int(np.argmax(moved))
    assert 0 < first < 200 and moved[first:].all()
    rolled = [np.roll(plain[:, first:], step, axis=0) for step in (2, -2)]
    assert sum(np.allclose(shifted[:, first:], right, rtol=0, atol=2 * NOISE) for right in rolled) == 1


def test_folds_and_edges_are_brighter_tissue_and_leave_glass(with_glass, taken):
    def on_glass(light, **damage):
        detector = Detector(**{**QUIET, **damage})
        return expose(np.full(with_glass.shape, light, np.float32), with_glass, detector, np.random.default_rng(3))

    gain = on_glass(1.0, fold=1.0)
    np.testing.assert_allclose(gain[with_glass.glass], 1, atol=NOISE)
    assert gain.min() > 1 - NOISE and gain.max() == pytest.approx(2, abs=2 * NOISE)
    assert 0 < (gain > 1 + NOISE).mean() < 0.7
    light = on_glass(0.0, edge=0.5)
    assert not light[with_glass.glass].any() and 0.4 < light.max() <= 0.5 + NOISE
    assert not taken(0.0, edge=0.5).any()


def test_defocus_compression_and_grey_levels_take_fine_structure(taken, texture):
    blurred = taken(texture, defocus=1.0)
    assert 0.05 < (np.abs(blurred - texture) > 2 * NOISE).mean() < 0.95, "patches only"
    assert blurred.var() < texture.var()
    fine, coarse = (taken(texture, compression=step) for step in (1e-6, 0.2))
    np.testing.assert_allclose(fine, texture, atol=NOISE)
    assert np.abs(np.diff(coarse, axis=1)).mean() < 0.9 * np.abs(np.diff(texture, axis=1)).mean()
    grey = taken(texture, quantum=0.1) / 0.1
    np.testing.assert_allclose(grey, np.rint(grey), atol=1e-4)
    assert 5 < len(np.unique(grey)) < 20
