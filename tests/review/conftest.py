"""A small store with scores."""

import shutil

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from nimbus_sd.simulate import Detector, Marker, simulate


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    """Three regions, two markers; the truth, blurred, as scores."""
    panel = {name: (Marker("membrane", 0.3), Detector()) for name in ("CD3", "CD20")}
    sdata = simulate(panel, {name: (1, (name,)) for name in panel}, n_regions=3, shape=(96, 96), rng=0)
    adata = sdata["table"]
    noise = np.random.default_rng(0).uniform(0, 0.45, adata.shape)
    adata.layers["nimbus"] = np.abs(adata.layers.pop("gold") - noise).astype(np.float32)
    places = []
    for region, cells in adata.obs.groupby("region", observed=True):
        pixels = sdata[region].to_numpy()
        places.append(np.array(center_of_mass(pixels > 0, pixels, cells["instance_id"]))[:, ::-1])
    adata.obsm["spatial"] = np.concatenate(places)
    path = tmp_path_factory.mktemp("scored") / "s.zarr"
    sdata.write(path)
    return path


@pytest.fixture
def store(scored, tmp_path):
    """A copy to change."""
    return shutil.copytree(scored, tmp_path / "s.zarr")
