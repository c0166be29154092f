"""Compare ways to tell the network a channel's level: ``python level.py WORK {otsu,quantile,planes}``.

Each trains for 1,000 steps from the same weights on four data sets (``TRAINED``), and is judged on the judged training
cells of two others (``JUDGED``), so that gold labels have no part in the choice. ``otsu`` is today's rule, ``quantile``
the paper's (the 0.999 quantile of positive pixels), ``planes`` adds constant planes with quantiles of the cells' means.
Beside them ``head`` was tried: a logistic regression on the score, the cell's mean and quantiles of its channel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from corpus import PIXEL_SIZE
from fit import fit
from numpy.typing import NDArray
from prepare import read_factors, read_means
from score import read_states, score_field
from sklearn.metrics import f1_score
from tables import best_f1, channel_means
from tiles import Simulated, Source, Tile, batches

from nimbus_sd.models import Scorer, load, unet

TRAINED = ("codex_lymphoid", "mibi_lymphoid", "vectra_lymphoid", "mif_breast")
JUDGED = ("imc_spleen", "codex_intestine")
STEPS, SEED = 1000, 1
QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.97, 0.99)


def planes(relative: NDArray) -> NDArray[np.float32]:
    """Logarithms of quantiles of the cells' means over the factor, and the share of cells at 0."""
    level = np.log(np.maximum(np.quantile(relative, QUANTILES), 0) + 1e-3)
    return (np.append(level, (relative <= 0).mean()) / 3).astype(np.float32)


def quantile_factors(work: Path, dataset: str) -> dict[str, float]:
    """Find the 0.999 quantile of a channel's positive pixels, of at most 40,000 of each field."""
    found: dict[str, list[NDArray]] = {}
    rng = np.random.default_rng(0)
    for name, field in read_means(work, dataset).items():
        image = np.load(work / "arrays" / f"{dataset}__{name}__image.npy", mmap_mode="r")
        for channel, pixels in zip(field["channels"], image, strict=True):
            above = pixels[pixels > 0]
            if len(above):
                found.setdefault(str(channel), []).append(rng.choice(above, min(len(above), 40_000)))
    joined = {channel: np.concatenate(parts) for channel, parts in found.items()}
    return {channel: float(np.quantile(values, 0.999)) for channel, values in joined.items()}


class Rescaled(Simulated):
    """Simulated tiles divided by the 0.999 quantile of their positive pixels."""

    def draw(self, rng: np.random.Generator) -> Tile:
        """Draw a tile."""
        tile = super().draw(rng)
        above = tile.image[tile.image > 0]
        tile.image = np.clip(tile.image / max(np.quantile(above, 0.999) if len(above) else 1, 1e-3), 0, 1)
        return tile


def widened(network: unet.UNet, more: int) -> unet.UNet:
    """Give a network further input planes, which do nothing at first."""
    old = network.contracting_layers[0]
    per_patch = network.patch**2
    new = unet.Block((2 + more) * per_patch, network.root_filters, network.padding)
    weight = torch.zeros_like(new.conv2d_0.weight)
    weight[:, : 2 * per_patch] = old.conv2d_0.weight
    new.load_state_dict(old.state_dict() | {"conv2d_0.weight": weight})
    network.contracting_layers[0] = new
    unet.IN_CHANNELS = 2 + more
    return network


def main() -> None:
    """Train one of them and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("variant", choices=["otsu", "quantile", "planes"])
    options = parser.parse_args()
    work, variant = options.work, options.variant
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    measured = read_factors(work)
    factors = {d: quantile_factors(work, d) if variant == "quantile" else measured[d] for d in (*TRAINED, *JUDGED)}

    def level(dataset: str, channel: str) -> NDArray[np.float32]:
        means = np.concatenate([own for _, own in channel_means(work, dataset, channel).values()])
        return planes(means / factors[dataset][channel])

    sources = [
        Source(
            dataset,
            work / "arrays",
            work / "silver",
            factors[dataset],
            {name: [str(c) for c in field["channels"]] for name, field in read_means(work, dataset).items()},
            {channel: level(dataset, channel) for channel in factors[dataset]} if variant == "planes" else None,
        )
        for dataset in PIXEL_SIZE
        if dataset in TRAINED
    ]
    kind = Rescaled if variant == "quantile" else Simulated
    simulated = kind(work / "simulated", planes if variant == "planes" else None)
    model = load(Path(__file__).parent / "start.safetensors")
    network = widened(model.network, len(QUANTILES) + 1) if variant == "planes" else model.network
    folder = work / "runs" / f"level_{variant}"
    trained = fit(network, folder, lambda step: batches(sources, simulated, 8, SEED, step), steps=STEPS)
    model.network.load_state_dict(trained.state_dict())
    states = read_states()
    states = states[~states["gold"] & (states["state"] != "u")]
    for dataset in JUDGED:
        own = states[states["dataset"] == dataset]
        print(variant, dataset, _judge(model, work, dataset, own, factors[dataset], level))


def _judge(model, work: Path, dataset: str, states: pd.DataFrame, factors, level) -> str:  # type: ignore[no-untyped-def]
    scorer, means, parts = Scorer(model, precision="float32"), read_means(work, dataset), []
    for (name, channel), rows in states.groupby(["field", "channel"]):
        at = list(means[name]["channels"]).index(channel)
        image = np.load(work / "arrays" / f"{dataset}__{name}__image.npy", mmap_mode="r")[[at]]
        labels = np.load(work / "arrays" / f"{dataset}__{name}__labels.npy")
        # Planes are constant, so that the scorer's two inputs are widened inside of the network.
        extra = level(dataset, channel) if unet.IN_CHANNELS > 2 else np.zeros(0, np.float32)
        scorer._network = _WithPlanes(scorer._network, extra)
        scores = score_field(scorer, image, labels, PIXEL_SIZE[dataset], np.array([factors[channel]]))
        scorer._network = scorer._network.network
        parts.append(rows.assign(score=scores[np.searchsorted(means[name]["cells"], rows["label"]), 0]))
    found = [
        (f1_score(truth, values >= 0.5), best_f1(truth, values))
        for _, cells in pd.concat(parts).groupby("channel")
        for truth, values in [((cells["state"] == "1").to_numpy(), cells["score"].to_numpy())]
        if truth.any()
    ]
    return "F1 at 0.5 {:.3f}, at the best threshold of each channel {:.3f}".format(*np.mean(found, axis=0))


class _WithPlanes(torch.nn.Module):
    """A network that is given the same constants beside each image."""

    def __init__(self, network: torch.nn.Module, planes: NDArray[np.float32]) -> None:
        super().__init__()
        self.network, self.planes = network, torch.from_numpy(planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        more = self.planes[None, :, None, None].expand(len(x), -1, *x.shape[2:])
        return self.network(torch.cat([x, more.to(x.dtype)], dim=1))


if __name__ == "__main__":
    main()
