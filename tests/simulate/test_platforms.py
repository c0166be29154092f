"""Looks of platforms: known names, usual settings, the same each time."""

import dataclasses

import numpy as np
import pytest

from nimbus_sd.simulate import PLATFORMS, draw_look, draw_tissue, expose, segment, stain


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_look_can_be_drawn_and_is_the_same_for_the_same_seed(platform):
    look, again, other = (draw_look(platform, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert look == again != other
    rng = np.random.default_rng(0)
    tissue = draw_tissue((96, 96), look.pixel_size, rng, radius=look.radius, density=look.density)
    labels, _ = segment(tissue, look.segmentation, rng)
    stained = stain(tissue, look.marker, rng)
    image = expose(stained.own + stained.rest, tissue, look.detector, rng)
    assert labels.max() > 0 and np.isfinite(image).all() and image.max() > 0


@pytest.mark.parametrize("platform", PLATFORMS)
def test_only_ion_beams_count(platform):
    looks = [draw_look(platform, np.random.default_rng(seed)) for seed in range(20)]
    assert {look.detector.counting for look in looks} == {platform in ("IMC", "MIBI")}
    settings = {str(dataclasses.astuple(look.marker)) for look in looks}
    assert len(settings) == 20


def test_an_unknown_platform():
    with pytest.raises(ValueError, match="'PhenoCycler'; choose of CODEX, CyCIF, IMC, MIBI, Vectra"):
        draw_look("PhenoCycler", np.random.default_rng(0))
