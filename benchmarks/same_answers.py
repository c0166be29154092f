"""Records what the library answers, and compares two records: a rebuilt library must give the same answers.

    python benchmarks/same_answers.py record before.npz [DATA]
    python benchmarks/same_answers.py record after.npz [DATA]
    python benchmarks/same_answers.py compare before.npz after.npz

DATA is the folder of real tissue that tools/compact/README.md describes; without it only the example is used. Numbers
must agree within 1e-6; bytes, names, order and types exactly. Takes two minutes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from anndata import AnnData
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel

import nimbus_sd as ns

TOLERANCE = 1e-6
SIGNATURES = pd.DataFrame(
    {"parent": ["", "immune", "T cell", "immune", "immune", ""], "CD45": ["+", "", "", "", "", "-"]}
    | {"CD3": ["", "+", "", "-", "-", ""], "CD8": ["", "", "+", "", "", ""], "CD20": ["", "", "", "+", "", ""]}
    | {"CD68": ["", "", "", "", "+", ""], "PanCK": ["", "", "", "", "", "+"]},
    index=["immune", "T cell", "CD8 T cell", "B cell", "macrophage", "epithelium"],
)
#: A field of each of these, so many pixels wide and high, and this many channels of it.
REAL, SIDE, CHANNELS = ("codex_lymphoid", "imc_spleen", "mibi_lymphoid", "mif_breast"), 384, 4


def leaves(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Take an answer apart into arrays of numbers or of texts, each with a name."""
    if isinstance(value, AnnData):
        parts = {"X": value.X, "obs": value.obs, "var": value.var, "uns": dict(value.uns)}
        parts |= {kind: dict(getattr(value, kind)) for kind in ("layers", "obsm", "varm", "obsp")}
        yield from leaves(name, parts)
    elif isinstance(value, pd.DataFrame):
        columns = (
            {str(column): value[column] for column in value.columns} if value.columns.is_unique else value.to_dict()
        )
        yield from leaves(
            name, {"columns": list(map(str, value.columns)), "index": [str(key) for key in value.index], **columns}
        )
    elif isinstance(value, pd.Series | pd.Index | pd.Categorical):
        yield from leaves(name, np.asarray(value.astype(str) if value.dtype == "category" else value))
    elif sparse.issparse(value):
        yield from leaves(name, value.toarray())
    elif isinstance(value, Mapping):
        yield f"{name}.keys", np.array(sorted(map(str, value)))
        for key in sorted(value, key=str):
            yield from leaves(f"{name}.{key}", value[key])
    elif is_dataclass(value) and not isinstance(value, type):
        yield from leaves(name, asdict(value))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from leaves(f"{name}.{i}", part)
    elif isinstance(value, Path):
        for path in sorted(value.rglob("*")) if value.is_dir() else [value]:
            if path.is_file():
                yield f"{name}.{path.name}", np.array(hashlib.sha256(path.read_bytes()).hexdigest())
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            array = np.array([str(x) for x in array.ravel()], dtype=str)
        yield name, array


