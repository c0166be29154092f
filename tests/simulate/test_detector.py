"""Exposure: noise, blur, counts and the damage that real images have."""

import numpy as np
import pytest
from scipy import ndimage

from nimbus_sd.simulate import Detector, Marker, draw_detector, draw_tissue, expose

QUIET = {"gain": 1e6, "blur": 0.0, "tail": 0.0, "background": 0.0, "read_noise": 0.0, "clumps": 0.0}
# Poisson noise at a gain of 1e6, six standard deviations.
NOISE = 6e-3


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


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_image(geometry):
    detector = Detector(hot=1e-3, clumps=2.0, shading=0.3)
    light = np.ones(geometry.shape, np.float32)
    first, again, other = (expose(light, geometry, detector, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


def test_light_is_left_as_it_was(taken, geometry):
    light = np.ones(geometry.shape, np.float32)
    given = light.copy()
    taken(light, background=0.3, clumps=5.0, hot=1e-3)
    np.testing.assert_array_equal(light, given)


@pytest.mark.parametrize("seed", range(12))
def test_no_image_has_negative_values(geometry, seed):
    rng = np.random.default_rng(seed)
    light = np.where(geometry.owner % 3 == 0, np.float32(1), np.float32(0.05))
    image = expose(light, geometry, draw_detector(rng), rng)
    assert image.dtype == np.float32 and image.shape == geometry.shape
    assert np.isfinite(image).all() and image.min() >= 0


def test_a_perfect_detector_shows_the_expected_signal(taken, spot):
    np.testing.assert_allclose(taken(spot), spot, atol=NOISE)
    assert not taken(0.0).any()


@pytest.mark.parametrize("gain", [0.7, 5.0])
def test_ion_counting_gives_whole_counts(taken, gain):
    image = taken(1.0, counting=True, gain=gain, read_noise=0.5, background=0.1)
    counts = image * gain
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    # Counts of Poisson have a variance that equals their mean; the camera's noise plays no part.
    assert abs(counts.var() / counts.mean() - 1) < 0.1
    assert len(np.unique(np.rint(counts))) > 2


def test_noise_falls_with_gain(taken):
    dim, bright = (taken(1.0, gain=gain).std() for gain in (10, 1000))
    # The standard deviation goes with the root of the gain.
    assert dim == pytest.approx(1 / np.sqrt(10), rel=0.05)
    assert bright == pytest.approx(1 / np.sqrt(1000), rel=0.05)
    assert taken(1.0, read_noise=0.05).std() == pytest.approx(0.05, rel=0.05)


def test_blur_spreads_light_and_keeps_it(taken, spot, geometry):
    for settings in ({"blur": 1.0}, {"tail": 0.2, "tail_width": 5.0}, {"blur": 0.6, "tail": 0.1}):
        image = taken(spot, **settings)
        assert image.sum() == pytest.approx(spot.sum(), rel=0.02)
        assert image.max() < 0.97
    image = taken(spot, blur=1.5)
    y = np.arange(geometry.shape[0]) + 0.5
    profile = image.sum(axis=1)
    variance = np.average((y - np.average(y, weights=profile)) ** 2, weights=profile)
    # That of the spot (4 pixels wide) and that of the point spread (1.5 um are 3 pixels, cut off at 3 sigma).
    assert variance == pytest.approx((4**2 - 1) / 12 + 3**2, rel=0.07)


def test_shift_moves_the_image(taken, spot):
    moved = taken(spot, shift=(2.0, -1.0))
    before, after = (np.array(ndimage.center_of_mass(image)) for image in (spot, moved))
    np.testing.assert_allclose(after - before, [4.0, -2.0], atol=0.02)


def test_background_is_smooth_and_low_on_glass():
    drawn = (draw_tissue((60, 60), 2.0, np.random.default_rng(seed)) for seed in range(40))
    tissue = next(tissue for tissue in drawn if 0.1 < tissue.glass.mean() < 0.8)
    image = expose(
        np.zeros(tissue.shape, np.float32),
        tissue,
        Detector(**{**QUIET, "background": 0.3}),
        np.random.default_rng(0),
    )
    cell = tissue.owner > 0
    assert 0.1 < image[cell].mean() < 0.6
    assert image[tissue.glass].mean() < 0.6 * image[cell].mean()


def test_what_the_lab_subtracts_or_cuts_off_is_gone(taken):
    ramp = np.linspace(0, 1, 200, dtype=np.float32)
    np.testing.assert_allclose(
        taken(ramp, subtract=0.2), np.maximum(ramp - 0.2, 0)[None] + np.zeros((180, 1)), atol=NOISE
    )
    cut = taken(ramp, cutoff=0.3)
    assert not ((cut > 0) & (cut < 0.3)).any()
    np.testing.assert_allclose(cut[:, ramp > 0.32], np.broadcast_to(ramp[ramp > 0.32], (180, 136)), atol=NOISE)


def test_a_cutoff_removes_lonely_counts(taken):
    kept, cleaned = (taken(0.004, counting=True, gain=1.0, cutoff=cutoff) for cutoff in (0.0, 0.05))
    assert kept.sum() > 50
    assert cleaned.sum() < 0.2 * kept.sum()


def test_hot_pixels_and_clumps_add_light(taken, geometry):
    hot = taken(0.0, hot=0.01)
    assert (hot > 0).mean() == pytest.approx(0.01, rel=0.3)
    clumps = taken(0.0, clumps=10.0)
    assert 0 < (clumps > 0.1).mean() < 0.3
    assert clumps.max() > 0.5


def test_dots_are_many_small_and_bright(taken, geometry):
    image = taken(0.0, dots=40.0)
    bright = image > 0.25 * image.max()
    count = ndimage.label(bright)[1]
    area = image.size * geometry.pixel_size**2
    assert 0.3 < count / (40 * area / 100**2) < 1.5
    assert bright.sum() / count * geometry.pixel_size**2 < 3.0


def test_hot_pixels_of_ion_counting_are_whole_counts(taken):
    counts = taken(0.0, counting=True, gain=3.0, hot=0.01) * 3.0
    assert counts.any()
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-5)


def test_shading_makes_an_even_field_uneven(taken):
    even, uneven = (np.mean([taken(1.0, seed=s, shading=strength).std() for s in range(4)]) for strength in (0.0, 0.6))
    assert even < NOISE < 0.03 < uneven


def test_drawn_detectors_cover_the_variety():
    rng = np.random.default_rng(0)
    detectors = [draw_detector(rng) for _ in range(300)]
    counting = np.array([detector.counting for detector in detectors])
    assert 0.2 < counting.mean() < 0.4
    for detector in detectors:
        assert max(map(abs, detector.shift)) <= 2.5
        assert detector.gain > 0 and detector.blur > 0 and 0 <= detector.tail < 1
        assert detector.tail == 0 or not detector.counting
    for name in ("hot", "shading", "cutoff", "subtract", "clumps"):
        values = np.array([getattr(detector, name) for detector in detectors])
        assert (values == 0).any() and (values > 0).any() and values.min() >= 0, name
    assert draw_detector(np.random.default_rng(7)) == draw_detector(np.random.default_rng(7))


def test_what_glows_in_cells_glows_between_them():
    def backgrounds(prevalence: float, unspecific: float) -> list[float]:
        rng = np.random.default_rng(0)
        marker = Marker("membrane", prevalence, unspecific=unspecific)
        return [d.background for d in (draw_detector(rng, marker) for _ in range(300)) if not d.counting]

    assert min(backgrounds(0.3, 0.0)) < 0.02
    assert min(backgrounds(0.3, 0.5)) >= 0.1
    # Nobody positive: hardly any contrast. Everybody: plain contrast.
    assert min(backgrounds(0.0, 0.5)) >= 0.4
    assert max(backgrounds(0.3, 0.0)) > 0.5 and max(backgrounds(1.0, 0.0)) <= 0.3
