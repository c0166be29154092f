"""Measure all networks on the gold labels: ``python report.py WORK`` writes ``figures.csv`` and prints the tables.

``figures.csv`` has one row per data set and channel, once for cells spread evenly over brightness and once for those on
which Otsu's threshold and version 4 disagree: figures of the network that never saw the data set (``left out``), of the
bundled one, which saw other fields of it (``known``), of version 4, and of thresholds on the mean intensity.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from corpus import PIXEL_SIZE
from score import read_states
from tables import auroc_difference, by_dataset, calibration_error, measure, with_baselines

HERE = Path(__file__).parent
MODELS = {"left out": "without_{}", "known": "final", "version 4": "start"}


def read_scores(work: Path) -> pd.DataFrame:
    """Read the gold cells with the scores of each model."""
    keys = ["dataset", "channel", "field", "label"]
    states = read_states()
    table = states[states["gold"]].drop(columns="gold")
    for model, run in MODELS.items():
        parts = [
            pd.read_csv(work / "runs" / run.format(d) / f"scores_{d}.csv", dtype={"field": str}) for d in PIXEL_SIZE
        ]
        scores = pd.concat(parts)
        table = table.merge(scores.loc[scores["gold"], [*keys, "score"]].rename(columns={"score": model}), on=keys)
    return with_baselines(table, work)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    table = read_scores(options.work)
    drawn = {"even": table[table["drawn"] == "even"], "disputed": table[table["drawn"] == "disputed"]}
    found = {kind: measure(cells, {name: name for name in MODELS}) for kind, cells in drawn.items()}
    pd.concat({kind: rows.round(4) for kind, rows in found.items()}, names=["drawn"]).reset_index(0).to_csv(
        HERE / "figures.csv", index=False
    )
    for kind, rows in found.items():
        print(kind, by_dataset(rows).round(3).T.to_string(), sep="\n")
    even = drawn["even"]
    sure = even[even["state"] != "u"]
    for model in MODELS:
        print(
            model,
            "calibration error",
            round(calibration_error((sure["state"] == "1").to_numpy(), sure[model].to_numpy()), 3),
        )
        for dataset, cells in even.groupby("dataset"):
            print(model, dataset, "AUROC above the mean's", [round(x, 4) for x in auroc_difference(cells, model)])


if __name__ == "__main__":
    main()
