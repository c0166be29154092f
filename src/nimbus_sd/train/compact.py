"""Train the bundled model: ``python -m nimbus_sd.train.compact FOLDER`` (or ``make weights``)."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from nimbus_sd.models import Card, UNet, save
from nimbus_sd.train.fit import fit

STEPS, BATCH_SIZE, SIZE, SEED = 4000, 8, 144, 0

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
        "Nimbus model."
    ),
    trained_on=(
        f"Simulated tissue (nimbus_sd.simulate): {STEPS} steps of {BATCH_SIZE} tiles of {SIZE} x {SIZE} pixels, "
        "cross-entropy of cell scores and pixels, AdamW in one cycle, averaged weights."
    ),
    source="nimbus_sd.train.compact",
)


def main() -> None:
    """Train, or go on from the folder's last checkpoint, and write ``compact.safetensors`` and its card there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    # The second core draws tiles; two processes of many threads each would slow one another down.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    torch.manual_seed(SEED)
    network = UNet(CARD.root_filters, CARD.depth, CARD.padding)
    fit(network, options.folder, steps=options.steps, batch_size=BATCH_SIZE, size=SIZE, seed=SEED)
    save(network, CARD, options.folder / "compact.safetensors")


if __name__ == "__main__":
    main()
