"""Make peer_reference.npz: what Nimbus-Inference 0.0.5 makes of two small simulated images.

Run in an environment of its own, see README.md. Tests use `weights`, so that the network need not be stored.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

CHANNELS = ("CD3", "CD8")
FACTORS = {"CD3": 120.0, "CD8": 25.0}
ROOT_FILTERS = 8
# Chosen once, so that the scores of the cells spread over (0, 1).
GAIN, BIAS = 0.3, -0.6


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Draw a state dict from numpy's legacy generator, whose numbers never change; in order of the names."""
    rng = np.random.RandomState(20240518)
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if len(shape) == 4:
            fan_in = shape[0] if "upconv" in name else np.prod(shape[1:])
            state[name] = rng.normal(0, np.sqrt((1 if "conv2d_0" in name else 2) / fan_in), shape)
        elif name.endswith(("bn_1.weight", "bn_2.weight", "running_var")):
            state[name] = rng.uniform(0.6, 1.4, shape)
        else:
            state[name] = rng.normal(0, 0.1, shape) if shape else np.zeros(shape)
    state["final_conv.weight"] *= GAIN
    state["final_conv.bias"][:] = BIAS
    return {name: value.astype(np.float32) for name, value in state.items()}


def tissue(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Round cells that touch, ids with gaps, one cell of 2 x 2 pixels; CD3 dense, CD8 sparse."""
    from scipy import ndimage

    rng = np.random.RandomState(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    corners = np.stack(np.meshgrid(*(np.arange(8, n, 27) for n in shape), indexing="ij"), -1).reshape(-1, 2)
    centres = corners + rng.uniform(-6, 6, corners.shape)
    distance = np.linalg.norm(grid[:, :, None] - centres, axis=-1)
    nearest = distance.argmin(-1)
    inside = distance.min(-1) < rng.uniform(9, 15, len(centres))[nearest]
    labels = np.where(inside, 3 * nearest + 2, 0).astype(np.int32)
    labels[1:3, 1:3] = labels.max() + 1
    image = []
    for background, level in ((2.0, 40.0), (0.02, 8.0)):
        bright = np.where(rng.uniform(size=len(centres)) < 0.4, rng.lognormal(0, 0.5, len(centres)), 0.03)
        light = ndimage.gaussian_filter(np.where(inside, bright[nearest], 0) * level, 1.5)
        image.append(rng.poisson(light + background))
    return np.stack(image).astype(np.uint8), labels


def run_peer(folder: Path, fovs: list[str], factors: dict[str, float] | None, checkpoint: str):
    """Run the peer's whole pipeline without test-time augmentation; with its own factors where none are given."""
    from nimbus_inference.nimbus import Nimbus, prep_naming_convention
    from nimbus_inference.utils import MultiplexDataset

    out = Path(tempfile.mkdtemp(dir=folder))
    dataset = MultiplexDataset(
        fov_paths=[str(folder / "fovs" / fov) for fov in fovs],
        segmentation_naming_convention=prep_naming_convention(str(folder / "masks")),
        suffix=".tiff",
        magnification=20,
        output_dir=str(out),
    )
    if factors is None:
        random.seed(0)
        dataset.prepare_normalization_dict(n_subset=None, overwrite=True)
    else:
        (out / "normalization_dict.json").write_text(json.dumps({key: str(value) for key, value in factors.items()}))
        dataset.prepare_normalization_dict()
    nimbus = Nimbus(dataset, str(out), save_predictions=False, test_time_aug=False, device="cpu", checkpoint=checkpoint)
    table = nimbus.predict_fovs()
    return table, dataset.normalization_dict


def main(target: Path) -> None:
    import nimbus_inference
    import nimbus_inference.nimbus
    import tifffile
    import torch
    from nimbus_inference.unet import UNet

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    data = {"a": tissue((256, 256), 1), "b": tissue((160, 192), 2)}
    data["b"][0][1] = 0  # CD8 without signal in the second image
    (folder / "masks").mkdir()
    for fov, (image, labels) in data.items():
        (folder / "fovs" / fov).mkdir(parents=True)
        for channel, pixels in zip(CHANNELS, image, strict=True):
            tifffile.imwrite(folder / "fovs" / fov / f"{channel}.tiff", pixels)
        tifffile.imwrite(folder / "masks" / f"{fov}_whole_cell.tiff", labels)

    small = partial(UNet, filters_root=ROOT_FILTERS)
    nimbus_inference.nimbus.UNet = small
    shapes = {name: tuple(value.shape) for name, value in small(num_classes=1).state_dict().items()}
    state = {name: torch.from_numpy(value) for name, value in weights(shapes).items()}
    checkpoint = Path(nimbus_inference.__file__).parent / "assets" / "peer_reference_tmp.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    torch.save(state, checkpoint)
    try:
        given, _ = run_peer(folder, ["a"], FACTORS, checkpoint.name)
        own, factors = run_peer(folder, ["a", "b"], None, checkpoint.name)
    finally:
        checkpoint.unlink()
    arrays = {
        f"{kind}_{fov}": array
        for fov, pair in data.items()
        for kind, array in zip(("image", "labels"), pair, strict=True)
    }
    for name, table in (("given", given), ("own", own)):
        arrays[f"{name}_fov"] = table["fov"].to_numpy(str)
        arrays[f"{name}_label"] = table["label"].to_numpy(np.int64)
        arrays[f"{name}_scores"] = table[list(CHANNELS)].to_numpy(np.float32)
    arrays["own_factors"] = np.array([float(factors[channel]) for channel in CHANNELS])
    np.savez_compressed(target, **arrays)
    print(arrays["own_factors"], target.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("peer_reference.npz")))
