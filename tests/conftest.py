"""Small simulated tissue, small random networks, and a scoring that is as naive as it can be, to compare with."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import find_boundaries
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity
from standin_hub import Hub

from nimbus_sd.models import UNet

# A job in a shell's background ignores Ctrl-C, and so would the commands that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)

CHANNELS = ("DAPI", "CD3", "CD20", "PanCK")


def tissue(
    shape: tuple[int, int] = (120, 104), n_channels: int = 2, seed: int = 0, pitch: float = 13.0
) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Cells that touch, with gaps in their ids, and channels in which some of them are bright."""
    rng = np.random.default_rng(seed)
    height, width = shape
    n = max(1, round(height * width / pitch**2))
    centres = rng.uniform((0, 0), shape, (n, 2))
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    distance, nearest = cKDTree(centres).query(grid)
    labels = np.where(distance < pitch * rng.uniform(0.5, 0.9, n)[nearest], 3 * nearest + 2, 0).astype(np.int32)
    labels[np.bincount(labels.ravel())[labels] < 20] = 0
    channels = []
    for _ in range(n_channels):
        brightness = np.where(rng.random(n) < 0.4, rng.lognormal(4, 0.5, n), 2.0)
        light = ndimage.gaussian_filter(np.where(labels > 0, brightness[nearest], 1.0), 1.0)
        channels.append(rng.poisson(light + 1))
    return np.stack(channels).astype(np.uint16), labels


def make_sdata(
    images: Mapping[str, NDArray] | NDArray,
    labels: Mapping[str, NDArray] | NDArray,
    channels: tuple[str, ...] = CHANNELS,
    transformations: Mapping[str, Mapping[str, Any]] | None = None,
) -> SpatialData:
    """Build a SpatialData from arrays. Image ``x`` and labels ``x_cells`` share the coordinate system ``x``."""
    images = images if isinstance(images, Mapping) else {"fov": images}
    labels = labels if isinstance(labels, Mapping) else {"fov_cells": labels}
    places = {key: {key.removesuffix("_cells"): Identity()} for key in (*images, *labels)} | dict(transformations or {})
    return SpatialData(
        images={
            key: Image2DModel.parse(
                image, dims=("c", "y", "x"), c_coords=list(channels[: len(image)]), transformations=dict(places[key])
            )
            for key, image in images.items()
        },
        labels={
            key: Labels2DModel.parse(one, dims=("y", "x"), transformations=dict(places[key]))
            for key, one in labels.items()
        },
    )


