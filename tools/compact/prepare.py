"""What training and judging read again and again, made once: arrays, cell means, factors, labels, simulated tiles.

    python prepare.py DATA WORK

WORK then holds ``arrays/`` (image and cells of each field as ``.npy``), ``means/`` (per field: ids, centres, areas in
pixels and mean intensities of its cells), ``factors.csv`` (by data set and channel), ``silver/`` and ``simulated/``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from corpus import PIXEL_SIZE, Field, fields
from numpy.typing import NDArray
from silver import Silver, read_gates, read_judged, silver, without_noise
from simulated import training_tiles

from nimbus_sd.pixels import OTSU_LEVELS, SQUARE_UM, Histogram, square_means

#: Files of simulated tiles, 12 each; their side in pixels of 0.5 um; share with an extra stain of all nuclei.
FILES, SIDE, COUNTERSTAIN, SEED = 220, 288, 0.15, 7_000_000


def prepare(data: Path, work: Path) -> None:
    """Make what is not there yet."""
    for name in ("arrays", "means", "silver", "simulated"):
        (work / name).mkdir(parents=True, exist_ok=True)
    gates, judged = read_gates(), read_judged()
    histograms: dict[tuple[str, str], Histogram] = {}
    for dataset in PIXEL_SIZE:
        own = gates[gates["dataset"] == dataset].set_index("channel")
        for field in fields(data, dataset):
            print(dataset, field.name, flush=True)
            found = silver(field, own, judged[(judged["dataset"] == dataset) & (judged["field"] == field.name)])
            _keep(field, found, work, histograms)
            if (denoised := field.denoised) is not None:
                _keep(denoised, without_noise(field, found, denoised), work, histograms)
    factors = [(*key, OTSU_LEVELS * histogram.otsu()) for key, histogram in histograms.items()]
    pd.DataFrame(factors, columns=["dataset", "channel", "factor"]).to_csv(work / "factors.csv", index=False)
    for number in range(FILES):
        if not (path := work / "simulated" / f"{number:04d}.npz").exists():
            np.savez(path, **_simulated(number))


def _keep(field: Field, found: Silver, work: Path, histograms: dict[tuple[str, str], Histogram]) -> None:
    """Write a field, and add it to each channel's histogram, as `predict` measures the factor."""
    key = f"{field.dataset}__{field.name}"
    np.save(work / "arrays" / f"{key}__image.npy", field.image)
    np.save(work / "arrays" / f"{key}__labels.npy", field.labels.astype(np.int32))
    np.savez_compressed(
        work / "means" / f"{key}.npz",
        cells=field.cells,
        centres=field.centres,
        area=np.bincount(field.labels.ravel())[field.cells],
        means=np.stack([field.means(channel) for channel in field.channels], axis=1).astype(np.float32),
        held_out=field.held_out,
        channels=np.array(field.channels),
    )
    np.savez_compressed(work / "silver" / f"{key}.npz", states=found.states, weights=found.weights)
    side = max(1, round(SQUARE_UM / field.pixel_size))
    squares = square_means(field.image, field.labels > 0, side)
    for channel, values in zip(field.channels, squares, strict=True):
        histograms.setdefault((field.dataset, channel), Histogram(np.dtype(np.float32))).add(values, zeros=True)


def _simulated(number: int) -> dict[str, NDArray]:
    tiles = list(
        training_tiles(np.random.default_rng([SEED, number]), SIDE, markers=6, regions=2, counterstain=COUNTERSTAIN)
    )
    return {
        "image": np.stack([tile.image for tile in tiles]).astype(np.float16),
        "interior": np.stack([tile.interior for tile in tiles]),
        "cells": np.stack([tile.cells for tile in tiles]).astype(np.int16),
        "n": np.array([len(tile.labels) for tile in tiles]),
        "labels": np.concatenate([tile.labels for tile in tiles]),
        "expression": np.concatenate([tile.expression for tile in tiles]),
    }


def read_means(work: Path, dataset: str) -> dict[str, dict[str, NDArray]]:
    """Read the cell means of a data set's fields, by name."""
    found = {}
    for path in sorted((work / "means").glob(f"{dataset}__*.npz")):
        with np.load(path) as stored:
            found[path.stem.partition("__")[2]] = dict(stored)
    return found


def read_factors(work: Path) -> dict[str, dict[str, float]]:
    """Read the normalisation factors: data set -> channel -> factor."""
    table = pd.read_csv(work / "factors.csv").dropna()
    return {
        dataset: dict(zip(rows["channel"], rows["factor"], strict=True)) for dataset, rows in table.groupby("dataset")
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    prepare(options.data, options.work)
