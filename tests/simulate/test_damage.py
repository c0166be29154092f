"""Damage of images: each kind does what its name says, and no more."""

import numpy as np
import pytest

from nimbus_sd.simulate import Detector, Segmentation, damage, draw_tissue, expose, segment


@pytest.fixture(scope="module")
def edge():
    """Tissue with an edge."""
    for seed in range(100):
        tissue = draw_tissue((160, 160), 0.5, np.random.default_rng(seed))
        if 0.1 < tissue.glass.mean() < 0.7:
            return tissue
    raise LookupError


@pytest.fixture
def texture():
    return np.random.default_rng(0).random((96, 80)).astype(np.float32)


def test_a_seam_shifts_one_side_by_its_pixels_and_leaves_the_other(texture):
    found = damage.seam(texture, 2, np.random.default_rng(1))
    moved = (found != texture).any(axis=0)
    first = int(np.argmax(moved))
    assert 0 < first < 80 and moved[first:].all()
    right = [np.array_equal(found[:, first:], np.roll(texture[:, first:], step, axis=0)) for step in (2, -2)]
    assert sum(right) == 1


def test_defocus_blurs_patches_only():
    noise = np.random.default_rng(0).random((400, 400)).astype(np.float32)
    found = damage.defocus(noise, 2.0, 2.0, np.random.default_rng(2))
    changed = ~np.isclose(found, noise)
    assert 0.05 < changed.mean() < 0.95
    assert found.var() < noise.var()


def test_a_fold_is_brighter_tissue_and_leaves_glass(edge):
    gain = damage.fold(edge, 1.0, np.random.default_rng(3))
    assert (gain[edge.glass] == 1).all()
    assert gain.min() >= 1 and gain.max() == pytest.approx(2)
    assert 0 < (gain > 1).mean() < 0.7


def test_stain_gathers_at_the_edge_of_tissue(edge, geometry):
    light = damage.edge_glow(edge, 0.5)
    assert not light[edge.glass].any()
    assert 0.4 < light.max() <= 0.5
    assert not damage.edge_glow(geometry, 0.5).any()


def test_compression_changes_pixels_little_and_rounds_fine_structure_away(texture):
    fine, coarse = (damage.compress(texture, step) for step in (1e-6, 0.2))
    np.testing.assert_allclose(fine, texture, atol=1e-4)
    assert np.abs(coarse - texture).max() > 0 and coarse.shape == texture.shape

    def detail(image):
        return np.abs(np.diff(image, axis=1)).mean()

    assert detail(coarse) < 0.9 * detail(texture)


def test_few_grey_levels(geometry):
    light = np.linspace(0, 1, geometry.shape[1], dtype=np.float32)[None].repeat(geometry.shape[0], 0)
    image = expose(light, geometry, Detector(gain=1e6, quantum=0.1), np.random.default_rng(0))
    np.testing.assert_allclose(image / 0.1, np.rint(image / 0.1), atol=1e-4)
    assert len(np.unique(image)) < 20


def test_masks_of_a_coarser_grid_are_made_of_squares(geometry):
    labels, _ = segment(geometry, Segmentation(wobble=0.0, grid=2.0), np.random.default_rng(0))
    side = round(2.0 / geometry.pixel_size)
    whole = labels[: labels.shape[0] // side * side, : labels.shape[1] // side * side]
    blocks = whole.reshape(whole.shape[0] // side, side, whole.shape[1] // side, side)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert len(np.unique(labels)) > 10