def random_network(root_filters: int = 2, depth: int = 5, seed: int = 0) -> UNet:
    """A network in eval mode whose scores spread over (0, 1) and depend on far pixels."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(root_filters, depth)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.ndim == 4:
                fan_in = value[0].numel() if "upconv" not in name else value.shape[0]
                value.normal_(0, (2 / fan_in) ** 0.5, generator=rng)
            elif "bn_" in name and value.is_floating_point():
                value.uniform_(0.5, 1.5, generator=rng)
        image, labels = tissue((128, 128), 1, seed=100)
        inputs = np.stack([np.clip(image[0] / 100, 0, 1), naive_interior(labels)]).astype(np.float32)
        logits = network.eval()(torch.from_numpy(inputs)[None])
        network.final_conv.weight /= logits.std() / 2
        network.final_conv.bias.fill_(-float((logits / (logits.std() / 2)).median()))
    return network


def naive_interior(labels: NDArray) -> NDArray[np.bool_]:
    return (labels > 0) & ~find_boundaries(labels, connectivity=1, mode="inner")


def naive_scores(
    network: UNet,
    image: NDArray,
    labels: NDArray,
    factors: NDArray | list[float],
    scale: str | float,
    tta: bool = False,
) -> NDArray[np.float64]:
    """Score a whole image at once, cells x channels: every pixel by its own, exactly computed, position."""
    scale = Fraction(str(scale))
    shape = [max(1, -(-n * scale.numerator // scale.denominator)) for n in labels.shape]
    centres = [[min(max((i + Fraction(1, 2)) / scale - Fraction(1, 2), 0), n - 1) for i in range(m)]
               for m, n in zip(shape, labels.shape, strict=True)]  # fmt: skip
    enlarge = np.ix_(
        *([min(int(y * scale), m - 1) for y in range(n)] for m, n in zip(shape, labels.shape, strict=True))
    )
    stride = network.stride
    padding = [(0, max(2, -(-m // stride)) * stride - m) for m in shape]
    # Half a micrometre in each direction, that is half a pixel of the networks here, must be the same cell.
    half, around = Fraction(1, 2), []
    for dy, dx in ((0, 0), (-half, 0), (half, 0), (0, -half), (0, half)):
        places = [[min(max(floor((i + step) / scale), 0), n - 1) for i in range(m)]
                  for step, m, n in zip((dy, dx), shape, labels.shape, strict=True)]  # fmt: skip
        around.append(labels[np.ix_(*places)])
    inside = (around[0] > 0) & (np.array(around) == around[0]).all(axis=0)
    mask = np.pad(inside, padding, mode="reflect").astype(np.float32)
    coordinates = np.meshgrid(*(np.array(axis, float) for axis in centres), indexing="ij")
    ids = np.unique(labels[labels > 0])
    scores = []
    for channel, factor in zip(image, factors, strict=True):
        clipped = np.clip(channel / factor, 0, 1)
        small = ndimage.map_coordinates(clipped, coordinates, order=1, mode="nearest")
        pair = torch.from_numpy(np.stack([np.pad(small, padding, mode="reflect"), mask]).astype(np.float32))
        views = [(k, flip) for k in range(4) for flip in (False, True)] if tta else [(0, False)]
        total = 0
        for k, flip in views:
            view = torch.rot90(pair, k, (1, 2))
            view = view.flip(2) if flip else view
            with torch.no_grad():
                out = torch.sigmoid(network(view[None]))[0]
            total = total + torch.rot90(out.flip(2) if flip else out, -k, (1, 2))[0].double().numpy() / len(views)
        scores.append(ndimage.mean(total[enlarge], labels, ids))
    return np.stack(scores, axis=1)


@pytest.fixture(name="tissue", scope="session")
def _tissue() -> Callable[..., tuple[NDArray[np.uint16], NDArray[np.int32]]]:
    return tissue


@pytest.fixture(name="make_sdata", scope="session")
def _make_sdata() -> Callable[..., SpatialData]:
    return make_sdata


@pytest.fixture(name="naive_scores", scope="session")
def _naive_scores() -> Callable[..., NDArray[np.float64]]:
    return naive_scores


@pytest.fixture(name="random_network", scope="session")
def _random_network() -> Callable[..., UNet]:
    return random_network


@pytest.fixture(scope="session")
def deep_network() -> UNet:
    """Stride 16, halo 96, as the published model has them."""
    return random_network(2, 5)


@pytest.fixture(scope="session")
def deep(deep_network: UNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deep network as a file for ``predict(model=...)``; 1 um per pixel, mean of regions, quantile 0.999."""
    path = tmp_path_factory.mktemp("models") / "deep.pt"
    torch.save(deep_network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of stride 4 as a file, where only speed matters."""
    path = tmp_path_factory.mktemp("models") / "small.pt"
    torch.save(random_network(2, 3).state_dict(), path)
    return path


@pytest.fixture
def serve_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Start a stand-in for the hub, with an empty cache, and point the environment at both."""
    running = []

    def serve(kind: str, repository: str, files: dict[str, bytes]) -> Hub:
        running.append(Hub(kind, repository, files))
        monkeypatch.setenv("HF_ENDPOINT", running[-1].url)
        return running[-1]

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield serve
    for hub in running:
        hub.stop()


@pytest.fixture
def no_warning() -> Any:
    """Turn warnings of ours into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
