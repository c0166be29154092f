"""Measure scores of judged cells beside thresholds on their mean intensity.

F1 and AUROC are averaged over the channels of a data set that have a sure positive cell; states that the two passes did
not agree on are left out. Automatic thresholds see the means of all cells of the data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prepare import read_means
from scipy.stats import rankdata
from skimage.filters import threshold_li, threshold_yen
from sklearn.metrics import f1_score

from nimbus_sd._table import scaled_arcsinh
from nimbus_sd.metrics import find_threshold

SCALES = {"": lambda x: x, " of arcsinh": lambda x: scaled_arcsinh(x[:, None])[:, 0]}
RULES = {
    "otsu": lambda x: find_threshold(x, "otsu"),
    "li": threshold_li,
    "yen": threshold_yen,
    "mixture": lambda x: find_threshold(x, "mixture"),
}


def channel_means(work: Path, dataset: str, channel: str) -> dict[str, tuple[NDArray, NDArray]]:
    """Ids and means of the cells of each field that has the channel."""
    found = {}
    for name, field in read_means(work, dataset).items():
        if channel in (names := list(field["channels"])):
            found[name] = field["cells"], field["means"][:, names.index(channel)].astype(float)
    return found


def with_baselines(states: pd.DataFrame, work: Path) -> pd.DataFrame:
    """Add each judged cell's mean, and whether each automatic threshold on the mean calls it."""
    parts = []
    for (dataset, channel), rows in states.groupby(["dataset", "channel"]):
        means = channel_means(work, dataset, channel)
        own = [means[r.field][1][np.searchsorted(means[r.field][0], r.label)] for r in rows.itertuples()]
        everybody = np.concatenate([values for _, values in means.values()])
        rows = rows.assign(mean=own)
        for scale, change in SCALES.items():
            both = change(np.concatenate([everybody, own]))
            for rule, find in RULES.items():
                rows[rule + scale] = both[len(everybody) :] >= find(both[: len(everybody)])
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def measure(table: pd.DataFrame, scores: dict[str, str]) -> pd.DataFrame:
    """Measure each channel.

    Parameters
    ----------
    table
        Judged cells with their state, mean, baselines, and columns of scores.
    scores
        Name of a model -> column with its scores.
    """
    rows = []
    for (dataset, channel), cells in table[table["state"] != "u"].groupby(["dataset", "channel"]):
        truth = (cells["state"] == "1").to_numpy()
        if not truth.any():
            continue
        row = {"dataset": dataset, "channel": channel, "cells": len(cells), "positive": int(truth.sum())}
        for name, column in scores.items():
            values = cells[column].to_numpy()
            row |= {f"{name}: F1": f1_score(truth, values >= 0.5), f"{name}: best F1": best_f1(truth, values)}
            row[f"{name}: false positives"] = int((~truth & (values >= 0.5)).sum())
            row[f"{name}: misses"] = int((truth & (values < 0.5)).sum())
            if not truth.all():
                row[f"{name}: AUROC"] = auroc(truth, values)
        values = cells["mean"].to_numpy()
        row["mean: best F1"] = best_f1(truth, values)
        if not truth.all():
            row["mean: AUROC"] = auroc(truth, values)
        row |= {f"mean: {rule}{scale}": f1_score(truth, cells[rule + scale]) for rule in RULES for scale in SCALES}
        rows.append(row)
    return pd.DataFrame(rows)


def by_dataset(channels: pd.DataFrame) -> pd.DataFrame:
    """Average channels over each data set, and data sets as rows ``all``: the mean over all channels."""
    counts = [c for c in channels if c.endswith(("cells", "positive", "false positives", "misses"))]
    rules = {name: "sum" if name in counts else "mean" for name in channels.columns[2:]} | {"channel": "count"}
    table = channels.groupby("dataset").agg(rules)
    table.loc["all"] = channels.agg(rules)
    return table.rename(columns={"channel": "channels"})


def best_f1(truth: NDArray[np.bool_], values: NDArray) -> float:
    """F1 at the best threshold, which knows the truth."""
    return max(f1_score(truth, values >= cut) for cut in np.unique(values))


def auroc(truth: NDArray[np.bool_], values: NDArray) -> float:
    """Return the share of positive-negative pairs in which the positive cell has the higher value; ties count half."""
    n, m = truth.sum(), (~truth).sum()
    return float((rankdata(values)[truth].sum() - n * (n + 1) / 2) / (n * m))


def calibration_error(truth: NDArray[np.bool_], scores: NDArray, bins: int = 10) -> float:
    """Class-balanced expected calibration error: positives and negatives weigh the same in all."""
    weight = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    place = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs((weight * (truth - scores))[place == k].sum()) for k in range(bins)]
    return float(np.sum(gaps))


def auroc_difference(table: pd.DataFrame, column: str, draws: int = 300) -> tuple[float, float, float]:
    """Mean over channels of AUROC of the scores minus that of the mean; 95 % interval over draws of cells (paired)."""
    rng = np.random.default_rng(0)
    own = [
        ((c["state"] == "1").to_numpy(), c[column].to_numpy(), c["mean"].to_numpy())
        for _, c in table[table["state"] != "u"].groupby("channel")
        if c.loc[c["state"] != "u", "state"].nunique() == 2
    ]

    def difference(draw: bool) -> float:
        found = []
        for truth, scores, means in own:
            at = np.arange(len(truth))
            if draw:
                at = np.concatenate([rng.choice(at[truth == k], (truth == k).sum()) for k in (True, False)])
            found.append(auroc(truth[at], scores[at]) - auroc(truth[at], means[at]))
        return float(np.mean(found))

    low, high = np.quantile([difference(True) for _ in range(draws)], [0.025, 0.975])
    return difference(False), float(low), float(high)
