"""Time of `predict` over the number of workers of a dask cluster on this machine, each a process with one thread.

``python benchmarks/workers.py FOLDER`` writes the slide of ``memory.py`` (4,096 x 4,096 pixels, 4 channels; 16 tiles),
scores it with `compact` here with one thread, then on clusters, and prints a table in Markdown. ``efficiency`` is the
speed-up over one worker by the number of workers: more workers than cores share them. Starting the workers is not
counted, making the model ready on each is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from distributed import Client, LocalCluster
from spatialdata import read_zarr

import nimbus_sd as ns

SIDE, CHANNELS, TILE, PIXEL_SIZE = 4096, 4, 1024, 0.5


def measure(path: Path, workers: int) -> tuple[float, np.ndarray]:
    """Seconds, and the scores; without a cluster for 0 workers."""
    sdata, settings = read_zarr(path), {"pixel_size": PIXEL_SIZE, "tile_size": TILE, "progress": False}
    if not workers:
        torch.set_num_threads(1)
        start = time.perf_counter()
        adata = ns.predict(sdata, **settings)
        return time.perf_counter() - start, adata.layers["nimbus"]
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        start = time.perf_counter()
        adata = ns.predict(sdata, client=client, **settings)
        return time.perf_counter() - start, adata.layers["nimbus"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, 2, os.cpu_count() or 1}))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"slide_{SIDE}_{CHANNELS}.zarr"
    if not path.exists():
        script = Path(__file__).with_name("memory.py")
        size = ["--sides", str(SIDE), "--channels", str(CHANNELS)]
        subprocess.run([sys.executable, str(script), "write-slide", str(path), *size], check=True)
    seconds, here = measure(path, 0)
    print("| workers | s | efficiency | largest difference |\n|---|---|---|---|")
    print(f"| none, one thread here | {seconds:.1f} | | |", flush=True)
    first = None
    for workers in options.workers:
        seconds, scores = measure(path, workers)
        first = first or seconds * workers
        off = np.nanmax(np.abs(scores - here))
        print(f"| {workers} | {seconds:.1f} | {first / seconds / workers:.0%} | {off:.1e} |", flush=True)


if __name__ == "__main__":
    main()
