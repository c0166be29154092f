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


def predict(reference, make_sdata, checkpoint, recipe, fovs, normalization, **settings):
    sdata = make_sdata(
        {fov: reference[f"image_{fov}"] for fov in fovs},
        {f"{fov}_cells": reference[f"labels_{fov}"] for fov in fovs},
        recipe["CHANNELS"],
    )
    return ns.predict(
        sdata, model=checkpoint, normalization=normalization, tta=False, precision="float32", pixel_size=0.5,
        progress=False, **settings,
    )  # fmt: skip


def check(adata, reference, name):
    fov, label = reference[f"{name}_fov"], reference[f"{name}_label"]
    np.testing.assert_array_equal(adata.obs_names, [f"{f}_cells_{i}" for f, i in zip(fov, label, strict=True)])
    # Both are float32, ours with BatchNorm merged into the convolutions.
    np.testing.assert_allclose(adata.layers["nimbus"], reference[f"{name}_scores"], atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
@pytest.mark.parametrize("tile_size", [None, 64])
def test_given_factors(reference, make_sdata, checkpoint, recipe, tile_size):
    adata = predict(reference, make_sdata, checkpoint, recipe, ["a"], recipe["FACTORS"], tile_size=tile_size)
    check(adata, reference, "given")
    assert adata.n_obs > 80


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
def test_the_peers_own_factors(reference, make_sdata, checkpoint, recipe):
    """Quantile 0.999 of the positive pixels, averaged over the images that have any."""
    adata = predict(reference, make_sdata, checkpoint, recipe, ["a", "b"], None)
    # The peer's quantiles are float32.
    np.testing.assert_allclose(adata.varm["nimbus_normalization"]["factor"], reference["own_factors"], rtol=1e-6)
    check(adata, reference, "own")
    assert np.isnan(adata.varm["nimbus_normalization"].loc["CD8", "b_cells"])
