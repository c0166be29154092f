"""Contact sheets for gates: ``python gate_sheets.py DATA FOLDER`` writes a sheet, an overview and a key per channel."""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

import numpy as np
from corpus import PIXEL_SIZE, Field, fields
from numpy.typing import NDArray
from sheets import draw_overview, draw_sheet, top_level

#: Channels that stain no cells: elements of the slide and of the instrument.
ELEMENTS = ("Au", "Background", "C", "Ca", "Na", "P", "Si", "Ta")
CELLS, FIELDS, SMALLEST_UM2 = 48, 8, 12.0


def spread(values: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw n positions evenly over the range of brightness, on a scale that is linear for dim and log for bright."""
    unit = max(np.quantile(values, 0.9), 0.2 * np.quantile(values, 0.99), 0.05 * values.max(), 1e-9)
    level = np.arcsinh(5 * values / unit)
    picked: list[int] = []
    for wanted in np.linspace(*np.quantile(level, [0.05, 0.9995]), n):
        near = np.argsort(np.abs(level - wanted))
        picked.append(int(rng.choice([i for i in near[: n + 5] if i not in picked][:4])))
    return np.array(sorted(picked, key=lambda i: values[i]))


def pool(data: Path, dataset: str, rng: np.random.Generator) -> list[Field]:
    """Choose the fields of a data set that a gate is judged on: some of those with cells to train on."""
    usable = [field for field in fields(data, dataset) if not field.held_out.all()]
    return [usable[i] for i in sorted(rng.permutation(len(usable))[:FIELDS])]


def main() -> None:
    """Write the sheets of all channels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for dataset in PIXEL_SIZE:
        rng = np.random.default_rng(5)
        chosen = pool(options.data, dataset, rng)
        sizes = [np.bincount(f.labels.ravel())[f.cells] * f.pixel_size**2 for f in chosen]
        places = [
            (k, i)
            for k, (f, size) in enumerate(zip(chosen, sizes, strict=True))
            for i in np.flatnonzero(~f.held_out & (size >= SMALLEST_UM2))
        ]
        for channel in (c for c in chosen[0].channels if c not in ELEMENTS and all(c in f.channels for f in chosen)):
            means = [f.means(channel) for f in chosen]
            values = np.array([means[k][i] for k, i in places])
            picked = spread(values, CELLS, rng)
            name = f"{dataset}__{re.sub(r'[^A-Za-z0-9]+', '-', channel)}"
            top = top_level(chosen, channel)
            draw_sheet(
                options.folder / f"{name}.png", [(chosen[places[j][0]], places[j][1]) for j in picked], channel, top
            )
            by_share = sorted(range(len(chosen)), key=lambda k: np.quantile(means[k], 0.95))
            shown = sorted({by_share[-1], by_share[len(by_share) // 3]})
            draw_overview(options.folder / f"{name}__fields.png", [chosen[k] for k in shown], channel, top)
            with open(options.folder / f"{name}.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["number", "dataset", "channel", "field", "label", "mean"])
                for number, j in enumerate(picked, 1):
                    k, i = places[j]
                    writer.writerow([number, dataset, channel, chosen[k].name, chosen[k].cells[i], f"{values[j]:.6g}"])


if __name__ == "__main__":
    main()
