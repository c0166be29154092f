"""Which parts of the simulator matter on real tissue: train a little further without each of them.

Every run goes on from the bundled model for as many steps, over the same seeds, with one component of the simulator
switched off; ``nothing`` is the run that keeps all. ``python benchmarks/leave_one_out.py FOLDER DATA`` trains those
that the folder lacks, evaluates each on the development gold standard and writes ``FOLDER/leave_one_out.csv``. DATA is
the folder of the real tissue, which is not part of this repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import development_gold
import numpy as np
import pandas as pd

from nimbus_sd.simulate import detector, marker, masks, tile

STEPS, SEED, LEARNING_RATE = 250, 61_000_000, 5e-4


def _without(draw: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    return lambda *args: replace(draw(*args), **settings)


def _camera(rng: np.random.Generator, of: marker.Marker | None = None) -> detector.Detector:
    while (drawn := detector.draw_detector(rng, of)).counting:
        pass
    return drawn


#: What is replaced in ``nimbus_sd.simulate.tile``, by the name of the component that is left out.
COMPONENTS: dict[str, dict[str, Callable[..., Any]]] = {
    "nothing": {"draw_marker": marker.draw_marker},
    "nuclear masks": {"draw_segmentation": _without(masks.draw_segmentation, target="cell")},
    "mask errors": {
        "draw_segmentation": _without(
            masks.draw_segmentation, merged=0.0, split=0.0, missing=0.0, shift=(0.0, 0.0), resize=0.0, grid=0.0
        )
    },
    "haze of negative cells": {"draw_marker": _without(marker.draw_marker, unspecific=0.01)},
    "background": {"draw_detector": _without(detector.draw_detector, background=0.01, subtract=0.0)},
    "ion counting": {"draw_detector": _camera},
    "damage": {
        "draw_detector": _without(
            detector.draw_detector,
            **dict.fromkeys(("clumps", "dots", "hot", "shading", "defocus", "fold", "edge", "compression"), 0.0),
            seam=0,
        )
    },
    "fibres and cross-talk": {"draw_marker": _without(marker.draw_marker, fibres=0.0, crosstalk=0.0)},
}


def train(component: str, start: str, path: Path, steps: int = STEPS) -> None:
    """Go on from a model without a component and write the weights."""
    import torch

    from nimbus_sd.models import load, save
    from nimbus_sd.train.compact import BATCH_SIZE, COUNTERSTAIN, SIZE
    from nimbus_sd.train.fit import fit
    from nimbus_sd.train.stream import SimulatedTiles

    torch.manual_seed(SEED)
    model = load(start)
    tiles = SimulatedTiles(SEED, SIZE, pool=128, counterstain=COUNTERSTAIN)
    # Tiles are drawn in this process, where the component is switched off.
    with mock.patch.multiple(tile, **COMPONENTS[component]):
        fit(
            model.network,
            path.with_suffix(""),
            tiles,
            steps=steps,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            workers=0,
        )
    save(model.network, replace(model.card, description=f"Trained further without {component}."), path, half=True)


def calls(path: Path, data: Path) -> pd.DataFrame:
    """Scores of the development gold standard's determined cells, with the judgement."""
    gold = pd.read_csv(development_gold.GOLD)
    gold = gold[((gold[["pass1", "pass2"]] - 0.5).prod(axis=1) > 0)].copy()
    gold["score"] = np.nan
    for name, part in gold.groupby("tissue"):
        adata = development_gold.score(str(name), data, str(path))
        rows = pd.Series(np.arange(adata.n_obs), adata.obs["instance_id"].to_numpy())[part["instance_id"]].to_numpy()
        columns = adata.var_names.get_indexer(part["channel"])
        gold.loc[part.index, "score"] = adata.layers["nimbus"][rows, columns]
    gold["positive"] = gold["pass1"] > 0.5
    return gold


def _f1(table: pd.DataFrame, rows: np.ndarray | None = None) -> float:
    """Mean F1 at 0.5 over channels with a positive cell."""
    table = table if rows is None else table.iloc[rows]
    values = []
    for _, part in table.groupby(["tissue", "channel"]):
        positive, called = part["positive"].to_numpy(), part["score"].to_numpy() >= 0.5
        if positive.any():
            values.append(2 * (called & positive).sum() / (called.sum() + positive.sum()))
    return float(np.mean(values))


def compare(found: dict[str, pd.DataFrame], draws: int = 300) -> pd.DataFrame:
    """F1 of each run, and its difference from the run that keeps all, with a 95 % interval over cells (paired)."""
    rng = np.random.default_rng(0)
    groups = found["nothing"].reset_index(drop=True).groupby(["tissue", "channel"]).indices.values()
    samples = [np.concatenate([rng.choice(rows, len(rows)) for rows in groups]) for _ in range(draws)]
    base = found["nothing"]
    drawn = [_f1(base, rows) for rows in samples]
    lines = {}
    for name, table in found.items():
        plain = table[table[["pass1", "pass2"]].isin([0, 1]).all(axis=1)]
        low, high = np.quantile([_f1(table, rows) - d for rows, d in zip(samples, drawn, strict=True)], [0.025, 0.975])
        lines[name] = {
            "plain": _f1(plain),
            "determined": _f1(table),
            "difference": _f1(table) - _f1(base),
            "low": low,
            "high": high,
            "false positives": int(((table["score"] >= 0.5) & ~table["positive"]).sum()),
            "misses": int(((table["score"] < 0.5) & table["positive"]).sum()),
        }
    return pd.DataFrame(lines).T.round(3).rename_axis("left out")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where runs are kept")
    parser.add_argument("data", type=Path, help="real tissue of the development gold standard")
    parser.add_argument("--start", default="compact", help="model to go on from")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    found = {}
    for component in COMPONENTS:
        path = options.folder / f"{component.replace(' ', '_')}.safetensors"
        if not path.exists():
            train(component, options.start, path, options.steps)
        found[component] = calls(path, options.data)
        table = compare(found)
        table.to_csv(options.folder / "leave_one_out.csv")
        print(table.to_string(), flush=True)


if __name__ == "__main__":
    main()
