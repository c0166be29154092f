"""Train the bundled model: ``python -m nimbus_sd.train.compact FOLDER`` (or ``make weights``)."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from nimbus_sd.models import Card, UNet, save
from nimbus_sd.train.fit import fit
from nimbus_sd.train.stream import SimulatedTiles

BATCH_SIZE, SIZE, SEED = 8, 144, 0
STEPS, FINE_STEPS = 4000, 1800
# What the first stage left weakest on: small cells in dense sheets, and images in which all cells are positive.
LYMPHOID, COUNTERSTAIN = 0.3, 0.12

CARD = Card(
    name="compact",
    root_filters=16,
    depth=5,
    padding="zeros",
    pixel_size=1.0,
    rule="mean_of_regions",
    quantile=0.999,
    tta=False,
    license="BSD-3-Clause",
    description=(
        "Small residual U-Net for a first look on a laptop. It has never seen real tissue and is not the published "
        "Nimbus model. On real tissue it is not reliable yet: it missed all nuclei of a dense Vectra image and called "
        "neighbours in dense sheets positive. Look at the pictures before using its calls."
    ),
    trained_on=(
        f"Simulated tissue (nimbus_sd.simulate): {STEPS} steps of {BATCH_SIZE} tiles of {SIZE} x {SIZE} pixels, then "
        f"{FINE_STEPS} with more densely packed small cells and more images in which all are positive; "
        "cross-entropy of cell scores and pixels, AdamW in one cycle, averaged weights."
    ),
    source="nimbus_sd.train.compact",
)


def main() -> None:
    """Train, or go on from the folder's last checkpoints, and write ``compact.safetensors`` and its card there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    # The second core draws tiles; two processes of many threads each would slow one another down.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    torch.manual_seed(SEED)
    network = UNet(CARD.root_filters, CARD.depth, CARD.padding)
    fit(network, options.folder / "1", SimulatedTiles(SEED, SIZE), steps=STEPS, batch_size=BATCH_SIZE)
    harder = SimulatedTiles(SEED + 1_000_000, SIZE, lymphoid=LYMPHOID, counterstain=COUNTERSTAIN)
    fit(network, options.folder / "2", harder, steps=FINE_STEPS, batch_size=BATCH_SIZE, learning_rate=1e-3)
    save(network, CARD, options.folder / "compact.safetensors")


if __name__ == "__main__":
    main()
