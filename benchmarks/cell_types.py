"""Compare clusterings of scores with clusterings of integrated expression on simulated tissue whose types are known.

Data: for each seed a cohort (10 regions, 15 types, 30 markers, three types at 0.5 %; masks grown from nuclei, so that
neighbours spill over; looks of platforms, which training never draws), and the packaged example, clustered with each
seed, without its counterstain and marker of proliferation. Leiden (some resolutions) and FlowSOM (as many metaclusters
as types) have equal settings on each layer: scores, mean intensities, and z-scores of their arcsinh. Signatures of the
package are tried on scores and on calls by Otsu's threshold on the arcsinh.

A cluster is named after the type that more than half of its cells are of; a cell is assigned if its cluster has a name.
Recall: share of the cells of rare types (1 % or less in the design) whose cluster is named after their type.

Markers are scored one after the other, each in all regions at once, as normalisation is of the whole cohort.
``--cache`` keeps them, by checksum of pixels, masks and the model with its rules, so that a run that was stopped goes
on. ``--attempts`` adds three ways to transform scores before clustering.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from looks import draw_look
from sklearn.metrics import adjusted_rand_score

import nimbus_sd as ns
from nimbus_sd.simulate import Segmentation, simulate

# Share of cells in per cent, and what they express; names as in the package's signatures.
TYPES = {
    "CD4 T cell": (14, "CD45 CD3 CD4"),
    "CD8 T cell": (10, "CD45 CD3 CD8 GZMB"),
    "Regulatory T cell": (2, "CD45 CD3 CD4 FOXP3 CD25"),
    "B cell": (12, "CD45 CD20 HLADR PAX5"),
    "Plasma cell": (3, "CD45 CD138 CD38"),
    "NK cell": (0.5, "CD45 CD56 GZMB"),
    "CD163+ macrophage": (8, "CD45 CD68 CD163 HLADR CD14"),
    "Monocyte": (4, "CD45 CD14 CD11b"),
    "Dendritic cell": (0.5, "CD45 CD11c HLADR"),
    "Neutrophil": (3, "CD45 CD15 CD11b MPO"),
    "Mast cell": (0.5, "CD45 Tryptase CD117"),
    "Endothelial cell": (5, "CD31 CD34"),
    "SMA+ stromal cell": (10.5, "SMA Vimentin"),
    "Luminal epithelial cell": (20, "PanCK ECadherin CK8"),
    "Basal epithelial cell": (7, "PanCK ECadherin CK5"),
}
RARE = [name for name, (share, _) in TYPES.items() if share <= 1]
MARKERS = sorted({marker for _, text in TYPES.values() for marker in text.split()})
PLACES = {
    "nucleus": {"FOXP3", "PAX5"},
    "granules": {"GZMB", "MPO", "Tryptase", "CD68"},
    "cytoplasm": {"PanCK", "CK5", "CK8", "SMA", "Vimentin"},
}
OF_EXAMPLE = ["CD45", "CD3", "CD8", "CD20", "CD68", "PanCK"]
SCORES, EXPRESSION = "nimbus", ("integrated_expression", "arcsinh_z")
NEEDED = 0.05


def cohort(seed: int, regions: int, side: int):
    """Simulate a cohort: every marker's staining and detector are drawn from the looks of platforms."""
    rng = np.random.default_rng([20261125, seed])
    panel = {}
    for marker in MARKERS:
        look = draw_look(("CODEX", "Vectra", "CyCIF")[rng.integers(3)], rng)
        place = next((place for place, names in PLACES.items() if marker in names), "membrane")
        panel[marker] = (replace(look.marker, localization=place), look.detector)
    types = {name: (share, tuple(text.split())) for name, (share, text) in TYPES.items()}
    grown = Segmentation("grown", 1.0, wobble=0.4, merged=0.03, split=0.02)
    return simulate(panel, types, n_regions=regions, shape=(side, side), radius=4.5, segmentation=grown, rng=rng)


