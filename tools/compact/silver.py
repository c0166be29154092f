"""Silver labels of the corpus: ``python silver.py DATA FOLDER`` writes the labels of each data set's training cells.

A cell's state in a channel comes from the gates of ``gates.csv`` (below the lower negative, from the upper on positive)
and from the cells judged one by one in ``gold_training.csv``. Gates know the mean only, so a positive becomes
undetermined where the mean may be another cell's: where a neighbour is much brighter, where a brighter marker excludes
it, and where the published cell types or thresholds of the data set say otherwise. Channels of quality ``exclude`` give
no positives: below their lower gate they show what is no signal.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from corpus import PIXEL_SIZE, Field, fields
from numpy.typing import NDArray
from skimage.segmentation import expand_labels

HERE = Path(__file__).parent
#: How much a label counts by the quality of its channel, and a cell that was judged itself.
WEIGHT = {"good": 1.0, "fair": 0.6, "exclude": 0.4}
JUDGED = 3.0
#: A neighbour this many times as bright can make a cell's mean positive by itself.
OUTSHONE = 2.5
#: Markers that no cell has both of.
KERATINS = ("PanKRT", "Keratin-pan", "CK-EPCAM", "ECAD", "E-cadherin")
EXCLUSIVE = [
    *(("CD3", other) for other in ("CD20", "CD19", "PAX5", "CD68", "CD14", *KERATINS)),
    *(("CD20", other) for other in ("CD68", "CD14", "CD8", "CD8a", "CD4", *KERATINS)),
    *(("CD45", other) for other in KERATINS),
    *(("CD8", other) for other in ("CD4", "CD68", *KERATINS)),
    *(("CD8a", other) for other in ("CD4", "CD68", "CK-EPCAM")),
    ("CD31", "CD45"),
    ("Alexa 594", "Cy5"),
    ("Alexa 594", "FITC"),
    ("FITC", "Cy5"),
]
#: States by the classes of imc_spleen: class -> channel -> state. Class 0 is B cells in some fields only.
SPLEEN_CLASSES = {
    0: {"CD20": 1, "CD3": 0, "CD68": 0},
    1: {"CD3": 1, "CD4": 1, "CD20": 0, "CD68": 0},
    2: {"CD3": 1, "CD8a": 1, "CD20": 0, "CD68": 0},
    4: {"CD68": 1, "CD3": 0, "CD20": 0},
}
B_CELL_FIELDS = ("r2", "r4", "r6")
#: Phenotypes of vectra_lymphoid: Alexa 594 is CD8, FITC CD4, Cy5 CD20.
VECTRA_TYPES = {
    "B": {"Alexa 594": 0, "FITC": 0, "Cy5": 1},
    "Helper T": {"Alexa 594": 0, "FITC": 1, "Cy5": 0},
    "Cytotoxic T": {"Alexa 594": 1, "FITC": 0, "Cy5": 0},
}


@dataclass
class Silver:
    """Labels of a field's n cells in its C channels.

    Parameters
    ----------
    states
        float32 (n, C): 1, 0, 0.5 undetermined, NaN where the channel has no labels.
    weights
        float32 (n, C).
    """

    states: NDArray[np.float32]
    weights: NDArray[np.float32]


def silver(field: Field, gates: pd.DataFrame, judged: pd.DataFrame) -> Silver:
    """Label the training cells of a field; held-out cells have no label.

    Parameters
    ----------
    field
        The field.
    gates
        Rows of ``gates.csv`` of its data set, by channel.
    judged
        Rows of ``gold_training.csv`` of the field.
    """
    shape = len(field.cells), len(field.channels)
    means = np.stack([field.means(channel) for channel in field.channels], axis=1)
    states, weights = np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32)
    relative = np.full(shape, np.nan)
    brightest = brightest_neighbour(field, means)
    for i, channel in enumerate(field.channels):
        if channel not in gates.index:
            continue
        gate = gates.loc[channel]
        upper = np.inf if gate.quality == "exclude" else gate.upper
        states[:, i] = np.select([means[:, i] >= upper, means[:, i] < gate.lower], [1.0, 0.0], 0.5)
        weights[:, i] = WEIGHT[gate.quality]
        relative[:, i] = means[:, i] / upper if np.isfinite(upper) else np.nan
        outshone = brightest[:, i] > OUTSHONE * means[:, i]
        states[outshone & (states[:, i] == 1), i] = 0.5
    for one, other in EXCLUSIVE:
        if one in field.channels and other in field.channels:
            a, b = field.channels.index(one), field.channels.index(other)
            both = (states[:, a] == 1) & (states[:, b] == 1)
            dimmer = np.where(relative[:, a] < relative[:, b], a, b)
            states[np.flatnonzero(both), dimmer[both]] = 0.5
    for channel, known in published(field).items():
        i = field.channels.index(channel)
        states[np.isfinite(known) & (states[:, i] != 0.5) & (states[:, i] != known), i] = 0.5
    for row in judged.itertuples():
        i, cell = field.channels.index(row.channel), int(np.searchsorted(field.cells, row.label))
        states[cell, i] = {"1": 1.0, "0": 0.0, "u": 0.5}[row.state]
        weights[cell, i] = JUDGED
    states[field.held_out] = np.nan
    return Silver(states, weights)


def without_noise(field: Field, found: Silver, denoised: Field) -> Silver:
    """Label the channels of a denoised field as those of the raw one; a positive without a signal is undetermined."""
    columns = [field.channels.index(channel) for channel in denoised.channels]
    states = found.states[:, columns].copy()
    dark = np.stack([denoised.means(channel) for channel in denoised.channels], axis=1) <= 0
    states[dark & (states == 1)] = 0.5
    return Silver(states, found.weights[:, columns])


def brightest_neighbour(field: Field, means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Highest mean among the cells within 2 um of each cell, (n, C); 0 where it has none."""
    grown = expand_labels(field.labels, max(1, round(1 / field.pixel_size)))
    pairs = [
        np.stack([first[touch], second[touch]], axis=1)
        for first, second in ((grown[1:], grown[:-1]), (grown[:, 1:], grown[:, :-1]))
        for touch in [(first != second) & (first > 0) & (second > 0)]
    ]
    left, right = np.searchsorted(field.cells, np.unique(np.concatenate(pairs), axis=0)).T
    found = np.zeros_like(means)
    np.maximum.at(found, left, means[right])
    np.maximum.at(found, right, means[left])
    return found


