"""Geometry: cells, what lies under them, nuclei, depth and glass."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from nimbus_sd.simulate import Tissue, draw_tissue
from nimbus_sd.simulate.tissue import smooth_field


# The second seed draws glass all over.
@pytest.fixture(scope="module", params=[0, 2, 3, 4])
def any_tissue(request) -> Tissue:
    return draw_tissue((90, 120), 0.6, np.random.default_rng(request.param))


def test_arrays_fit_nuclei_fill_a_part_and_another_cell_lies_under_a_cell(any_tissue):
    n, nucleus = any_tissue.n_cells, any_tissue.nucleus
    for layer in (any_tissue.owner, any_tissue.under):
        assert layer.dtype == np.int32 and layer.min() == 0 and layer.max() <= n
    for name in ("owner", "under", "nucleus", "nucleus_depth", "depth", "angle", "glass"):
        assert getattr(any_tissue, name).shape == any_tissue.shape == (90, 120), name
    assert [len(values) for values in (any_tissue.centre, any_tissue.radius, any_tissue.kind)] == [n + 1] * 3
    assert set(np.unique(any_tissue.kind)) <= {0, 1, 2}
    cell, both = any_tissue.owner > 0, any_tissue.under > 0
    assert both.any() and (any_tissue.under[both] != any_tissue.owner[both]).all()
    assert not (nucleus & ~cell).any() and 0.2 < nucleus[cell].mean() < 0.9
    assert (any_tissue.nucleus_depth > 0).any() and not any_tissue.nucleus_depth[~nucleus].any()


def test_depth_is_the_distance_to_the_next_cell_or_gap(geometry):
    assert (geometry.depth[geometry.owner == 0] == 0).all()
    for cell in np.unique(geometry.owner)[1:]:
        own = geometry.owner == cell
        # Beyond the image's edge nothing is known, so the edge is no boundary.
        exact = ndimage.distance_transform_edt(np.pad(own, 60, mode="edge"))[60:-60, 60:-60] * geometry.pixel_size
        if not (own[0].any() or own[-1].any() or own[:, 0].any() or own[:, -1].any()):
            # Boundaries are marked on one of the two pixels that differ.
            assert np.abs(geometry.depth[own] - exact[own]).max() <= geometry.pixel_size * np.sqrt(2) + 1e-6


def test_cells_lie_around_their_centres_and_angles_point_away_from_them(geometry):
    y, x = np.indices(geometry.shape)
    for cell in np.unique(geometry.owner[60:120, 60:120])[1:]:
        inside = geometry.owner == cell
        middle = np.array([y[inside].mean(), x[inside].mean()])
        assert np.hypot(*(middle * geometry.pixel_size - geometry.centre[cell])) < 2.5 * geometry.radius[cell]
        towards = np.arctan2(y - middle[0], x - middle[1])
        # Nuclei, and with them the origin of angles, are off-centre and outlines wobble.
        assert np.cos(geometry.angle[inside] - towards[inside]).mean() > 0.5


def test_radius_and_density_are_respected():
    def area_and_cover(**settings) -> tuple[float, float]:
        drawn = [draw_tissue((150, 150), 0.5, np.random.default_rng(seed), **settings) for seed in range(4)]
        areas = np.concatenate([np.bincount(tissue.owner.ravel())[1:] for tissue in drawn])
        return float(np.median(areas[areas > 0])) * 0.25, float(np.mean([(t.owner > 0).mean() for t in drawn]))

    small, full = area_and_cover(radius=3.0, density=1.0)
    large, _ = area_and_cover(radius=6.0, density=1.0)
    _, sparse = area_and_cover(radius=3.0, density=0.3)
    # Twice the radius is four times the area; crowding and the image's edge cut both.
    assert 2.5 < large / small < 6
    assert np.pi * 3**2 / 3 < small < np.pi * 3**2 * 1.5
    assert sparse < 0.6 * full


def test_tissue_beside_glass_loses_whole_cells(with_glass):
    """A cell that reaches onto the glass is gone, on top and below; the others keep every pixel."""
    glass = with_glass.glass
    for layer in (with_glass.owner, with_glass.under, with_glass.nucleus, with_glass.depth):
        assert not layer[glass].any()
    assert (with_glass.owner[~glass] > 0).mean() > 0.2


def test_smooth_field_has_unit_variance_and_the_wavelength_asked_for():
    fine, coarse = (smooth_field(np.random.default_rng(0), (120, 150), wavelength) for wavelength in (4, 30))
    for field in (fine, coarse):
        assert field.shape == (120, 150) and field.dtype == np.float32
        assert abs(field.mean()) < 1e-4 and abs(field.std() - 1) < 1e-4
    assert np.abs(np.diff(coarse, axis=1)).mean() < np.abs(np.diff(fine, axis=1)).mean() / 4


def test_threads_change_no_byte():
    """Products of matrices would: their rounding depends on how many threads share them."""
    script = (
        "import hashlib, numpy as np; from nimbus_sd.simulate import draw_tissue;"
        "print(hashlib.sha256(draw_tissue((300, 300), 0.5, np.random.default_rng(2)).angle.tobytes()).hexdigest())"
    )
    variables = [os.environ | {"OMP_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n} for n in "12"]
    first, second = (subprocess.check_output([sys.executable, "-c", script], env=env) for env in variables)
    assert first == second and len(first) > 60
