"""Cell types of a real lymph node (CODEX), to be looked at beside the image: ``python benchmarks/lymph_node.py DATA``.

DATA is the folder of the real tissue, which is not part of this repository; there are no true types. The table that
comes with the package, a small one of markers that work on this tissue, and Leiden clusters: shares of types, the share
of each type's cells that are positive for each marker, and, with ``--out``, pictures of types, clusters and markers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import nimbus_sd as ns

TYPES = pd.DataFrame(
    {
        "parent": ["", "T cell", "T cell", "", ""],
        "CD3": ["+", "", "", "-", "-"],
        "PAX5": ["-", "", "", "+", "-"],
        "CD4": ["", "+", "-", "", ""],
        "CD8": ["", "-", "+", "", ""],
        "CD68": ["", "", "", "", "+"],
    },
    index=["T cell", "CD4 T cell", "CD8 T cell", "B cell", "Macrophage"],
)
SHOWN = ("CD3", "PAX5", "CD68")
# Not used to name the types, so that they can speak against them.
WITNESSES = ["CD7", "CD19", "CD20", "CD79a", "BCL-6", "CD163", "CD11c", "CD11b"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--out", type=Path, help="write the pictures into this folder")
    options = parser.parse_args()
    folder = options.data / "codex_lymphoid"
    sdata = ns.io.read_fovs(folder / "image.ome.tif", folder / "labels.tif", pixel_size=0.5)
    adata = ns.predict(sdata, model=options.model, progress=False)
    ns.tl.cell_types(adata, missing="skip", key_added="packaged")
    ns.tl.cell_types(adata, TYPES, key_added="small")
    ns.tl.leiden(adata, channels=[*TYPES.columns[1:], *WITNESSES], resolution=0.5, key_added="leiden")
    calls = adata.to_df("nimbus")[[*TYPES.columns[1:], *WITNESSES]] >= 0.5
    for key in ("packaged", "small"):
        print(adata.obs[key].value_counts(normalize=True).round(3).to_string(), end="\n\n")
    for key in ("small", "leiden"):
        print(calls.groupby(adata.obs[key], observed=True).mean().round(2).to_string(), end="\n\n")
    print(pd.crosstab(adata.obs["leiden"], adata.obs["small"]).to_string())
    if options.out:
        draw(sdata, options.out)


def draw(sdata, folder: Path) -> None:
    """Draw types and clusters beside the image, in a folder."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for key in ("small", "leiden"):
        ns.pl.cells(sdata, key, next(iter(sdata.labels))).figure.savefig(folder / f"{key}.png", bbox_inches="tight")
    image = next(iter(sdata.images.values())).sel(c=list(SHOWN)).to_numpy().astype(float)
    _, ax = plt.subplots(figsize=(8, 8))
    ax.imshow(np.clip(image / np.quantile(image, 0.995, axis=(1, 2), keepdims=True), 0, 1).transpose(1, 2, 0))
    ax.set_title(", ".join(f"{name} {color}" for name, color in zip(SHOWN, ("red", "green", "blue"), strict=True)))
    ax.figure.savefig(folder / "image.png", bbox_inches="tight")


if __name__ == "__main__":
    main()