def published(field: Field) -> dict[str, NDArray[np.float64]]:
    """States that the authors' types and thresholds give, by channel; NaN where they say nothing."""
    states: dict[str, NDArray[np.float64]] = {}

    def set_states(labels: NDArray, channel: str, value: NDArray | float) -> None:
        column = states.setdefault(channel, np.full(len(field.cells), np.nan))
        column[np.isin(field.cells, labels)] = value

    if field.dataset == "mif_breast":
        table = pd.read_csv(field.folder / "cells.csv").drop_duplicates("label", keep=False)
        table = table[table["label"].isin(field.cells)].sort_values("label")
        for channel in ("CK-EPCAM", "CD8a", "GZMB"):
            set_states(table["label"].to_numpy(), channel, table[channel].astype(float).to_numpy())
    elif field.dataset == "vectra_lymphoid":
        table = pd.read_csv(field.folder / "cells.csv")
        for kind, own in VECTRA_TYPES.items():
            for channel, state in own.items():
                set_states(table.loc[table["Phenotype"] == kind, "Cell ID"].to_numpy(), channel, state)
    elif (field.folder / "classes.csv").exists():
        import tifffile

        typed = tifffile.imread(field.folder / "labels_typed.tif")
        table = pd.read_csv(field.folder / "classes.csv").set_index("label")["class"]
        # The typed cells have a mask of their own: a cell takes the class that most of its pixels have.
        own = field.labels > 0
        pixels = pd.DataFrame({"cell": field.labels[own], "class": table.reindex(typed[own]).to_numpy()}).dropna()
        most = pixels.groupby("cell")["class"].agg(lambda values: values.mode().iloc[0])
        for number, known in SPLEEN_CLASSES.items():
            if number or field.name in B_CELL_FIELDS:
                for channel, state in known.items():
                    set_states(most.index[most == number].to_numpy(), channel, state)
    return states


def read_gates() -> pd.DataFrame:
    """Read ``gates.csv``."""
    return pd.read_csv(HERE / "gates.csv")


def read_judged() -> pd.DataFrame:
    """Read ``gold_training.csv``."""
    return pd.read_csv(HERE / "gold_training.csv", dtype={"field": str, "state": str})


def main() -> None:
    """Write the labels of all fields."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    gates, judged = read_gates(), read_judged()
    for dataset in PIXEL_SIZE:
        own = gates[gates["dataset"] == dataset].set_index("channel")
        for field in fields(options.data, dataset):
            rows = judged[(judged["dataset"] == dataset) & (judged["field"] == field.name)]
            found = silver(field, own, rows)
            np.savez_compressed(
                options.folder / f"{dataset}__{field.name}.npz", states=found.states, weights=found.weights
            )
            known = [(found.states == value).sum() for value in (1, 0, 0.5)]
            print(dataset, field.name, "positive, negative, undetermined:", *known, flush=True)


if __name__ == "__main__":
    main()
