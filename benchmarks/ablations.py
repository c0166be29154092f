"""What do inputs, resolution, training and size of the network matter? The paper's ablations, on simulated tissue.

For each seed a cohort is simulated: 16 regions of 128 x 128 um at 0.5 um per pixel, types and markers of
`noise_robust.py`, and stains of all nuclei and of all membranes; masks have errors. Each variant is trained on 12
regions from a random start of its own, with equal steps, and judged at its last step by the truth of the other 4:
``f1`` at a score of 0.5, mean over markers, of one view; ``f1_tta`` of the mean of eight views, which take eight times
as long. ``gain`` is the mean over seeds of the difference in ``f1`` to the baseline (``robust``: to ``naive``),
``least`` and ``most`` its range. ``forward``: time of a pass over the same tissue; the baseline's is 1.

Variants change one thing of the baseline (8 root filters, depth 4, patch 2, 0.5 um, the truth as labels). ``nuclear``,
``membrane``, ``both``: the stains as further input. ``pixel_1``, ``pixel_2``: um per pixel, tiles of the same tissue;
some cells are left without a pixel, and ``cells`` says how many cells and markers are judged. ``naive``, ``robust``:
15 % of each marker's labels are wrong, whole types as clusterings err; the one believes all, the other selects in the
second half of the steps (`noise_robust.py` has other errors). Pretrained encoders are absent: timm and
segmentation_models_pytorch require torchvision; MONAI (FlexibleUNet) fetches weights from GitHub, out of reach here.

All variants take the loop below, as the library's takes two inputs. It has no validation, the library's tiles, order,
loss, selection, and augmentation but for warps and blur, which take as long as the network. Further inputs turn with
their tile, and their look is kept. Finished rows of the same settings stay under ``--out``. The default
is meant for an hour on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from timeit import default_timer, repeat
from types import SimpleNamespace as Variant

import numpy as np
import pandas as pd
import torch
from noise_robust import HELD, PANEL, RECIPE, TYPES, wrong_labels
from sklearn.metrics import f1_score

import nimbus_sd as ns
from nimbus_sd.models.unet import Block
from nimbus_sd.models.views import VIEWS
from nimbus_sd.simulate import Detector, Marker, Segmentation, simulate
from nimbus_sd.train.batches import Augment, Batch, Order, collate, read_tile
from nimbus_sd.train.objective import Selector, cell_figures, labelled_cells, masked_loss

STAINS = {
    "DNA": (Marker("nucleus", 1.0, spread=0.3, patchiness=0.5), Detector(gain=300, blur=0.6)),
    "ATP1A1": (Marker("membrane", 1.0, spread=0.3), Detector(gain=200, background=0.08)),
}
CHANNELS, REGIONS = [*PANEL, *STAINS], [f"fov{i + 1}_labels" for i in range(16)]
FIELD, WRONG, BATCH, read = 64.0, 0.15, RECIPE.batch_size, lru_cache(1024)(read_tile)
LOOK = replace(RECIPE.augmentation, elastic=0, rotation=0, scale=0, blur=0)
BASELINE = {"extra": (), "pixel_size": 0.5, "labels": "right", "robust": False, "root_filters": 8, "depth": 4}
CHANGES = {
    "baseline": {},
    "nuclear": {"extra": ("DNA",)},
    "membrane": {"extra": ("ATP1A1",)},
    "both": {"extra": ("DNA", "ATP1A1")},
    **{f"pixel_{n}": {"pixel_size": float(n)} for n in (1, 2)},
    "naive": {"labels": "wrong"},
    "robust": {"labels": "wrong", "robust": True},
    **{f"filters_{n}": {"root_filters": n} for n in (4, 16)},
    **{f"depth_{n}": {"depth": n} for n in (3, 5)},
}
VARIANTS = {name: Variant(**BASELINE | change) for name, change in CHANGES.items()}


class Network(ns.models.UNet):
    """The library's network, whose first block sees n further channels: (B, 2 + n, H, W) to (B, 1, H, W)."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant.root_filters, variant.depth, RECIPE.padding, RECIPE.patch)
        self.contracting_layers[0] = Block((2 + len(variant.extra)) * self.patch**2, self.root_filters, self.padding)
        self.contracting_layers[0].register_forward_pre_hook(lambda *_: self.inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits; the inherited pass checks image and interior, and its first block is given all inputs."""
        self.inputs = torch.pixel_unshuffle(x, self.patch)
        return super().forward(x[:, :2])


@lru_cache(1)
def cohort(seed: int):
    """Simulate the tissue, with two layers of labels: the truth, and one that is wrong in the regions for training."""
    look = {"shape": (256, 256), "segmentation": Segmentation("cell", wobble=0.3, merged=0.02, split=0.02)}
    sdata = simulate(PANEL | STAINS, TYPES, n_regions=len(REGIONS), rng=[20261203, seed], **look)
    adata, n = sdata.tables["table"], len(PANEL)
    truth = adata.layers.pop("gold")
    truth[:, n:] = np.nan
    shown, wrong = adata.obs["region"].isin(REGIONS[HELD:]).to_numpy(), np.zeros(truth.shape, bool)
    rng = np.random.default_rng([20261203, seed, 1])
    wrong[shown, :n] = wrong_labels(adata[shown], truth[shown, :n], WRONG, "type", rng)
    adata.layers["right"], adata.layers["wrong"] = truth, np.where(wrong, 1 - truth, truth)
    return sdata


def tiles_of(folder: Path, variant: Variant, seed: int) -> ns.train.Store:
    """Return the tiles that a variant is shown; they are written once."""
    path = folder / f"{seed}_{variant.pixel_size}_{variant.labels}"
    if path.exists():
        return ns.train.Store(path)
    cut = {"tile_size": (round(FIELD / variant.pixel_size), 0), "labels": variant.labels, "progress": False}
    cut |= {"model": replace(ns.models.PUBLISHED, pixel_size=variant.pixel_size), "channels": CHANNELS}
    cut |= {"split": {"test": REGIONS[:HELD], "train": REGIONS[HELD:]}}
    return ns.train.build_store(path, cohort(seed), data_set="simulated", **cut)


def batch_of(store: ns.train.Store, tiles: np.ndarray, extra: tuple[str, ...]) -> Batch:
    """Stack tiles, and behind image and interior the further channels of the same windows."""
    batch = collate([read(store, *tile) for tile in tiles.tolist()])
    more = [
        [read(store, r, w, CHANNELS.index(name)).inputs[0, 0].numpy() for name in extra] for r, w, _ in tiles.tolist()
    ]
    further = torch.from_numpy(np.array(more, np.float32).reshape(len(tiles), len(extra), *batch.cells.shape[1:]))
    return replace(batch, inputs=torch.cat([batch.inputs, further], dim=1))


def measure(folder: Path, variant: Variant, seed: int, steps: int) -> dict[str, float]:
    """Train and judge a variant; ``step_s`` is the median time of a step in the second half."""
    store = tiles_of(folder, variant, seed)
    torch.manual_seed(seed)
    network = Network(variant).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), RECIPE.learning_rate, weight_decay=RECIPE.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    augment, move = Augment(LOOK, seed), Augment(replace(LOOK, contrast=0, brightness=0, noise=0), seed)
    selector, seconds, tiles = Selector(RECIPE.selection, len(store.strata)), [], store.tiles("train")
    order = Order(len(tiles), BATCH, seed)
    for step in range(steps):
        start, batch = default_timer(), batch_of(store, tiles[order(step)], variant.extra)
        keep = labelled_cells(batch)
        if variant.robust and step >= steps // 2:
            with torch.no_grad():
                losses, scores, areas = cell_figures(network.eval()(batch.inputs), batch, "background")
            labels = torch.where(keep & (areas > 0), batch.labels, torch.nan)
            selector.update(losses, labels, batch.tile, batch.stratum, step - steps // 2)
            keep = selector.keep(losses, scores, labels, batch.stratum[batch.tile])
        shown = augment(replace(batch, inputs=batch.inputs[:, :2]), step)
        # Turns are drawn first, so the same seed and step turn further inputs as their tile.
        for number in range(2, batch.inputs.shape[1]):
            further = move(replace(batch, inputs=batch.inputs[:, [number, 1]]), step)
            shown = replace(shown, inputs=torch.cat([shown.inputs, further.inputs[:, :1]], dim=1))
        loss = masked_loss(network.train()(shown.inputs), shown, keep, "background")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), RECIPE.clip)
        optimizer.step()
        schedule.step()
        seconds.append(default_timer() - start)
    return {"step_s": float(np.median(seconds[steps // 2 :]))} | judge(network.eval(), store, variant.extra)


@torch.inference_mode()
def judge(network: Network, store: ns.train.Store, extra: tuple[str, ...]) -> dict[str, float]:
    """Compare calls with the truth of the regions for testing, and time the network."""
    listed, rows = store.tiles("test"), []
    for tiles in (listed[start : start + BATCH] for start in range(0, len(listed), BATCH)):
        batch = batch_of(store, tiles, extra)
        views = torch.stack([view.undo(torch.sigmoid(network(view.of(batch.inputs)))[:, 0]) for view in VIEWS])
        sums = {"area": torch.ones_like(views[0]), "f1": views[0], "f1_tta": views.mean(dim=0)}
        pixels, n = batch.cells.flatten(), len(batch.labels)
        found = {name: np.bincount(pixels, values.flatten(), n) for name, values in sums.items()}
        cells = {"region": tiles[batch.tile, 0], "channel": tiles[batch.tile, 2], "row": batch.rows}
        rows.append(pd.DataFrame(cells | {"label": batch.labels} | found)[1:])
    scored = pd.concat(rows).groupby(["channel", "region", "row", "label"]).sum().query("label != 0.5").reset_index()
    figures: dict[str, float] = {"cells": len(scored), "parameters": sum(one.numel() for one in network.parameters())}
    for name in ("f1", "f1_tta"):
        calls = scored.assign(call=scored[name] / scored["area"] >= 0.5).groupby("channel")
        figures[name] = float(np.mean([f1_score(one["label"], one["call"]) for _, one in calls]))
    return figures | {"forward_s": min(repeat(lambda: network(batch.inputs), number=1, repeat=10)) / len(batch.inputs)}


def digest(variant: Variant) -> str:
    """Tell a variant's settings from others, shortly."""
    settings = [vars(variant), replace(RECIPE, augmentation=LOOK).to_dict(), FIELD, WRONG]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]


def main() -> None:
    """Fill the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1, 2))
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    options, rows = parser.parse_args(), []
    (folder := options.out / str(options.steps)).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as stores:
        for seed, name in ((one, name) for one in options.seeds for name in options.only):
            row = folder / f"{name}_{seed}_{digest(VARIANTS[name])}.json"
            if not row.exists():
                found = measure(Path(stores), VARIANTS[name], seed, options.steps)
                row.write_text(json.dumps({"variant": name, "seed": seed} | found))
            rows.append(json.loads(row.read_text()))
            print(json.dumps(rows[-1]), flush=True)
    done = pd.DataFrame(rows)
    f1 = done.pivot(index="seed", columns="variant", values="f1").reindex(columns=list(VARIANTS))
    table = done.drop(columns="seed").groupby("variant", sort=False).mean().astype({"cells": int, "parameters": int})
    gain = pd.DataFrame({name: f1[name] - f1["naive" if name == "robust" else "baseline"] for name in table.index})
    table["gain"], table["least"], table["most"] = gain.mean(), gain.min(), gain.max()
    table["forward"] = table["forward_s"] / table["forward_s"].get("baseline", np.nan)
    table.to_csv(options.out / "ablations.csv")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
