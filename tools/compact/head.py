"""Would a small head on top of the network's scores help on a data set that it never saw? ``python head.py WORK``.

A logistic regression on the score's logit, the cell's mean and quantiles of the channel's means (relative to the
factor). It is fitted on judged training cells of six data sets, each with the scores of the network that had not seen
its data set, and judged on those of the seventh. Gold labels have no part in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from corpus import PIXEL_SIZE
from prepare import read_factors
from score import read_states
from silver import read_gates
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import channel_means

INPUTS = {
    "score": ["score"],
    "score and mean": ["score", "mean"],
    "score, mean, background": ["score", "mean", "q50"],
    "score, mean, quantiles": ["score", "mean", "q25", "q50", "q75", "q90", "q99"],
    "mean, quantiles": ["mean", "q25", "q50", "q75", "q90", "q99"],
}
#: Keeps the logarithm of an intensity over the factor finite.
FLOOR = 0.01


def read(work: Path) -> pd.DataFrame:
    """Read the sure training cells of good channels with their inputs."""
    keys = ["dataset", "channel", "field", "label"]
    states, gates = read_states(), read_gates()
    states = states[~states["gold"] & (states["state"] != "u")].merge(gates[["dataset", "channel", "quality"]])
    parts = []
    for dataset in PIXEL_SIZE:
        factors = read_factors(work)[dataset]
        scores = pd.read_csv(work / "runs" / f"without_{dataset}" / f"scores_{dataset}.csv", dtype={"field": str})
        own = states[(states["dataset"] == dataset) & (states["quality"] != "exclude")]
        own = own.merge(scores.loc[~scores["gold"], [*keys, "score"]], on=keys)
        for channel, rows in own.groupby("channel"):
            means = channel_means(work, dataset, channel)
            everybody = np.concatenate([values for _, values in means.values()])
            cells = [means[r.field][1][np.searchsorted(means[r.field][0], r.label)] for r in rows.itertuples()]
            level = {f"q{q}": np.quantile(everybody, q / 100) for q in (25, 50, 75, 90, 99)}
            told = {name: np.log(np.maximum(np.asarray(v) / factors[channel], 0) + FLOOR) for name, v in level.items()}
            mean = np.log(np.maximum(np.array(cells) / factors[channel], 0) + FLOOR)
            inside = rows["score"].clip(1e-4, 1 - 1e-4)
            parts.append(
                rows.assign(called=rows["score"] >= 0.5, score=np.log(inside / (1 - inside)), mean=mean, **told)
            )
    return pd.concat(parts, ignore_index=True)


def macro(table: pd.DataFrame, called: pd.Series) -> pd.Series:
    """F1, mean over the channels of each data set and over data sets."""
    rows = [
        (dataset, f1_score(cells["state"] == "1", called[cells.index]))
        for (dataset, _), cells in table.groupby(["dataset", "channel"])
        if (cells["state"] == "1").any()
    ]
    found = pd.DataFrame(rows, columns=["dataset", "f1"]).groupby("dataset")["f1"].mean()
    found["mean"] = found.mean()
    return found


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    table = read(parser.parse_args().work)
    found = {"network alone": macro(table, table["called"])}
    for name, columns in INPUTS.items():
        called = pd.Series(False, index=table.index)
        for dataset in PIXEL_SIZE:
            out = table["dataset"] == dataset
            fit = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
            fit.fit(table.loc[~out, columns], table.loc[~out, "state"] == "1")
            called[out] = fit.predict(table.loc[out, columns])
        found[f"head: {name}"] = macro(table, called)
    print(pd.DataFrame(found).T.round(3).to_string())


if __name__ == "__main__":
    main()
