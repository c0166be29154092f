"""Scores of the judged cells by a trained network: ``python score.py WORK NAME [--only DATASET ...] [--gold]``.

Writes ``WORK/runs/NAME/scores_DATASET.csv`` with the score of each cell of ``gold.csv`` and,
without ``--gold``, of ``gold_training.csv``. Fields are scored whole, by the code that `predict` uses for a tile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from corpus import PIXEL_SIZE
from numpy.typing import NDArray
from prepare import read_factors, read_means
from train import trained

from nimbus_sd.models import Model, Scorer
from nimbus_sd.pixels import BOUNDARY_UM, Grid, normalize, resize_image, resize_interior

HERE = Path(__file__).parent


def read_states() -> pd.DataFrame:
    """Read all judged cells: ``gold`` (True: for judging only), and ``drawn`` for those."""
    text = {"field": str, "state": str}
    gold, training = (pd.read_csv(HERE / f"{name}.csv", dtype=text) for name in ("gold", "gold_training"))
    return pd.concat([gold.assign(gold=True), training.assign(gold=False)], ignore_index=True)


def score_field(
    scorer: Scorer, image: NDArray, labels: NDArray, pixel_size: float, factors: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Mean score of each cell, by ascending id, in each channel: (n, C)."""
    card = scorer.card
    grid = Grid(labels.shape, pixel_size / card.pixel_size, card.stride)
    index = tuple(grid.mirrored(0, side, axis) for axis, side in enumerate(grid.padded_shape))
    inside = resize_interior(labels, grid, index, (0, 0), BOUNDARY_UM / card.pixel_size)
    rows, cols = (grid.model_index(slice(0, side), axis) for axis, side in enumerate(labels.shape))
    numbered = np.unique(labels, return_inverse=True)[1].ravel()
    size = np.bincount(numbered)[1:]
    scores = []
    for channel, factor in zip(image, factors, strict=True):
        scaled = resize_image(normalize(channel[None], np.array([factor])), grid, index, (0, 0))
        confidence = scorer(scaled, inside)[0][np.ix_(rows, cols)]
        scores.append(np.bincount(numbered, confidence.ravel())[1:] / size)
    return np.stack(scores, axis=1).astype(np.float32)


def score_judged(model: Model, work: Path, dataset: str, states: pd.DataFrame) -> pd.DataFrame:
    """Score judged cells of a data set: its rows of `read_states` with the column ``score``."""
    scorer, factors = Scorer(model), read_factors(work)[dataset]
    states, means = states[states["dataset"] == dataset], read_means(work, dataset)
    parts = []
    for name, rows in states.groupby("field"):
        channels, own = list(means[name]["channels"]), rows["channel"].unique()
        own = [channel for channel in own if channel in factors]
        image = np.load(work / "arrays" / f"{dataset}__{name}__image.npy", mmap_mode="r")
        labels = np.load(work / "arrays" / f"{dataset}__{name}__labels.npy")
        picked = image[[channels.index(channel) for channel in own]]
        scores = score_field(scorer, picked, labels, PIXEL_SIZE[dataset], np.array([factors[c] for c in own]))
        rows = rows[rows["channel"].isin(own)]
        at = np.searchsorted(means[name]["cells"], rows["label"]), [own.index(channel) for channel in rows["channel"]]
        parts.append(rows.assign(score=scores[at]))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("name")
    parser.add_argument("--only", nargs="*", default=list(PIXEL_SIZE))
    parser.add_argument("--start", default=HERE / "start.safetensors")
    parser.add_argument("--gold", action="store_true", help="only cells for judging")
    options = parser.parse_args()
    states = read_states()
    states = states[states["gold"]] if options.gold else states
    folder, model = options.work / "runs" / options.name, trained(options.work, options.name, options.start)
    folder.mkdir(parents=True, exist_ok=True)
    for dataset in options.only:
        if not (path := folder / f"scores_{dataset}.csv").exists():
            table = score_judged(model, options.work, dataset, states)
            table[["dataset", "channel", "field", "label", "gold", "score"]].to_csv(path, index=False)


if __name__ == "__main__":
    main()
