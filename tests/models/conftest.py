"""A small random network, and the published layout's reference files where they are at hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from nimbus_sd.models import PUBLISHED, Model, UNet


@pytest.fixture(scope="session")
def network(random_network) -> UNet:
    """Stride 4."""
    return random_network(4, 3)


@pytest.fixture(scope="session")
def model(network: UNet) -> Model:
    return Model(replace(PUBLISHED, name="random", root_filters=4, depth=3), network)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with the published layout's random instance; not part of the repository."""
    folder = Path(__file__).parents[3] / "shared" / "reference"
    if not (folder / "unet_root8_random.pt").is_file():
        pytest.skip(f"the reference instance of the published network is not at {folder}")
    return folder
