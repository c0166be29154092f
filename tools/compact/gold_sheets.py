"""Contact sheets for gold labels: ``python gold_sheets.py DATA SCORES FOLDER`` writes two shuffled sheets per channel.

Cells are of held-out fields only. Half are spread evenly over brightness, half are drawn where Otsu's threshold of the
cells' means and the earlier model's call (a table of its scores per data set, ``SCORES/<data set>.parquet``) disagree.
The sheets ``a_...`` and ``b_...`` show the same cells in another order, for two passes that know nothing of each other.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
from corpus import PIXEL_SIZE, Field, fields
from gate_sheets import SMALLEST_UM2, spread
from numpy.typing import NDArray
from sheets import draw_overview, draw_sheet, top_level
from skimage.filters import threshold_otsu

CELLS, COLUMNS, SIDE = 30, 6, 208
#: Channels judged in each data set.
CHANNELS = {
    "codex_lymphoid": [
        *("DAPI", "CD20", "CD3", "CD8", "CD4", "CD68", "CD31", "CD34", "FOXP3", "Ki-67", "CD11c", "CD45RO"),
        *("CD45RA", "PAX5", "BCL-6", "CD57", "CD163", "CD79a", "Podoplanin", "HLA DR"),
    ],
    "codex_intestine": ["CH_11", "CH_19", "CH_20", "CH_7", "nucleus"],
    "vectra_lymphoid": ["Alexa 594", "Cy5", "DAPI", "FITC"],
    "mif_breast": ["DAPI", "PDL1", "GZMB", "CK-EPCAM", "CD8a", "FOXP3"],
    "imc_spleen": [
        *("alphaSMA", "VIM", "CD11b", "CD45", "CD4", "CD68", "CD20", "CD8a", "CD3", "HistoneH3", "DNA1"),
    ],
    "mibi_breast": [
        *("CD20", "CD3", "CD31", "CD4", "CD44", "CD45", "CD68", "CD8", "CK5", "CK7", "ECAD", "ER", "HER2", "HH3"),
        *("HLADRDPDQ", "Ki67", "PanKRT", "SMA", "Tryptase", "VIM", "P63", "GLUT1"),
    ],
    "mibi_lymphoid": [
        *("CD11c", "CD14", "CD163", "CD20", "CD3", "CD31", "CD4", "CD45", "CD68", "CD8", "Foxp3", "HLA-DR"),
        *("Keratin-pan", "Ki67", "SMA", "Vimentin", "MPO", "dsDNA"),
    ],
}


def choose(
    means: NDArray[np.float64], disputed: NDArray[np.bool_], n: int, rng: np.random.Generator
) -> list[tuple[int, str]]:
    """Draw cells, each with the reason: even over brightness, or where two automatic calls disagree."""
    half = np.flatnonzero(disputed)
    if len(half) > n // 2:
        half = half[spread(means[half], n // 2, rng)]
    rest = np.setdiff1d(np.arange(len(means)), half)
    even = rest[spread(means[rest], n - len(half), rng)]
    return [(int(i), "even") for i in even] + [(int(i), "disputed") for i in half]


def main() -> None:
    """Write the sheets of all channels of some data sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=list(PIXEL_SIZE))
    options = parser.parse_args()
    for sub in ("a", "b", "key"):
        (options.folder / sub).mkdir(parents=True, exist_ok=True)
    for dataset in options.only:
        rng = np.random.default_rng(6)
        scores = pd.read_parquet(options.scores / f"{dataset}.parquet")
        held: list[Field] = [field for field in fields(options.data, dataset) if field.held_out.any()]
        for channel in CHANNELS[dataset]:
            table = scores[scores["channel"] == channel].set_index(["field", "label"])
            cut = threshold_otsu(table["mean"].to_numpy(float))
            cells = [
                (field, i)
                for field in held
                for i in np.flatnonzero(
                    field.held_out
                    & (np.bincount(field.labels.ravel())[field.cells] * field.pixel_size**2 >= SMALLEST_UM2)
                )
            ]
            own = table.loc[[(field.name, int(field.cells[i])) for field, i in cells]]
            disputed = ((own["mean"] >= cut) != (own["score"] >= 0.5)).to_numpy()
            drawn = choose(own["mean"].to_numpy(float), disputed, min(CELLS, len(cells)), rng)
            name, top = f"{dataset}__{re.sub(r'[^A-Za-z0-9]+', '-', channel)}", top_level(held, channel)
            for sheet in ("a", "b"):
                order = rng.permutation(len(drawn))
                picked = [cells[drawn[k][0]] for k in order]
                draw_sheet(options.folder / sheet / f"{name}.png", picked, channel, top, COLUMNS, SIDE)
                draw_overview(options.folder / sheet / f"{name}__fields.png", held[:2], channel, top)
                with open(options.folder / "key" / f"{sheet}_{name}.csv", "w", newline="") as file:
                    writer = csv.writer(file)
                    writer.writerow(["number", "dataset", "channel", "field", "label", "drawn"])
                    for number, (k, (field, i)) in enumerate(zip(order, picked, strict=True), 1):
                        writer.writerow([number, dataset, channel, field.name, field.cells[i], drawn[k][1]])


if __name__ == "__main__":
    main()
