"""Measure which images the bundled model was trained on, as a table tells of them, and write that into its card.

The ranges hold the central 99 % of the statistics of one half of the simulated images (see
``nimbus_sd.metrics.image_statistics``); the other half tells how often an image of the same kind is outside of them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from nimbus_sd.metrics.image_statistics import describe, outside
from nimbus_sd.models import Card
from nimbus_sd.simulate import training_tiles

SEED, N_IMAGES, CENTRAL = 20261201, 400, 0.99
# As in training: side of a tile in model pixels, and the share of markers that are stains of all nuclei.
SIZE, COUNTERSTAIN = 288, 0.15


def simulated_statistics(half: int, number: int) -> dict[str, float]:
    """Describe one image of the last stage of training."""
    rng = np.random.default_rng([SEED, half, number])
    tile = next(training_tiles(rng, SIZE, markers=1, counterstain=COUNTERSTAIN))
    return describe(tile.expression[1:])


def ranges(measured: pd.DataFrame, held_out: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Central part of each statistic, and the share of other images outside of it."""
    found = {}
    for name in measured:
        low, high = measured[name].quantile([(1 - CENTRAL) / 2, (1 + CENTRAL) / 2])
        # Rounded outwards, so that a limit at 0 or 1 stays one.
        low, high = np.floor(low * 1e4) / 1e4, np.ceil(high * 1e4) / 1e4
        values = held_out[name].dropna()
        alarm = ((values < low) | (values > high)).mean()
        found[str(name)] = {"low": float(low), "high": float(high), "false_alarm": round(float(alarm), 4)}
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=N_IMAGES, help="in each half (default: %(default)s)")
    parser.add_argument("--card", type=Path, help="write the ranges into this card")
    options = parser.parse_args()
    measured, held_out = (
        pd.DataFrame([simulated_statistics(half, number) for number in range(options.images)]) for half in (0, 1)
    )
    found = ranges(measured, held_out)
    flagged = np.mean([bool(outside(row, found)) for row in held_out.dropna(how="all").to_dict("records")])
    print(pd.DataFrame(found).T.to_string())
    print(f"{flagged:.1%} of the held-out images are outside of one range or more")
    if options.card:
        card = Card.read(options.card)
        figures = {**card.figures, "simulated_share_outside_ranges": round(float(flagged), 4)}
        replace(card, ranges=found, figures=figures).write(options.card)


if __name__ == "__main__":
    main()
