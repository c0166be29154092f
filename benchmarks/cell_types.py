"""Compare clusterings of scores with clusterings of integrated expression on simulated tissue whose types are known.

``python benchmarks/cell_types.py``: for three seeds of a cohort (10 regions, 15 types, 33 markers, types as rare as
0.5 %, spill-over; settings that training does not use) and for the packaged example: adjusted Rand index with the true
types, and recall of the rare types (share of their cells in clusters in which they are the most frequent type).
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

import nimbus_sd as ns
from nimbus_sd.simulate import Segmentation, draw_look, simulate

# Share of cells in per cent, and what they express.
TYPES = {
    "CD4 T": (14, "CD45 CD3 CD4 CD45RO"),
    "CD8 T": (10, "CD45 CD3 CD8 GZMB"),
    "Treg": (2, "CD45 CD3 CD4 FOXP3 CD25"),
    "B": (12, "CD45 CD20 CD19 HLADR PAX5"),
    "plasma": (3, "CD45 CD138 CD38"),
    "NK": (1, "CD45 CD56 GZMB CD57"),
    "macrophage": (8, "CD45 CD68 CD163 HLADR CD14"),
    "monocyte": (4, "CD45 CD14 CD11b"),
    "dendritic": (0.8, "CD45 CD11c HLADR CD1c"),
    "neutrophil": (3, "CD45 CD15 CD11b MPO"),
    "mast": (0.5, "CD45 Tryptase CD117"),
    "endothelium": (5, "CD31 CD34"),
    "fibroblast": (10, "SMA Vimentin"),
    "epithelium": (20, "PanCK ECadherin"),
    "proliferating epithelium": (6.7, "PanCK ECadherin Ki67"),
}
RARE = [name for name, (share, _) in TYPES.items() if share <= 1]
NUCLEAR, GRANULAR, CYTOPLASMIC = (
    {"FOXP3", "PAX5", "Ki67"},
    {"GZMB", "MPO", "Tryptase", "CD68"},
    {"PanCK", "SMA", "Vimentin"},
)


def cohort(seed: int, regions: int, side: int):
    """Simulate a cohort: every marker's staining and detector are drawn from the looks of the platforms."""
    rng = np.random.default_rng([20261125, seed])
    panel = {}
    for marker in sorted({name for _, text in TYPES.values() for name in text.split()}):
        look = draw_look(("CODEX", "Vectra", "CyCIF")[rng.integers(3)], rng)
        place = "membrane"
        for where, names in (("nucleus", NUCLEAR), ("granules", GRANULAR), ("cytoplasm", CYTOPLASMIC)):
            place = where if marker in names else place
        settings = {**vars(look.marker), "localization": place}
        panel[marker] = (type(look.marker)(**settings), look.detector)
    types = {name: (share, tuple(text.split())) for name, (share, text) in TYPES.items()}
    grown = Segmentation("grown", 1.0, wobble=0.4, merged=0.03, split=0.02)
    return simulate(panel, types, n_regions=regions, shape=(side, side), radius=4.5, segmentation=grown, rng=rng)


def add_usual_layers(adata) -> list[str]:
    """Layers that users cluster today: raw means, and z-scores of their arcsinh."""
    mean = adata.layers["integrated_expression"]
    arcsinh = np.arcsinh(mean / np.maximum(np.median(mean, axis=0), 1e-9))
    adata.layers["arcsinh_z"] = ((arcsinh - arcsinh.mean(0)) / np.maximum(arcsinh.std(0), 1e-9)).astype(np.float32)
    return ["nimbus", "integrated_expression", "arcsinh_z"]


def recall_of(types: pd.Series, clusters: pd.Series, names: list[str]) -> float:
    """Share of the cells of some types that lie in clusters in which their type is the most frequent one."""
    majority = pd.crosstab(clusters, types).idxmax(axis=1)
    found = clusters.astype(object).map(majority)
    chosen = types.isin(names)
    return float((found[chosen].astype(str) == types[chosen].astype(str)).mean()) if chosen.any() else float("nan")


def compare(adata, name: str, resolution: float) -> list[dict]:
    """Cluster each layer by each algorithm, with equal settings."""
    from sklearn.metrics import adjusted_rand_score

    rows = []
    types = adata.obs["cell_type"]
    for layer in add_usual_layers(adata):
        ns.tl.leiden(adata, layer=layer, resolution=resolution, key_added="leiden")
        ns.tl.flowsom(adata, layer=layer, n_metaclusters=types.nunique(), key_added="flowsom")
        for algorithm in ("leiden", "flowsom"):
            clusters = adata.obs[algorithm]
            known = clusters.notna()
            rows.append(
                {
                    "data": name,
                    "algorithm": algorithm,
                    "layer": layer,
                    "clusters": clusters.nunique(),
                    "ARI": adjusted_rand_score(types[known], clusters[known]),
                    "recall of rare types": recall_of(types[known], clusters[known], RARE),
                }
            )
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--side", type=int, default=512, help="of a region, in pixels of 0.5 um")
    parser.add_argument("--resolution", type=float, default=1.0, help="of Leiden")
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        sdata = cohort(seed, options.regions, options.side)
        adata = ns.predict(sdata, model=options.model, progress=False)
        rows += compare(adata, f"cohort {seed}", options.resolution)
        print(pd.DataFrame(rows[-6:]).round(3).to_string(), flush=True)
    adata = ns.predict(ns.datasets.example(), model=options.model, progress=False)
    rows += compare(adata, "example", options.resolution)
    table = pd.DataFrame(rows)
    print(table.pivot_table(index=["data", "algorithm"], columns="layer", values="ARI").round(3).to_string())
    print(table.pivot_table(index=["data", "algorithm"], columns="layer", values="recall of rare types").round(3))


if __name__ == "__main__":
    main()