def scored(sdata, model: str, cache: Path | None) -> AnnData:
    """Return the table with all scores; those in the cache are not computed again."""
    adata = sdata.tables["table"].copy()
    adata.layers["integrated_expression"] = adata.X.copy()
    adata.layers[SCORES] = np.full(adata.shape, np.nan, np.float32)
    start, computed = time.perf_counter(), 0
    for i, marker in enumerate(adata.var_names):
        path = cache and cache / f"{marker}-{_checksum(sdata, i, model)}.npy"
        if path and path.exists():
            adata.layers[SCORES][:, i] = np.load(path)
            continue
        found = ns.predict(sdata, channels=[marker], model=model, table_key="scored", progress=False)
        column = pd.Series(found.layers[SCORES][:, found.var_names.get_loc(marker)], found.obs_names)
        adata.layers[SCORES][:, i] = column[adata.obs_names]
        computed += 1
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_suffix(".part")
            with half.open("wb") as file:
                np.save(file, adata.layers[SCORES][:, i])
            os.replace(half, path)
    print(f"{adata.n_obs} cells, {computed} of {adata.n_vars} markers scored in {time.perf_counter() - start:.0f} s")
    return adata


def _checksum(sdata, channel: int, model: str) -> str:
    """Tell the pixels of a channel, the masks, the model and its normalisation apart from all others."""
    card = ns.models.load(model).card
    digest = hashlib.sha256(f"{card.sha256} {card.rule} {card.quantile} {card.pixel_size}".encode())
    for name in sorted(sdata.images):
        digest.update(np.ascontiguousarray(sdata.images[name][channel].to_numpy()).tobytes())
    for name in sorted(sdata.labels):
        digest.update(np.ascontiguousarray(sdata.labels[name].to_numpy()).tobytes())
    return digest.hexdigest()[:16]


def add_arcsinh(adata: AnnData) -> None:
    """Layer that users cluster today: z-scores of arcsinh(x / c); c is the median of a channel's values above 0."""
    mean = adata.layers["integrated_expression"]
    scale = [np.median(column[column > 0]) if (column > 0).any() else 1 for column in mean.T]
    arcsinh = np.arcsinh(mean / scale)
    adata.layers["arcsinh_z"] = ((arcsinh - arcsinh.mean(0)) / np.maximum(arcsinh.std(0), 1e-9)).astype(np.float32)
    calls = [column >= ns.metrics.find_threshold(column, "otsu") for column in arcsinh.T]
    adata.layers["arcsinh_otsu"] = np.stack(calls, axis=1).astype(np.float32)


def add_attempts(adata: AnnData) -> list[str]:
    """Layers of transformed scores: logits, automatic calls, and scores stretched to each marker's own range."""
    scores = adata.layers[SCORES].astype(np.float64)
    clipped = np.clip(scores, 0.01, 0.99)
    adata.layers["scores_logit"] = np.log(clipped / (1 - clipped)).astype(np.float32)
    ns.tl.call_positive(adata, threshold="auto", n_boot=0, key_added="scores_called")
    low, high = np.quantile(scores, [0.01, 0.99], axis=0)
    adata.layers["scores_stretched"] = np.clip((scores - low) / np.maximum(high - low, 1e-9), 0, 1).astype(np.float32)
    return ["scores_logit", "scores_called", "scores_stretched"]


def named(types: pd.Series, clusters: pd.Series) -> pd.Series:
    """Give each cell the type of more than half of its cluster's cells, missing without one."""
    shares = pd.crosstab(clusters.astype(object), types.astype(object), normalize="index")
    names = shares.idxmax(axis=1).where(shares.max(axis=1) > 0.5)
    return clusters.astype(object).map(names)


def figures(types: pd.Series, clusters: pd.Series, found: pd.Series, rare: list[str]) -> dict[str, float]:
    """Judge clusters, and the types that their cells have by them (missing: unassigned)."""
    known, chosen = clusters.notna(), types.isin(rare)
    return {
        "clusters": clusters.nunique(),
        "ARI": adjusted_rand_score(types[known].astype(str), clusters[known].astype(str)),
        "assigned": float(found.notna().mean()),
        "recall of rare": float((found[chosen] == types.astype(object)[chosen]).mean()) if chosen.any() else np.nan,
        "rare cells": int(chosen.sum()),
    }


