"""Peak memory and time of `predict` on large slides, and of a table of many cells. Linux.

::

    python benchmarks/memory.py slide FOLDER            # sides of 4,000, 8,000 and 16,000 pixels, 4 channels
    python benchmarks/memory.py slide FOLDER --sides 30000
    python benchmarks/memory.py table FOLDER            # 10 million cells x 40 markers, summed, built and written

print tables in Markdown. A slide is a Zarr store of uint16 channels and int32 labels, a cell in each square of 30 x 30
pixels; it is written, then scored by `compact`, each in a process of its own. What was stopped goes on when the command
is repeated: finished slides and scored tiles are kept in the folder, which may be deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PIXEL_SIZE, PITCH, CHUNK = 0.5, 30, 1024
CELLS_PER_TILE, SHARED = 2_000, 100


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["slide", "table", *MEASURED])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[4_000, 8_000, 16_000])
    parser.add_argument("--channels", type=int, nargs="+", default=[4], help="each slide is scored with each number")
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--markers", type=int, default=40)
    options = parser.parse_args()
    if options.what in MEASURED:
        result = MEASURED[options.what](options)
        print(json.dumps({**result, "peak": _peak()}))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "slide":
        slides(options.folder, options.sides, options.channels)
    else:
        tables(options.folder, options.cells, options.markers)


def slides(folder: Path, sides: Sequence[int], channels: Sequence[int]) -> None:
    """Write, score and compare slides."""
    print("| side | channels | cells | s | peak GiB | us per pixel and channel |\n|---|---|---|---|---|---|")
    times: dict[int, list[tuple[int, float]]] = {number: [] for number in channels}
    for side in sides:
        for number in channels:
            path = folder / f"slide_{side}_{number}.zarr"
            arguments = (path, "--sides", side, "--channels", number)
            if not path.exists():
                written = _apart("write-slide", *arguments)
                print(f"{path.name} written, {written['peak']:.2f} GiB", file=sys.stderr)
            scored = _apart("score-slide", *arguments)
            if seconds := scored["seconds"]:
                times[number].append((side**2, seconds))
                time_used = f"{seconds:.0f} | {scored['peak']:.2f} | {seconds / side**2 / number * 1e6:.3f}"
            else:
                time_used = f"(was stopped once) | {scored['peak']:.2f} | "
            print(f"| {side} | {number} | {scored['cells']} | {time_used} |", flush=True)
    for number, measured in times.items():
        if len(measured) > 1:
            slope = np.polyfit(*np.log(np.array(measured).T), 1)[0]
            print(f"\nWith {number} channels, time grows as pixels to the power of {slope:.2f}.")


def tables(folder: Path, cells: Sequence[int], markers: int) -> None:
    """Build, write and compare tables."""
    print("| cells | markers | s | peak GiB built | and written |\n|---|---|---|---|---|")
    for number in cells:
        path = folder / f"table_{number}.zarr"
        shutil.rmtree(path, ignore_errors=True)
        found = _apart("build-table", path, "--cells", number, "--markers", markers)
        print(
            f"| {found['cells']} | {markers} | {found['seconds']:.0f} | {found['built']:.2f} | {found['peak']:.2f} |",
            flush=True,
        )
        shutil.rmtree(path)


def _apart(what: str, *arguments: object) -> dict[str, Any]:
    """Run one measurement in a process of its own, whose progress is shown."""
    command = [sys.executable, __file__, what, *map(str, arguments)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def _peak() -> float:
    """GiB of this process at most so far; this script itself stays small, as a process begins with its parent's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def write_slide(options: argparse.Namespace) -> dict[str, Any]:
    """Write a slide whose chunks are computed when they are written."""
    import dask
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    (side,), (channels,) = options.sides, options.channels

    def chunk(info: dict, channel: int | None) -> np.ndarray:
        rows, cols = info[None]["array-location"][-2:]
        labels, far = _cells(rows, cols, side)
        if channel is None:
            return labels
        positive = labels * 40503 % 97 < 10 * (channel % 9 + 1)
        level = np.where((labels > 0) & positive, 400 * np.exp(-((far - 9) ** 2) / 8) + 60, 15)
        rng = np.random.default_rng([channel, rows[0], cols[0]])
        noisy = level + np.sqrt(level) * rng.standard_normal(level.shape, np.float32)
        return np.clip(noisy, 0, None).astype(np.uint16)[None]

    def lazy(channel: int | None, dtype: type) -> da.Array:
        cuts = da.core.normalize_chunks((CHUNK, CHUNK), (side, side))
        chunks = cuts if channel is None else ((1,), *cuts)
        return da.map_blocks(lambda block_info=None: chunk(block_info, channel), chunks=chunks, dtype=dtype)

    image = da.concatenate([lazy(channel, np.uint16) for channel in range(channels)])
    unfinished = options.folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with dask.config.set(scheduler="synchronous"):
        SpatialData(
            images={"slide": Image2DModel.parse(image, dims=("c", "y", "x"))},
            labels={"cells": Labels2DModel.parse(lazy(None, np.int32), dims=("y", "x"))},
        ).write(unfinished)
    unfinished.rename(options.folder)
    return {}