def example(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that the library computes, on simulated tissue; each answer may rest on those before it."""
    sdata = ns.datasets.example()
    yield "predict", lambda: ns.predict(sdata, save_maps=True, progress=False)
    adata = sdata.tables["table"]
    yield "maps", lambda: {key: sdata.images[key].to_numpy() for key in sdata.images if key.endswith("_nimbus")}
    yield "resumed", lambda: _resumed(folder)
    yield "views", lambda: ns.predict(_one(), tta=True, channels=["CD3"], progress=False)
    yield (
        "published",
        lambda: ns.predict(_one(), normalization={"CD3": 150.0}, channels=["CD3"], tile_size=128, progress=False),
    )
    yield "features", lambda: ns.tl.cell_features(sdata, progress=False)
    yield from _labels(sdata, adata, folder)
    yield from _metrics(adata)
    yield from _tools(adata, folder)
    yield "report", lambda: _report(adata, sdata, folder)
    yield "training", lambda: _training(folder)


def _one() -> SpatialData:
    sdata = ns.datasets.example()
    return sdata.subset(["fov1", "fov1_labels"])


def _resumed(folder: Path) -> Any:
    """Tables of a run with a checkpoint, and of one that goes on after half of the tiles were lost."""
    place = folder / "checkpoint"
    first = ns.predict(
        ns.datasets.example(), checkpoint=place, tile_size=128, channels=["CD3", "PanCK"], progress=False
    )
    for tile in sorted(place.glob("tile-*.npz"))[::2]:
        tile.unlink()
    again = ns.predict(
        ns.datasets.example(), checkpoint=place, tile_size=128, channels=["CD3", "PanCK"], progress=False
    )
    tiles = [dict(np.load(path)) for path in sorted(place.glob("tile-*.npz"))]
    return {"first": first, "again": again, "inputs": json.loads((place / "inputs.json").read_text()), "tiles": tiles}


def _labels(sdata: SpatialData, adata: AnnData, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    labels = ns.labels
    matrix = pd.DataFrame(0.0, index=adata.obs["cell_type"].cat.categories, columns=adata.var_names)
    for name, positive in {"CD4 T cell": ("CD45", "CD3"), "B cell": ("CD45", "CD20"), "epithelium": ("PanCK",)}.items():
        matrix.loc[name, list(positive)] = 1.0
    yield "silver", lambda: (labels.silver(adata, matrix, exclude=["DAPI"]), adata.layers["silver"])[1]
    gates = {"CD3": 30.0, "CD20": (20.0, 60.0), "PanCK": 80.0}
    yield (
        "gates",
        lambda: (
            labels.silver_from_gates(adata, gates, key_added="gates"),
            adata.layers["gates"],
            dict(adata.uns["gates"]),
        )[1:],
    )
    yield "check_silver", lambda: labels.check_silver(adata)
    yield "silver_noise", lambda: labels.silver_noise(adata)
    yield "draw_cells", lambda: labels.draw_cells(_without_gold(adata), 50, rng=3)
    yield "draw_regions", lambda: labels.draw_regions(adata, 1, rng=3)
    yield "to_csv", lambda: (labels.to_csv(adata, folder / "gold.csv", layer="gold"), folder / "gold.csv")[1]
    yield "from_csv", lambda: (labels.from_csv(adata, folder / "gold.csv", key_added="gold2"), adata.layers["gold2"])[1]
    yield "agreement", lambda: labels.agreement(adata, ["gold", "silver", "gold2"])
    yield (
        "consensus",
        lambda: (labels.consensus(adata, ["gold", "silver", "gold2"], key_added="both"), adata.layers["both"])[1],
    )
    yield (
        "to_qupath",
        lambda: (labels.to_qupath(sdata, folder / "qupath", layer="gold", channels=["CD3"]), folder / "qupath")[1],
    )


def _without_gold(adata: AnnData) -> AnnData:
    adata = adata.copy()
    del adata.layers["gold"]
    return adata


def _metrics(adata: AnnData) -> Iterator[tuple[str, Callable[[], Any]]]:
    metrics = ns.metrics
    pair = {"pred": ["nimbus", "integrated_expression"], "truth": "gold"}
    yield "marker_metrics", lambda: metrics.marker_metrics(adata, "nimbus", "gold", n_boot=50, rng=0)
    yield (
        "marker_metrics_by",
        lambda: metrics.marker_metrics(adata, "nimbus", "gold", by="region", threshold="oracle", n_boot=0),
    )
    yield "baselines", lambda: metrics.compare_baselines(adata, "gold", n_boot=30, rng=0)
    yield "roc", lambda: metrics.roc_curve(adata, **pair)
    yield "pr", lambda: metrics.pr_curve(adata, **pair)
    yield "thresholds", lambda: metrics.threshold_curve(adata, "nimbus", "gold")
    yield "calibration_curve", lambda: metrics.calibration_curve(adata, "nimbus", "gold", by_channel=True)
    yield "calibration_error", lambda: metrics.calibration_error(adata, "nimbus", "gold")
    yield "shape", lambda: metrics.score_shape(adata, "nimbus", "gold")
    yield "confounders", lambda: metrics.confounders(adata, "gold")
    yield (
        "information",
        lambda: metrics.confounder_information(
            adata, "nimbus", "gold", n_permutations=9, n_boot=0, max_cells=800, rng=0, progress=False
        ),
    )
    yield "image_statistics", lambda: metrics.image_statistics(adata)
    values = adata.layers["integrated_expression"][:, 1]
    yield "find_threshold", lambda: [metrics.find_threshold(values, rule) for rule in ("otsu", "mixture", "quantile")]


def _tools(adata: AnnData, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    tl = ns.tl
    yield "call_positive", lambda: (tl.call_positive(adata, threshold=0.5), adata)[1]
    yield (
        "call_auto",
        lambda: (
            tl.call_positive(adata, threshold="auto", key_added="auto", rng=0),
            adata.layers.get("auto"),
            adata.uns,
        )[1:],
    )
    yield "calibrate", lambda: (tl.calibrate(adata, regions=["fov1_labels"]), adata)[1]
    yield "adapt", lambda: (tl.adapt(adata, labels="gold", regions=["fov1_labels"]), adata)[1]
    yield "leiden", lambda: (tl.leiden(adata, rng=0), adata.obs, adata.uns)[1:]
    yield (
        "flowsom",
        lambda: (tl.flowsom(adata, xdim=5, ydim=5, n_metaclusters=6, engine="minisom", rng=0), adata.obs, adata.uns)[
            1:
        ],
    )
    yield "map_to_som", lambda: _mapped(adata)
    yield "cluster_checks", lambda: (tl.cluster_checks(adata, "leiden_nimbus", rng=0), adata.uns)
    yield "cell_types", lambda: (tl.cell_types(adata, SIGNATURES, key_added="types"), adata)[1]
    yield "bundled_signatures", lambda: tl.signatures()
    yield "check_signatures", lambda: tl.check_signatures(SIGNATURES, adata.var_names)
    yield "suggest_types", lambda: tl.suggest_types(adata, "leiden_nimbus", SIGNATURES)
    yield "metaclusters", lambda: _metaclusters(adata, folder)


def _mapped(adata: AnnData) -> Any:
    part = adata[:300].copy()
    ns.tl.map_to_som(part, adata, key_added="mapped")
    return part.obs, part.uns["mapped"]


def _metaclusters(adata: AnnData, folder: Path) -> Any:
    value = ns.tl.Metaclusters.from_table(adata, "leiden_nimbus")
    first, second, third = value.names[:3]
    value = value.merge([first, second], into="T cell").rename(third, "B cell")
    path = folder / "metaclusters.json"
    value.save(path)
    value.apply(adata, "leiden_nimbus", key_added="metacluster")
    return value.to_frame(), value.history(), path, adata.obs["metacluster"], adata.uns["metacluster"]


def _report(adata: AnnData, sdata: SpatialData, folder: Path) -> Any:
    """Words and numbers of the page; pictures are looked at, not compared."""
    path = folder / "report.html"
    ns.pl.report(adata, path, sdata=sdata, truth="gold")
    text = re.sub(r'(?s)<style.*?</style>|src="[^"]*"|<svg.*?</svg>', "", path.read_text())
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).split(" ")


def _training(folder: Path) -> Any:
    """Build a store and train a few steps."""
    from nimbus_sd.train import Augmentation, Recipe, build_store, train

    sdata = ns.datasets.example()
    table = sdata.tables["table"]
    table.layers["silver"] = table.layers.pop("gold")
    recipe = Recipe.laptop(
        root_filters=2, depth=3, patch=1, naive_steps=4, robust_steps=4, batch_size=2, validate_every=2,
        augmentation=Augmentation(elastic=0, blur=0),
    )  # fmt: skip
    store = build_store(
        folder / "tiles.zarr", sdata, data_set="example", channels=["CD3", "PanCK"], tile_size=128, progress=False,
        split={"train": ["fov1_labels"], "validation": ["fov2_labels"]},
        model=replace(ns.models.load("compact").card, root_filters=2, depth=3),
    )  # fmt: skip
    model = train(store, folder / "run", recipe=recipe, rng=0, accelerator="cpu", progress=False)
    return {name: value.numpy() for name, value in ns.models.load(model).network.state_dict().items()}


def real(data: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Scores of corners of real fields."""
    for name in REAL:
        image = next((data / name).rglob("image.ome.tif"))
        mask = next(path for path in image.parent.glob("labels*.tif"))
        pixels = tifffile.imread(image)[:CHANNELS, :SIDE, :SIDE]
        sdata = SpatialData(
            images={"image": Image2DModel.parse(pixels, dims=("c", "y", "x"))},
            labels={
                "cells": Labels2DModel.parse(tifffile.imread(mask)[:SIDE, :SIDE].astype(np.int32), dims=("y", "x"))
            },
        )
        yield f"real.{name}", lambda sdata=sdata: ns.predict(sdata, pixel_size=0.5, progress=False)


def record(path: Path, data: Path | None) -> None:
    """Write all answers to a file."""
    answers: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [example(Path(folder)), *([real(data)] if data else [])]
        for part in parts:
            for name, make in part:
                answers |= dict(leaves(name, make()))
                print(name, flush=True)
    np.savez_compressed(path, **answers)


def compare(before: Path, after: Path) -> int:
    """Print what differs, and how many answers there are."""
    old, new = (np.load(path) for path in (before, after))
    different = sorted(set(old.files) ^ set(new.files))
    for name in sorted(set(old.files) & set(new.files)):
        a, b = old[name], new[name]
        if a.shape != b.shape or a.dtype.kind != b.dtype.kind or not _equal(a, b):
            different.append(name)
    for name in different:
        print("differs:", name)
    print(f"{len(old.files)} arrays, {len(different)} differ")
    return int(bool(different))


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind in "US":
        return bool((a == b).all())
    return bool(np.allclose(a.astype(float), b.astype(float), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    else:
        sys.exit(compare(Path(sys.argv[2]), Path(sys.argv[3])))
