"""Which images the bundled model was trained on, as a table tells of them.

The limits are one-sided: they hold what speaks against an image (bright throughout, saturated, cells that hardly
differ), not that a marker is rare or its background clean. A data set that was left out tells how often a good
channel is outside.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from corpus import PIXEL_SIZE
from prepare import read_factors
from silver import read_gates
from tables import channel_means

from nimbus_sd.metrics import describe

#: Share of the good channels that differ less between cells than the limit says.
LEAST = 0.03
UPPER = ("median", "q10", "q99")


def statistics(work: Path) -> pd.DataFrame:
    """Describe each channel of the corpus, with its data set and quality."""
    gates, rows = read_gates(), []
    for dataset in PIXEL_SIZE:
        factors = read_factors(work)[dataset]
        for gate in gates[(gates["dataset"] == dataset) & gates["channel"].isin(factors)].itertuples():
            means = np.concatenate([own for _, own in channel_means(work, dataset, gate.channel).values()])
            told = describe(means / factors[gate.channel])
            rows.append({"dataset": dataset, "channel": gate.channel, "good": gate.quality != "exclude", **told})
    return pd.DataFrame(rows)


def limits(good: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Low and high of each statistic, rounded outwards."""
    found = {name: {"low": 0.0, "high": float(np.ceil(good[name].max() * 1e3) / 1e3)} for name in UPPER}
    return found | {"cv": {"low": float(np.floor(good["cv"].quantile(LEAST) * 1e3) / 1e3), "high": 1e3}}


def ranges(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Limits by all good channels, and the share of good channels outside of the limits of the other data sets."""
    good = table[table["good"]]
    found = limits(good)
    for name in found:
        outside = []
        for dataset, own in good.groupby("dataset"):
            other = limits(good[good["dataset"] != dataset])[name]
            outside.append((own[name] < other["low"]) | (own[name] > other["high"]))
        found[name]["false_alarm"] = round(float(pd.concat(outside).mean()), 4)
    return found