def clusterings(
    adata: AnnData, layer: str, channels: list[str], resolutions: list[float], seed: int
) -> Iterator[tuple[str, pd.Series]]:
    """Cluster a layer by each algorithm."""
    given = {"layer": layer, "channels": channels, "rng": seed}
    for resolution in resolutions:
        ns.tl.leiden(adata, **given, resolution=resolution, key_added="leiden")
        yield f"leiden {resolution:g}", adata.obs["leiden"]
    ns.tl.flowsom(adata, **given, n_metaclusters=adata.obs["cell_type"].nunique(), key_added="flowsom")
    yield "flowsom", adata.obs["flowsom"]


def compare(
    adata: AnnData, channels: list[str], rare: list[str], resolutions: list[float], seed: int, attempts: bool
) -> Iterator[dict]:
    """Judge each layer with each algorithm, with equal settings, and signatures."""
    add_arcsinh(adata)
    types = adata.obs["cell_type"]
    for layer in (SCORES, *EXPRESSION, *(add_attempts(adata) if attempts else ())):
        for algorithm, clusters in clusterings(adata, layer, channels, resolutions, seed):
            row = {"seed": seed, "algorithm": algorithm, "layer": layer}
            yield row | figures(types, clusters, named(types, clusters), rare)
    for layer in (SCORES, "arcsinh_otsu"):
        ns.tl.cell_types(adata, layer=layer, missing="skip", key_added="type")
        groups = adata.obs["type"]
        found = groups.astype(object).where(~groups.isin(["unassigned", "ambiguous"]))
        yield {"seed": seed, "algorithm": "signatures", "layer": layer} | figures(types, groups, found, rare)


def margins(table: pd.DataFrame) -> pd.DataFrame:
    """By how much the index of each layer of scores is above that of the best layer of expression."""
    index = table[table["algorithm"] != "signatures"].pivot(
        index=["data", "seed", "algorithm"], columns="layer", values="ARI"
    )
    return index.drop(columns=list(EXPRESSION)).sub(index[list(EXPRESSION)].max(axis=1), axis=0)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="compact", help="name or path, as for nimbus_sd.predict")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--side", type=int, default=512, help="of a region, in pixels of 0.5 um")
    parser.add_argument("--resolutions", type=float, nargs="+", default=[0.1, 0.3, 1.0], help="of Leiden")
    parser.add_argument("--attempts", action="store_true", help="also cluster transformed scores")
    parser.add_argument("--cache", type=Path, help="folder that keeps scores, to go on from")
    parser.add_argument("--out", type=Path, help="write the table to this CSV file, anew after each seed")
    options = parser.parse_args()
    example = scored(ns.datasets.example(), options.model, options.cache)
    rows: list[dict] = []
    for seed in options.seeds:
        adata = scored(cohort(seed, options.regions, options.side), options.model, options.cache)
        for data, cells, channels, rare in (("example", example, OF_EXAMPLE, []), ("cohort", adata, MARKERS, RARE)):
            found = compare(cells, channels, rare, options.resolutions, seed, options.attempts)
            rows += [{"data": data, **row} for row in found]
        table = pd.DataFrame(rows)
        if options.out:
            table.to_csv(options.out, index=False)
        print(table[table["seed"] == seed].round(3).to_string(index=False), flush=True)
    above = margins(table)
    print("\nadjusted Rand index above that of the best layer of expression:")
    print(above.round(3).to_string())
    for layer, column in above.items():
        enough = "everywhere" if (column >= NEEDED).all() else f"in {(column >= NEEDED).sum()} of {len(column)} cases"
        print(f"{layer}: at least {NEEDED} higher {enough}, lowest {column.min():+.3f}")


if __name__ == "__main__":
    main()
