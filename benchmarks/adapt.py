"""How far ten labels of one's own move a marker's line: the prior of ``tl.adapt``, and F1 by number of labels.

``python benchmarks/adapt.py SCORES LABELS`` reads a folder of ``<dataset>.parquet`` (columns channel, field, label,
score, mean: all cells of real tissue) and a CSV of labels by eye (dataset, channel, field, label, state: 1, 0 or u).
In each draw half of a channel's labelled cells may be labelled by the simulated user, who takes the first 2, 5, 10 or
20: in turn the one that the model is most unsure of and a bright one (``mixed``), or at ``random``. The other half,
the same for all, judges. Neither is part of this repository.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from nimbus_sd.tl.calibrate import PRIOR, f1_and_log_loss, fit_line, move

COUNTS = (2, 5, 10, 20)
SLOPES, OFFSETS = (0.05, 0.25, 0.5, 1.0, 2.0), (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


def labelled(scores: Path, labels: Path) -> pd.DataFrame:
    """Cells with a state of 1 or 0 and a score."""
    tables = [pd.read_parquet(path).assign(dataset=path.stem) for path in sorted(scores.glob("*.parquet"))]
    states = pd.read_csv(labels).query("state != 'u'").astype({"state": int})
    return states.merge(pd.concat(tables), on=["dataset", "channel", "field", "label"]).dropna(subset=["score"])


def mixed(scores: np.ndarray, means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order in which a user labels cells: the most unsure and one of the brighter half, in turn; then the rest."""
    unsure = np.argsort(np.abs(scores - 0.5), kind="stable")
    bright = rng.permutation(np.flatnonzero(means >= np.median(means)))
    turns = np.column_stack([unsure[: len(bright)], bright]).ravel()
    return np.array(list(dict.fromkeys([*turns, *unsure])))


def draw(cells: pd.DataFrame, rng: np.random.Generator) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield what the user may label, in order, and what judges, for both ways to choose."""
    cells = cells.iloc[rng.permutation(len(cells))]
    own, others = cells.iloc[: len(cells) // 2], cells.iloc[len(cells) // 2 :]
    yield "mixed", own.iloc[mixed(own["score"].to_numpy(), own["mean"].to_numpy(), rng)], others
    yield "random", own, others


def measure(cells: pd.DataFrame, draws: int, priors: list[tuple[float, float]]) -> pd.DataFrame:
    """Figures before and after of each channel, draw, choice, number of labels and prior."""
    rows = []
    for place, channel in cells.groupby(["dataset", "channel"]):
        # The same draws whatever other data sets are there.
        seed = zlib.crc32("/".join(place).encode())
        for turn in range(draws):
            for choice, own, others in draw(channel, np.random.default_rng([seed, turn])):
                scores, positive = others["score"].to_numpy(), others["state"].to_numpy() == 1
                for count, prior in product(COUNTS, priors):
                    used = own.iloc[:count]
                    line = fit_line(used["score"].to_numpy(), used["state"].to_numpy() == 1, prior)
                    figures = f1_and_log_loss(scores, move(scores, *line), positive)
                    rows.append((*place, choice, count, *prior, *figures.values()))
    columns = ["dataset", "channel", "choice", "labels", "slope_sd", "offset_sd", *figures]
    return pd.DataFrame(rows, columns=columns)


def gains(found: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over channels (of each, over its draws) before and after."""
    figures = ["f1_before", "f1_after", "log_loss_before", "log_loss_after"]
    channels = found.groupby([*by, "dataset", "channel"])[figures].mean()
    return channels.groupby(by).mean().assign(channels=channels["f1_before"].groupby(by).count())


def elsewhere(found: pd.DataFrame) -> pd.DataFrame:
    """Figures of each data set with the prior that has the best mean F1 on the others."""
    prior, parts = ["slope_sd", "offset_sd"], []
    for dataset, own in found.groupby("dataset"):
        others = gains(found[found["dataset"] != dataset], [*prior, "labels"])["f1_after"]
        best = tuple(map(float, others.groupby(prior).mean().idxmax()))
        print(f"{dataset}: log slope and offset {best} by the other data sets")
        parts.append(own[(own[prior] == best).all(axis=1)])
    return gains(pd.concat(parts), ["labels"])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--grid", action="store_true", help="compare priors; else the one in use")
    options = parser.parse_args()
    if not options.labels.is_file() or not list(options.scores.glob("*.parquet")):
        print(f"skipped: there is no {options.labels}, or no <dataset>.parquet in {options.scores}")
        return
    cells = labelled(options.scores, options.labels)
    found = measure(cells, options.draws, list(product(SLOPES, OFFSETS)) if options.grid else [PRIOR])
    if options.grid:
        table = gains(found, ["slope_sd", "offset_sd", "labels"])
        print(elsewhere(found).round(3).to_string())
        for name in ("f1", "log_loss"):
            gain = (table[f"{name}_after"] - table[f"{name}_before"]).unstack("labels")
            print(f"change of {name}\n{gain.assign(mean=gain.mean(axis=1)).round(4).to_string()}")
        return
    print(gains(found, ["choice", "labels"]).round(3).to_string())
    print(gains(found, ["dataset", "labels"]).round(3).to_string())


if __name__ == "__main__":
    main()
