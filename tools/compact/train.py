"""Train a network on the corpus and on simulation: ``python train.py WORK NAME [--without DATASET ...]``.

It starts with the weights of ``--start`` (by default the version before this corpus), goes on from its last checkpoint,
and leaves ``WORK/runs/NAME/final.pt``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from corpus import DENOISED, PIXEL_SIZE
from fit import fit
from prepare import read_factors, read_means
from tiles import Simulated, Source, batches

from nimbus_sd.models import Model, load

HERE = Path(__file__).parent
BATCH = 8
#: Added to the logits of a trained network. Noise-robust training leaves out more positives than negatives, so that a
#: network calls too few; chosen on judged training cells of data sets that were left out.
LEVEL = 0.3


def sources(work: Path, without: list[str]) -> list[Source]:
    """Open the data sets that are trained on."""
    factors = read_factors(work)
    return [
        Source(
            dataset,
            work / "arrays",
            work / "silver",
            factors[dataset],
            {name: [str(c) for c in field["channels"]] for name, field in read_means(work, dataset).items()},
        )
        for dataset in (*PIXEL_SIZE, "mibi_lymphoid" + DENOISED)
        if dataset.removesuffix(DENOISED) not in without
    ]


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
    own, simulated = sources(options.work, options.without), Simulated(options.work / "simulated")
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