def _cells(rows: tuple[int, int], cols: tuple[int, int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of round cells near the centres of squares, in a window, and how far each pixel is from its cell's centre."""
    y, x = np.arange(*rows)[:, None], np.arange(*cols)[None]
    number = y // PITCH * (side // PITCH + 1) + x // PITCH
    shift = number * 2654435761 % 7 - 3
    far = np.hypot(y % PITCH - PITCH / 2 - shift, x % PITCH - PITCH / 2 + shift)
    return np.where(far < 9 + number % 4, number + 1, 0).astype(np.int32), far


def score_slide(options: argparse.Namespace) -> dict[str, Any]:
    """Score a slide, or go on with it; no seconds where it was stopped."""
    import spatialdata

    import nimbus_sd as ns

    checkpoint = options.folder.with_suffix(".checkpoint")
    stopped = any(checkpoint.glob("tile-*"))
    sdata = spatialdata.read_zarr(options.folder)
    start = time.perf_counter()
    adata = ns.predict(sdata, pixel_size=PIXEL_SIZE, checkpoint=checkpoint)
    seconds = None if stopped else time.perf_counter() - start
    shutil.rmtree(checkpoint)
    return {"cells": adata.n_obs, "seconds": seconds}


def build_table(options: argparse.Namespace) -> dict[str, Any]:
    """Sum random tiles as `predict` does, some cells lying in two of them, and make and write the table."""
    import dask.array as da
    import pandas as pd
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    from nimbus_sd.engine import BadPixels, Memory, Plan, score
    from nimbus_sd.engine.plan import TileSums
    from nimbus_sd.models import load
    from nimbus_sd.spatial import find_regions, write_table

    (cells,), markers = options.cells, options.markers
    channels = [f"M{i}" for i in range(markers)]
    side = CHUNK * int(np.ceil(np.sqrt(cells / CELLS_PER_TILE)))
    image = Image2DModel.parse(
        da.zeros((markers, side, side), chunks=(1, CHUNK, CHUNK), dtype=np.uint16),
        dims=("c", "y", "x"),
        c_coords=channels,
    )
    labels = Labels2DModel.parse(da.zeros((side, side), chunks=CHUNK, dtype=np.int32), dims=("y", "x"))
    slide = SpatialData(images={"slide": image}, labels={"cells": labels})
    regions = find_regions(slide, pixel_size=PIXEL_SIZE)
    plan = Plan(regions, np.ones(markers), load("compact").card, tile_size=CHUNK)

    def run(plan: Plan, jobs: Sequence[Any], on_share: Callable[[float], object]) -> Iterator[tuple[int, TileSums]]:
        rng = np.random.default_rng(0)
        bad = np.zeros(markers, np.int64)
        for number, _ in jobs:
            first = number * CELLS_PER_TILE
            ids = np.arange(max(0, first - SHARED), min(first + CELLS_PER_TILE, cells)) + 1
            area = rng.integers(100, 400, (len(ids), 1)).astype(float)
            geometry = area * [[1, 7, 9]]
            expression, scores = (area * rng.random((len(ids), markers)) * top for top in (5000, 1))
            yield number, TileSums(ids, geometry, expression, scores, ids, bad, bad, np.zeros((0, 32), np.uint8))

    start = time.perf_counter()
    results = score(plan, run, Memory(), bad=BadPixels(), on_share=lambda share: None)
    factors = pd.DataFrame({"factor": np.ones(markers)}, index=pd.Index(channels, name="channel"))
    adata = write_table(
        slide, results, channels=channels, table_key="table", key_added="nimbus", factors=factors, provenance={}
    )
    built = _peak()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The table is annotating")
        SpatialData(tables={"table": adata}).write(options.folder)
    return {"cells": adata.n_obs, "seconds": time.perf_counter() - start, "built": built}


MEASURED = {"write-slide": write_slide, "score-slide": score_slide, "build-table": build_table}

if __name__ == "__main__":
    main()
