"""Time the engines of `tl.flowsom` on a random mixture of cell types, and compare their metaclusters.

Each type is positive for a quarter of the markers; three of them are rare (0.5 %). One score in twenty is of the other
kind. Compiling, once per session, is timed on its own.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

import nimbus_sd as ns

RARE, SHARE, WRONG = 3, 0.005, 0.05


def mixture(n_cells: int, n_markers: int, n_types: int, seed: int) -> AnnData:
    """Draw scores of cells whose type is known."""
    rng = np.random.default_rng(seed)
    common = rng.dirichlet(np.full(n_types - RARE, 3.0)) * (1 - RARE * SHARE)
    kind = rng.choice(n_types, n_cells, p=[*[SHARE] * RARE, *common])
    positive = (rng.random((n_types, n_markers)) < 0.25)[kind] ^ (rng.random((n_cells, n_markers)) < WRONG)
    shape = positive.shape
    low = rng.beta(1, 6, shape).astype(np.float32)
    scores = np.where(positive, rng.beta(3, 1, shape).astype(np.float32), low)
    obs = pd.DataFrame({"type": kind}, index=np.arange(n_cells).astype(str))
    return AnnData(obs=obs, var=pd.DataFrame(index=[f"m{i}" for i in range(n_markers)]), layers={"nimbus": scores})


def timed(adata: AnnData, engine: str, n_metaclusters: int, rng: int) -> tuple[float, float]:
    """Cluster; return seconds of the clock and of all cores together."""
    wall, cores = time.perf_counter(), time.process_time()
    ns.tl.flowsom(adata, n_metaclusters=n_metaclusters, engine=engine, rng=rng, key_added=f"{engine}{rng}")
    return time.perf_counter() - wall, time.process_time() - cores


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--markers", type=int, default=40)
    parser.add_argument("--types", type=int, default=20, help="3 of them rare; also the number of metaclusters")
    parser.add_argument("--engines", nargs="+", default=["batch", "online", "minisom"])
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    adata = mixture(options.cells, options.markers, options.types, seed=0)
    found = {}
    for engine in options.engines:
        print(f"{engine}: first call on 1,000 cells {timed(adata[:1000].copy(), engine, 5, 0)[0]:.1f} s", flush=True)
        for rng in range(options.seeds):
            wall, cores = timed(adata, engine, options.types, rng)
            key = f"{engine}{rng}"
            found[key] = adata.obs[key]
            truth = adjusted_rand_score(adata.obs["type"], found[key])
            off = adata.uns[key]["mean_distance"]
            print(f"{key}: {wall:.1f} s ({cores:.1f} s of all cores), distance {off:.4f}, index to truth {truth:.3f}")
    index = [[adjusted_rand_score(one, other) for other in found.values()] for one in found.values()]
    print("adjusted Rand index between runs:")
    print(pd.DataFrame(index, list(found), list(found)).round(3).to_string())


if __name__ == "__main__":
    main()
