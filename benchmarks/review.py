"""How soon the review page shows a slide, how smoothly it moves, and what memory its server takes. Linux, Chromium.

::

    python benchmarks/review.py FOLDER                  # 30,000 x 30,000 pixels, 4 channels, 1,000,000 cells
    python benchmarks/review.py FOLDER --pyramid

prints a table in Markdown. The slide is written once, a cell in each square of 30 x 30 pixels, and may be deleted
afterwards. The page is drawn by software (SwiftShader) in a window of 1280 x 800.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from memory import CHUNK, PITCH, PIXEL_SIZE, _cells

BLOCK, CHANNELS = 100 * PITCH, ("DAPI", "CD3", "CD8", "CD20")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# A tile of a channel: those of cells come sooner, as they are drawn from the table.
PICTURE = "[...window.nimbus?.viewer?.tiles ?? []].some(([key, tile]) => tile.texture && !key.includes('cells'))"
#: Frames of a second and a half while a function is called before each; in ms, the mean and the 95th percentile.
FRAMES = """async (step) => {
  const act = eval(step), times = [];
  let last = performance.now(), from = last;
  for (let at = 0; last - from < 1500; at++) {
    act(at);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - last);
    last = performance.now();
  }
  times.sort((one, other) => one - other);
  return [times.reduce((sum, one) => sum + one, 0) / times.length, times[Math.floor(0.95 * times.length)]];
}"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=30_000, help="pixels, a multiple of 3,000")
    parser.add_argument("--pyramid", action="store_true", help="the store has coarser levels of the image")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    store = options.folder / f"review_{options.side}{'_pyramid' * options.pyramid}.zarr"
    if options.serve:
        serve(store)
        return
    if not store.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        write(store, options.side, pyramid=options.pyramid)
    command = [sys.executable, __file__, *sys.argv[1:], "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as server:
        try:
            start = time.perf_counter()
            url = server.stdout.readline().strip()
            print(f"| {store.name} | |\n|---|---|\n| server ready | {time.perf_counter() - start:.1f} s |")
            measure(url, server.pid, options.chromium)
            server.stdin.close()
            print(f"| server at most | {server.stdout.read().strip()} GiB |")
        finally:
            server.kill()


def write(store: Path, side: int, *, pyramid: bool) -> None:
    """Write a slide that repeats a block of pixels, whose cells all have ids and random scores of their own."""
    import dask
    import dask.array as da
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel, TableModel
    from spatialdata.transformations import Identity, Scale

    from nimbus_sd import keys
    from nimbus_sd.io import with_pyramids

    rng = np.random.default_rng(0)
    labels, far = _cells((0, BLOCK), (0, BLOCK), BLOCK)
    blocks = []
    for channel in range(len(CHANNELS)):
        stained = (labels > 0) & (labels * 40503 % 97 < 20 * (channel + 1))
        level = np.where(stained, 400 * np.exp(-((far - 9 * (channel > 0)) ** 2) / 20) + 60, 15)
        blocks.append(rng.poisson(level).astype(np.uint16))

    def ids(block_info: Any) -> np.ndarray:
        return _cells(*block_info[None]["array-location"], side)[0]

    image = da.tile(da.from_array(np.stack(blocks), chunks=(1, BLOCK // 3, BLOCK // 3)), (1, *[side // BLOCK] * 2))
    cuts = da.core.normalize_chunks((CHUNK, CHUNK), (side, side))
    cells = da.map_blocks(ids, chunks=cuts, dtype=np.int32)
    y, x = np.divmod(np.arange((side // PITCH) ** 2), side // PITCH)
    number = y * (side // PITCH + 1) + x
    shift = number * 2654435761 % 7 - 3
    adata = AnnData(obs=pd.DataFrame(index=(number + 1).astype(str)), var=pd.DataFrame(index=list(CHANNELS)))
    adata.obs["region"] = pd.Categorical(np.full(len(number), "cells"))
    adata.obs["instance_id"], adata.obs[keys.AREA] = number + 1, np.pi * ((9 + number % 4) * PIXEL_SIZE) ** 2
    adata.obsm[keys.SPATIAL] = np.stack([x, y], 1) * PITCH + PITCH / 2 + np.stack([-shift, shift], 1)
    adata.layers[keys.NIMBUS] = rng.beta(0.4, 0.6, (len(number), len(CHANNELS))).astype(np.float32)
    adata.obs["kind"] = pd.Categorical(rng.choice(["B", "T", "other"], len(number)))
    places = {"slide": Identity(), "slide_um": Scale([PIXEL_SIZE] * 2, axes=("x", "y"))}
    sdata = SpatialData(
        images={"slide": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=CHANNELS, transformations=places)},
        labels={"cells": Labels2DModel.parse(cells, dims=("y", "x"), transformations=places)},
        tables={"table": TableModel.parse(adata, region="cells", region_key="region", instance_key="instance_id")},
    )
    unfinished = store.with_suffix(".unfinished")
    with dask.config.set(num_workers=2):
        (with_pyramids(sdata) if pyramid else sdata).write(unfinished, overwrite=True)
    unfinished.rename(store)


def serve(store: Path) -> None:
    """Serve a store until the input ends, and print the address, and then the memory at most."""
    import spatialdata

    import nimbus_sd as ns

    page = ns.review(spatialdata.read_zarr(store))
    print(page.url, flush=True)
    sys.stdin.read()
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}", flush=True)
    os._exit(0)


def measure(url: str, server: int, chromium: str) -> None:
    """Open the page and print what is measured there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        page.on("pageerror", lambda error: print("error:", error, file=sys.stderr))
        start = time.perf_counter()
        page.goto(url)
        page.wait_for_function(PICTURE, timeout=300_000)
        print(f"| first picture of the image | {time.perf_counter() - start:.1f} s |")
        settle(page)
        print(
            f"| whole slide, all tiles | {time.perf_counter() - start:.1f} s |\n| server then | {memory(server)} GiB |"
        )
        page.screenshot(path="/tmp/review_whole.png")
        for name, across in [("1,000,000", 30_000), ("100,000", 9_500), ("1,000", 950)]:
            page.evaluate(f"nimbus.viewer.goTo(15000, 15000, {across})")
            settle(page)
            for mode in ("outlines", "fills"):
                page.evaluate(f"nimbus.state.paint.value = 'call', nimbus.state.mode.value = '{mode}'")
                show(
                    page,
                    f"threshold, {name} cells seen, {mode}",
                    "(at) => nimbus.state.dragThreshold(.3 + at % 40 / 100)",
                )
            page.screenshot(path=f"/tmp/review_{across}.png")
            show(page, f"pan, {name} cells seen", "(at) => nimbus.viewer.panBy(at % 2 ? 9 : -7, 3)")
        for name, where in [("all over the slide", range(9, 240)), ("again", range(9, 240))]:
            for at in where:
                x, y = 500 + at % 16 * 1900, 500 + at // 16 * 1900
                page.evaluate(f"nimbus.viewer.goTo({x}, {y}, 2000)")
                page.wait_for_timeout(150)
            settle(page)
            print(f"| server after panning {name} | {memory(server)} GiB |")
        browser.close()


def show(page: Any, name: str, step: str) -> None:
    """Print the frames of a step that is repeated, the best of three, as the machine has other work."""
    mean, late = min(page.evaluate(FRAMES, step) for _ in range(3))
    print(f"| {name} | {1000 / mean:.0f} frames/s, 95 % within {late:.0f} ms |", flush=True)


def settle(page: Any) -> None:
    """Wait until no tile is on its way."""
    page.wait_for_timeout(400)
    page.wait_for_function("nimbus.viewer.stats().pending === 0", timeout=300_000)


def memory(process: int) -> str:
    """GiB of a process now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return f"{pages * resource.getpagesize() / 2**30:.2f}"


if __name__ == "__main__":
    main()
