"""Contact sheets where gates are blind: ``python boundary_sheets.py DATA FOLDER`` writes a shuffled sheet per channel.

Two thirds of the cells lie around and between the gates, evenly over brightness; one third are as bright as a positive
cell but beside a brighter neighbour. Judged one by one, they join ``gold_training.csv``.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

import numpy as np
from corpus import PIXEL_SIZE, Field, fields
from gate_sheets import CELLS, FIELDS, SMALLEST_UM2, spread
from sheets import draw_overview, draw_sheet, top_level
from silver import brightest_neighbour, read_gates, read_judged

#: How far beyond the gates cells are drawn, and how much brighter a neighbour must be.
BEYOND, BRIGHTER = 1.8, 1.5


def main() -> None:
    """Write the sheets of all channels with a gate between two kinds of cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    gates, judged = read_gates(), read_judged()
    gates = gates[(gates["quality"] != "exclude") & np.isfinite(gates["lower"])]
    seen = set(zip(judged["dataset"], judged["channel"], judged["field"], judged["label"], strict=True))
    for dataset in PIXEL_SIZE:
        rng = np.random.default_rng(17)
        usable = [field for field in fields(options.data, dataset) if not field.held_out.all()]
        chosen: list[Field] = [usable[i] for i in sorted(rng.permutation(len(usable))[:FIELDS])]
        large = [np.bincount(f.labels.ravel())[f.cells] * f.pixel_size**2 >= SMALLEST_UM2 for f in chosen]
        own = [gate for gate in gates[gates["dataset"] == dataset].itertuples() if gate.channel in chosen[0].channels]
        means = [np.stack([f.means(gate.channel) for gate in own], axis=1) for f in chosen]
        beside = [brightest_neighbour(f, m) for f, m in zip(chosen, means, strict=True)]
        for number, gate in enumerate(own):
            places, values, bright = [], [], []
            for k, field in enumerate(chosen):
                mean = means[k][:, number]
                upper = gate.upper if np.isfinite(gate.upper) else mean.max()
                near = (mean >= gate.lower / BEYOND) & (mean <= upper * BEYOND) & large[k] & ~field.held_out
                for i in np.flatnonzero(near):
                    if (dataset, gate.channel, field.name, field.cells[i]) not in seen:
                        places.append((k, int(i)))
                        values.append(mean[i])
                        bright.append(mean[i] >= gate.lower and beside[k][i, number] >= BRIGHTER * mean[i])
            values, hidden = np.array(values), np.flatnonzero(bright)
            hidden = rng.permutation(hidden)[: CELLS // 3]
            rest = np.setdiff1d(np.arange(len(values)), hidden)
            if len(rest) + len(hidden) < CELLS // 2:
                continue
            picked = rest[spread(values[rest], min(CELLS - len(hidden), len(rest)), rng)]
            order = rng.permutation(np.concatenate([picked, hidden]))
            name = f"{dataset}__{re.sub(r'[^A-Za-z0-9]+', '-', gate.channel)}"
            top = top_level(chosen, gate.channel)
            cells = [(chosen[places[j][0]], places[j][1]) for j in order]
            draw_sheet(options.folder / f"{name}.png", cells, gate.channel, top)
            draw_overview(options.folder / f"{name}__fields.png", chosen[:2], gate.channel, top)
            with open(options.folder / f"{name}.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["number", "dataset", "channel", "field", "label"])
                for k, (field, i) in enumerate(cells, 1):
                    writer.writerow([k, dataset, gate.channel, field.name, field.cells[i]])


if __name__ == "__main__":
    main()
