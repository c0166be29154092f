"""Seconds per image and channel, beside Nimbus-Inference, and as a share of what the processor can multiply.

One image of 1024 x 1024 pixels at 0.5 um and 8 channels (2 of them where views are averaged), the same labels, factors
and (for the published architecture) the same random weights. Reading a model's file counts in our time, not in the
peer's, which keeps it between calls. The peer runs in an environment of its own, where it was installed with
``pip install Nimbus-Inference==0.0.5``::

    python benchmarks/speed.py --peer /path/to/its/python

prints a table in Markdown. Every measurement is a process of its own with as many threads; the peer and ours take
turns. bfloat16 is measured where the processor multiplies in it. The share of the peak is the network's work on the
image itself, over the time of all, as a part of what a matrix product reaches in the same precision.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PIXEL_SIZE, CHANNELS, WITH_VIEWS = 0.5, 8, 2
HERE = Path(__file__)


def prepare(folder: Path, side: int) -> None:
    """Write the image, the labels, factors and random weights that both score."""
    import tifffile
    import torch

    from nimbus_sd.models import UNet
    from nimbus_sd.simulate import Detector, Marker, Segmentation, draw_tissue, expose, segment, stain

    rng = np.random.default_rng(0)
    tissue = draw_tissue((side, side), PIXEL_SIZE, rng, radius=5.0)
    labels, _ = segment(tissue, Segmentation(), rng)
    (folder / "fov").mkdir(parents=True)
    (folder / "masks").mkdir()
    factors, images = {}, []
    for i in range(CHANNELS):
        image = expose(stain(tissue, Marker("membrane", 0.3), rng).signal, tissue, Detector(), rng)
        images.append(np.clip(image * 4000, 0, 65535).astype(np.uint16))
        factors[f"M{i}"] = max(1.0, float(np.quantile(images[-1], 0.999)))
        tifffile.imwrite(folder / "fov" / f"M{i}.tiff", images[-1])
    tifffile.imwrite(folder / "masks" / "fov_whole_cell.tiff", labels.astype(np.int32))
    np.save(folder / "image.npy", np.stack(images))
    np.save(folder / "labels.npy", labels)
    (folder / "factors.json").write_text(json.dumps(factors))
    torch.manual_seed(0)
    torch.save(UNet(64, 5).state_dict(), folder / "random.pt")


def ours(folder: Path, model: str, views: bool, precision: str, threads: int) -> float:
    """Median seconds per channel of `predict` on the image."""
    import torch
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    import nimbus_sd as ns

    torch.set_num_threads(threads)
    factors = json.loads((folder / "factors.json").read_text())
    channels = list(factors)[: WITH_VIEWS if views else CHANNELS]
    sdata = SpatialData(
        images={"a": Image2DModel.parse(np.load(folder / "image.npy"), dims=("c", "y", "x"), c_coords=list(factors))},
        labels={"b": Labels2DModel.parse(np.load(folder / "labels.npy"), dims=("y", "x"))},
    )
    settings = {"model": model, "tta": views, "precision": precision, "normalization": factors, "progress": False}
    settings |= {"channels": channels}
    times = []
    for _ in range(1 if views else 3):
        start = time.perf_counter()
        ns.predict(sdata, pixel_size=PIXEL_SIZE, **settings)
        times.append(time.perf_counter() - start)
        del sdata.tables["table"]
    return float(np.median(times)) / len(channels)


def theirs(folder: Path, views: bool, threads: int) -> float:
    """Seconds per channel of the peer on the same; runs in its environment."""
    import torch
    from nimbus_inference.nimbus import Nimbus, prep_naming_convention
    from nimbus_inference.unet import UNet
    from nimbus_inference.utils import MultiplexDataset

    torch.set_num_threads(threads)

    class WithTheseWeights(Nimbus):
        def load_checkpoint(self, padding: str = "reflect") -> None:
            self.model = UNet(num_classes=1, padding=padding)
            self.model.load_state_dict(torch.load(folder / "random.pt", weights_only=True))
            self.model.to(self.device).eval()

    factors = json.loads((folder / "factors.json").read_text())
    channels = list(factors)[: WITH_VIEWS if views else CHANNELS]
    dataset = MultiplexDataset(
        [str(folder / "fov")],
        prep_naming_convention(str(folder / "masks")),
        suffix=".tiff",
        magnification=20,
        include_channels=channels,
    )
    dataset.normalization_dict = factors
    dataset.clip_values = (0, 2)
    app = WithTheseWeights(dataset, str(folder / "out"), save_predictions=False, test_time_aug=views)
    app.check_inputs()
    times = []
    for _ in range(1 if views else 3):
        start = time.perf_counter()
        app.predict_fovs()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) / len(channels)


def peak(precision: str, threads: int, side: int = 4096) -> float:
    """Floating-point operations per second of a matrix product: the ceiling."""
    import torch

    torch.set_num_threads(threads)
    a = torch.rand(side, side).to(getattr(torch, precision))
    times = []
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def work(model: str, folder: Path, threads: int) -> tuple[float, float]:
    """Floating-point operations of one pass over the image, and seconds of the network alone on it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nimbus_sd.models import Scorer, load

    torch.set_num_threads(threads)
    loaded = load(model)
    side = round(len(np.load(folder / "labels.npy")) * PIXEL_SIZE / loaded.card.pixel_size)
    side = -(-side // loaded.card.stride) * loaded.card.stride
    images, inside = np.random.default_rng(0).random((1, side, side), np.float32), np.ones((side, side), bool)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loaded.network(torch.zeros(1, 2, side, side))
    scorer, times = Scorer(loaded, tta=False), []
    for _ in range(5):
        start = time.perf_counter()
        scorer(images, inside)
        times.append(time.perf_counter() - start)
    return float(counter.get_total_flops()), float(np.median(times))


def measured(what: str, *arguments: object, python: str = sys.executable, threads: int) -> list[float]:
    """Run one measurement in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [python, str(HERE), "--one", what, *map(str, arguments), "--threads", str(threads)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{what} failed:\n{found.stderr[-2000:]}")
    return [float(value) for value in found.stdout.strip().splitlines()[-1].split()]


def one(what: str, arguments: list[str], threads: int) -> None:
    """Print one measurement: the other end of `measured`."""
    if what == "ours":
        folder, model, views, precision = arguments
        values: tuple[float, ...] = (ours(Path(folder), model, views == "True", precision, threads),)
    elif what == "theirs":
        values = (theirs(Path(arguments[0]), arguments[1] == "True", threads),)
    elif what == "peak":
        values = (peak(arguments[0], threads),)
    else:
        values = work(arguments[1], Path(arguments[0]), threads)
    print(*values)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python of an environment with Nimbus-Inference 0.0.5; without it, ours only")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--side", type=int, default=1024, help="pixels of the image; another one is a try only")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1:], options.threads)
        return
    from nimbus_sd.models.scorer import cpu_has_bfloat16

    threads = options.threads
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        prepare(folder, options.side)
        published = str(folder / "random.pt")
        precisions = ["float32", "bfloat16"] if cpu_has_bfloat16() else ["float32"]
        ceiling = {p: measured("peak", p, threads=threads)[0] for p in precisions}
        print("| what | views | precision | s per channel | times faster | share of peak | network alone |")
        print("|---|---|---|---|---|---|---|")
        for views in (False, True):
            peer = None
            if options.peer:
                (peer,) = measured("theirs", folder, views, python=options.peer, threads=threads)
                print(f"| Nimbus-Inference 0.0.5 | {6 if views else 1} | float32 | {peer:.2f} | 1 | | |", flush=True)
            for name, model in (("published architecture", published), ("compact", "compact")):
                flops, alone = measured("work", folder, model, threads=threads)
                for precision in precisions:
                    (seconds,) = measured("ours", folder, model, views, precision, threads=threads)
                    passes = 8 if views else 1
                    share = passes * flops / seconds / ceiling[precision]
                    times = "" if peer is None else f"{peer / seconds:.1f}"
                    network = f"{passes * alone / seconds:.0%}" if precision == "float32" else ""
                    print(
                        f"| {name} | {passes} | {precision} | {seconds:.3f} | {times} | {share:.0%} | {network} |",
                        flush=True,
                    )
    for precision, value in ceiling.items():
        print(f"\nMatrix product, {precision}, {threads} thread(s): {value / 1e9:.0f} GFLOP/s.")
    if "bfloat16" not in ceiling:
        print("\nThis processor only emulates bfloat16: nothing that is said of bfloat16 can be measured here.")


if __name__ == "__main__":
    main()
