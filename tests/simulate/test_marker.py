"""Stains: who is positive, and where the signal sits."""

import numpy as np
import pytest

from nimbus_sd.simulate import Marker, Stain, stain
from nimbus_sd.simulate.marker import LOCALIZATIONS

PLAIN = {"spread": 0.0, "dim_share": 0.0, "unspecific": 0.0, "patchiness": 0.0, "overlap": 0.0}


@pytest.fixture
def stained(geometry):
    def draw(localization="membrane", prevalence=0.5, seed=0, positive=None, **settings) -> Stain:
        marker = Marker(localization, prevalence, **{**PLAIN, **settings})
        return stain(geometry, marker, np.random.default_rng(seed), positive)

    return draw


@pytest.mark.parametrize("clustering", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prevalence", [0.0, 0.3, 1.0])
def test_prevalence_is_the_share_of_visible_cells(stained, geometry, prevalence, clustering):
    visible = np.unique(geometry.owner)[1:]
    positive = stained(prevalence=prevalence, clustering=clustering).positive
    assert positive.shape == (geometry.n_cells + 1,) and positive.dtype == bool and not positive[0]
    # A fraction of a cell is a cell or none.
    assert abs(positive[visible].sum() - prevalence * visible.size) < 1


def test_clustered_positives_have_positive_neighbours(geometry, stained):
    left, right = geometry.owner[:, :-1], geometry.owner[:, 1:]
    touching = (left > 0) & (right > 0) & (left != right)

    def alike(clustering: float) -> float:
        drawn = [stained(prevalence=0.5, clustering=clustering, seed=seed).positive for seed in range(6)]
        return float(np.mean([(state[left] == state[right])[touching] for state in drawn]))

    assert 0.4 < alike(0.0) < 0.6 and alike(1.0) > 0.75


def test_given_states_are_taken(geometry, stained):
    wanted = np.zeros(geometry.n_cells + 1, bool)
    wanted[np.unique(geometry.owner)[5:15]] = True
    drawn = stained("cell", prevalence=0.9, positive=wanted)
    np.testing.assert_array_equal(drawn.positive, wanted)
    np.testing.assert_array_equal(drawn.specific > 0, wanted[geometry.owner])


@pytest.mark.parametrize("localization", LOCALIZATIONS)
def test_positive_cells_are_brighter_than_negative_ones(geometry, localization):
    drawn = stain(geometry, Marker(localization, 0.4), np.random.default_rng(0))
    light = drawn.signal
    assert light.dtype == np.float32 and light.min() >= 0
    area = np.bincount(geometry.owner.ravel())
    mean = np.bincount(geometry.owner.ravel(), light.ravel()) / np.maximum(area, 1)
    large = area > 150
    large[0] = False
    positive = drawn.positive[: len(area)]
    assert np.median(mean[large & positive]) > 2 * np.median(mean[large & ~positive])
    specific = np.bincount(geometry.owner.ravel(), drawn.specific.ravel())
    assert not specific[~positive].any()


def test_membrane_signal_falls_off_with_depth(geometry, stained):
    drawn = stained("membrane", prevalence=1.0, fill=0.0, width=0.7)
    cell = geometry.owner > 0
    np.testing.assert_allclose(drawn.specific[cell], np.exp(-geometry.depth[cell] / 0.7), rtol=1e-5)
    assert not drawn.specific[~cell].any()
    wide = stained("membrane", prevalence=1.0, fill=0.0, width=2.0)
    assert wide.specific.sum() > 1.5 * drawn.specific.sum()
    filled = stained("membrane", prevalence=1.0, fill=0.4, width=0.7)
    np.testing.assert_allclose(filled.specific[cell] - drawn.specific[cell], 0.4, atol=1e-5)


def test_polar_membranes_are_brighter_on_one_side(geometry, stained):
    inner = [cell for cell in np.unique(geometry.owner[40:-40, 40:-40])[1:] if (geometry.owner == cell).sum() > 150]
    direction = [np.exp(1j * geometry.angle[geometry.owner == cell]) for cell in inner]

    def asymmetry(polarity: float) -> float:
        specific = stained("membrane", prevalence=1.0, fill=0.0, polarity=polarity).specific
        light = [specific[geometry.owner == cell] for cell in inner]
        return float(np.mean([abs(np.average(way, weights=w)) for way, w in zip(direction, light, strict=True)]))

    assert asymmetry(1.0) > asymmetry(0.0) + 0.2


def test_where_signal_sits_in_a_cell(geometry, stained):
    nuclear, cytoplasmic, diffuse, spots = (
        stained(where, prevalence=1.0).specific for where in ("nucleus", "cytoplasm", "cell", "granules")
    )
    cell, nucleus = geometry.owner > 0, geometry.nucleus
    assert not nuclear[~nucleus].any()
    np.testing.assert_allclose(nuclear[geometry.nucleus_depth > 0.8], 1.0, rtol=1e-5)
    np.testing.assert_allclose(cytoplasmic[cell & ~nucleus], 1.0, rtol=1e-5)
    assert cytoplasmic[nucleus].min() >= 0.1 and cytoplasmic[nucleus].max() <= 0.5
    np.testing.assert_allclose(diffuse[cell], 1.0, rtol=1e-5)
    assert np.median(spots[cell & ~nucleus]) < 0.1 and spots[cell & ~nucleus].max() > 0.8
    for where, even in (("cell", diffuse), ("nucleus", nuclear)):
        inside = even > 0.3
        patchy = stained(where, prevalence=1.0, patchiness=1.0).specific
        assert (patchy[inside] / even[inside]).std() > 0.15


def test_dim_cells_are_two_to_five_times_dimmer(geometry, stained):
    def levels(**settings) -> np.ndarray:
        drawn = stained("cell", prevalence=1.0, **settings)
        return np.array([drawn.specific[geometry.owner == cell].mean() for cell in np.unique(geometry.owner)[1:]])

    some = levels(dim_share=0.4)
    dim = some < 0.99
    assert 0.2 < dim.mean() < 0.6
    assert some[dim].min() >= 0.2 - 1e-5 and some[dim].max() <= 0.5 + 1e-5
    spread = np.log(levels(spread=0.6))
    # The standard error of sigma for n cells is sigma / sqrt(2 n).
    assert abs(spread.std() - 0.6) < 4 * 0.6 / np.sqrt(2 * len(spread))


def test_other_signal_is_in_all_cells_or_those_below_and_not_between_them(geometry, stained):
    drawn = stained(prevalence=0.0, unspecific=0.2, unspecific_in="cell")
    cell = geometry.owner > 0
    assert not drawn.specific.any() and not drawn.other[~cell].any()
    assert 0.15 < drawn.other[cell].mean() < 0.3 and (drawn.other[cell] > 0).all()
    nuclear = stained(prevalence=0.0, unspecific=0.2, unspecific_in="nucleus")
    assert nuclear.other[geometry.nucleus].mean() > 0.1 and not nuclear.other[~geometry.nucleus].any()
    through = stained(prevalence=1.0, overlap=0.6).other
    assert through.any() and not through[geometry.under == 0].any()


def test_fibres_run_between_cells_and_not_on_glass(geometry, with_glass, stained):
    drawn = [stained(prevalence=0.0, fibres=0.8, seed=seed).other for seed in range(5)]
    assert sum(fibres.any() for fibres in drawn) >= 3
    for fibres in drawn:
        assert fibres.max() <= 0.8 + 1e-5
        assert not fibres[geometry.depth >= 0.8].any()
    marker = Marker("membrane", 0.0, unspecific=0.0, overlap=0.0, fibres=0.8)
    for seed in range(5):
        assert not stain(with_glass, marker, np.random.default_rng(seed)).other[with_glass.glass].any()


def test_crosstalk_shows_another_marker_faintly(geometry, stained):
    drawn = [stained(prevalence=0.0, crosstalk=0.1, seed=seed) for seed in range(8)]
    assert any(faint.other.any() for faint in drawn)
    for faint in drawn:
        assert not faint.specific.any() and not faint.positive.any()
        # Amplitudes are log-normal and patterns reach a few times 1.
        assert faint.other.max() < 0.1 * 40 and not faint.other[geometry.owner == 0].any()


def test_a_marker_that_cannot_be_is_an_error():
    for message, arguments in (("nuclear", ("nuclear", 0.3)), ("`prevalence` is 30", ("nucleus", 30))):
        with pytest.raises(ValueError, match=message):
            Marker(*arguments)
    with pytest.raises(ValueError, match="'nowhere'"):
        Marker("nucleus", 0.3, unspecific_in="nowhere")
