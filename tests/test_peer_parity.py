"""Scores of the peer's whole pipeline, stored in tests/data, with the same weights through `predict`."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import nimbus_sd as ns
from nimbus_sd.models import UNet

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def recipe():
    return runpy.run_path(str(DATA / "make_peer_reference.py"))


@pytest.fixture(scope="module")
def reference():
    with np.load(DATA / "peer_reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def checkpoint(recipe, tmp_path_factory):
    """The peer's network as a bare state dict in the published layout."""
    shapes = {name: tuple(value.shape) for name, value in UNet(recipe["ROOT_FILTERS"], 5).state_dict().items()}
    path = tmp_path_factory.mktemp("peer") / "peer.pt"
    torch.save({name: torch.from_numpy(value) for name, value in recipe["weights"](shapes).items()}, path)
    return path


@pytest.fixture
def check(reference, make_sdata, checkpoint, recipe):
    def check(name, fovs, normalization, **settings):
        """Score with our pipeline and compare with the scores of the peer's."""
        sdata = make_sdata(
            {fov: reference[f"image_{fov}"] for fov in fovs},
            {f"{fov}_cells": reference[f"labels_{fov}"] for fov in fovs},
            recipe["CHANNELS"],
        )
        settings |= {"tta": False, "precision": "float32", "pixel_size": 0.5, "progress": False}
        adata = ns.predict(sdata, model=checkpoint, normalization=normalization, **settings)
        cells = zip(reference[f"{name}_fov"], reference[f"{name}_label"], strict=True)
        assert adata.obs_names.tolist() == [f"{fov}_cells_{label}" for fov, label in cells]
        # Both are float32, ours with BatchNorm merged into the convolutions.
        np.testing.assert_allclose(adata.layers["nimbus"], reference[f"{name}_scores"], atol=1e-5, rtol=0)
        return adata

    return check


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
@pytest.mark.parametrize("tile_size", [None, 64])
def test_given_factors(check, recipe, tile_size):
    assert check("given", ["a"], recipe["FACTORS"], tile_size=tile_size).n_obs > 80


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
def test_the_peers_own_factors(check, reference):
    """Quantile 0.999 of the positive pixels, averaged over the images that have any."""
    factors = check("own", ["a", "b"], None).varm["nimbus_normalization"]
    # The peer's quantiles are float32.
    np.testing.assert_allclose(factors["factor"], reference["own_factors"], rtol=1e-6)
    assert np.isnan(factors.loc["CD8", "b_cells"])
