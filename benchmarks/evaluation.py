"""Measure time and memory of the evaluation of a large table of random scores."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

import nimbus_sd as ns


def random_table(cells: int, markers: int, regions: int = 30) -> AnnData:
    """Make a table of scores that part a fifth of the cells from the rest, with overlap."""
    rng = np.random.default_rng(0)
    gold = (rng.random((cells, markers)) < 0.2).astype(np.float32)
    scores = np.clip(rng.normal(0.25 + 0.5 * gold, 0.2), 0, 1).astype(np.float32)
    obs = pd.DataFrame({"region": pd.Categorical(rng.integers(0, regions, cells).astype(str))})
    obs["area"] = rng.gamma(8, 10, cells)
    adata = AnnData(obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=[f"m{i}" for i in range(markers)]))
    adata.layers.update(nimbus=scores, gold=gold, integrated_expression=np.exp(scores * 5).astype(np.float32))
    # As dense as tissue at 0.5 um per pixel: a cell on 20 x 20 pixels.
    adata.obsm["spatial"] = rng.random((cells, 2)) * 20 * np.sqrt(cells / regions)
    return adata


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--markers", type=int, default=40)
    options = parser.parse_args()
    adata = random_table(options.cells, options.markers)
    steps: dict[str, Callable[[], object]] = {
        "marker_metrics": partial(ns.metrics.marker_metrics, adata),
        "marker_metrics, macro over regions": partial(ns.metrics.marker_metrics, adata, by="region", average="macro"),
        "compare_baselines, no intervals": partial(ns.metrics.compare_baselines, adata, n_boot=0),
        "call_positive, auto": partial(ns.tl.call_positive, adata, threshold="auto"),
        "confounders": partial(ns.metrics.confounders, adata),
    }
    for name, step in steps.items():
        wall, processor = time.perf_counter(), time.process_time()
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{name}: {time.perf_counter() - wall:.1f} s, {time.process_time() - processor:.1f} s of processors, "
            f"peak so far {peak:.2f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
