"""Train a network on the corpus and on simulation: ``python train.py WORK NAME [--without DATASET ...]``.

It starts with the weights of ``--start`` (by default the version before this corpus), goes on from its last checkpoint,
and leaves ``WORK/runs/NAME/final.pt``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from corpus import DENOISED, PIXEL_SIZE
from fit import fit
from numpy.typing import NDArray
from prepare import read_factors, read_means
from tiles import Simulated, Source, batches

from nimbus_sd.models import Model, load

HERE = Path(__file__).parent
BATCH = 8
#: Added to the logits of a trained network. On judged training cells of left-out data sets 0 to 0.4 are nearly equal;
#: on gold cells of known sets, which were looked at, misses are more than false calls without it.
LEVEL = 0.3


def sources(
    work: Path,
    names: Iterable[str],
    factors: Mapping[str, Mapping[str, float]] | None = None,
    level: Callable[[str, str], NDArray[np.float32]] | None = None,
) -> list[Source]:
    """Open data sets to train on, with their measured factors or others, and what further planes tell of a channel."""
    factors, opened = factors or read_factors(work), []
    for dataset in names:
        channels = {name: [str(c) for c in field["channels"]] for name, field in read_means(work, dataset).items()}
        levels = {channel: level(dataset, channel) for channel in factors[dataset]} if level else None
        opened.append(Source(dataset, work / "arrays", work / "silver", dict(factors[dataset]), channels, levels))
    return opened


def trained(work: Path, name: str, start: str | Path) -> Model:
    """Read a network that was trained; that it started from, where there is no run of this name."""
    model, weights = load(start), work / "runs" / name / "final.pt"
    if weights.exists():
        model.network.load_state_dict(torch.load(weights, weights_only=True))
        with torch.no_grad():
            model.network.final_conv.bias += LEVEL
    return model


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("name")
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--start", default=HERE / "start.safetensors")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    names = [d for d in (*PIXEL_SIZE, "mibi_lymphoid" + DENOISED) if d.removesuffix(DENOISED) not in options.without]
    own, simulated = sources(options.work, names), Simulated(options.work / "simulated")
    folder = options.work / "runs" / options.name
    network = fit(
        load(options.start).network,
        folder,
        lambda step: batches(own, simulated, BATCH, options.seed, step),
        steps=options.steps,
    )
    torch.save(network.state_dict(), folder / "final.pt")


if __name__ == "__main__":
    main()
