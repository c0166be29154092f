"""Train the bundled model: ``python -m nimbus_sd.train.compact FOLDER`` (or ``make weights``)."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from nimbus_sd.models import Card, UNet, load, save
from nimbus_sd.train.fit import fit
from nimbus_sd.train.stream import SimulatedTiles

BATCH_SIZE, SIZE, SEED = 8, 288, 2_000_000
STEPS, FINE_STEPS = 6000, 3600
# The second stage shows more of what every slide has and single markers rarely are: a stain of all nuclei.
COUNTERSTAIN = 0.15

CARD = Card(
    name="compact",
    root_filters=16,
    depth=5,
    patch=2,
    padding="zeros",
    pixel_size=0.5,
    rule="otsu",
    quantile=None,
    tta=False,
    boundary="cell",
    license="BSD-3-Clause",
    revision="4",
    description=(
        "Small residual U-Net for a laptop. It has never seen real tissue and is not the published Nimbus model. On "
        "three tissues judged by eye its calls at 0.5 did better than Otsu's threshold on integrated expression; the "
        "simulator was changed after looks at them, and the weights were chosen among several by them, so others may "
        "fare worse. It calls too many cells positive where a marker is rare (under about 5 % of cells) and misses dim "
        "ones where it is common; images of few counts are the hardest. It also misses membranes that lie outside of "
        "nuclear masks. Look at the pictures before using its calls."
    ),
    # Of the weights in the package; those that `main` makes say what it did.
    trained_on=(
        "Simulated tissue (nimbus_sd.simulate): 250 steps of 8 tiles of 144 x 144 um at 0.5 um per pixel from "
        "compact-3, whose 12100 steps from compact-2 were several cycles, while the simulator was changed after looks "
        "at a development set of real tissue. The loss is the cross-entropy of cell scores and pixels, a tile's "
        "positive and negative cells weighted by the root of their numbers; AdamW. The weights are averaged over the "
        "last steps and stored in 16 bits."
    ),
    source="nimbus_sd.train.compact",
)


def main() -> None:
    """Train, or go on from the folder's last checkpoint, and write ``compact.safetensors`` and its card there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", help="begin with the weights of this model, at the second stage")
    options = parser.parse_args()
    # The second core draws tiles; two processes of many threads each would slow one another down.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 2) - 1))))
    torch.manual_seed(SEED)
    network = UNet(CARD.root_filters, CARD.depth, CARD.padding, CARD.patch)
    if options.start:
        network.load_state_dict(load(options.start).network.state_dict())
    else:
        fit(network, options.folder / "1", SimulatedTiles(SEED, SIZE), steps=STEPS, batch_size=BATCH_SIZE)
    more = SimulatedTiles(SEED + 3_000_000, SIZE, counterstain=COUNTERSTAIN)
    fit(network, options.folder / "2", more, steps=FINE_STEPS, batch_size=BATCH_SIZE, learning_rate=1e-3)
    trained_on = f"Simulated tissue (nimbus_sd.simulate): {FINE_STEPS} steps of 8 tiles of {SIZE} x {SIZE} pixels"
    trained_on += f", starting with {options.start}." if options.start else f", after {STEPS} with fewer counterstains."
    told = "Small residual U-Net, trained on simulated tissue. Nothing has been measured of these weights."
    save(
        network,
        replace(CARD, description=told, trained_on=trained_on),
        options.folder / "compact.safetensors",
        half=True,
    )


if __name__ == "__main__":
    main()
