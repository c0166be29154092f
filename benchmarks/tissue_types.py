"""Judge `tl.cell_types` at its defaults on real tissue whose cells have types of their authors.

Types are mapped to those of the package's signatures; mixtures and cells without a known type are left out. A cell is
named if its type is below "Immune cell". A name is right if it is the true type or one of its subtypes; `or above` also
counts a parent of the true type, such as "T cell" for a CD4 T cell. `imc_spleen` r2, r4, r8 and `mif_breast` were
looked at when the model was made; `vectra_lymphoid` and `imc_spleen` r6, r10, r12 were kept for one look at the end.
The network saw all of these sets but their held-out fields: types are judged here, not scores on unseen tissue.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import pandas as pd
from anndata import AnnData

import nimbus_sd as ns

HERE = Path(__file__).parent
#: Classes of imc_spleen by their means (class 0 is B cells in three fields, elsewhere a mixture).
SPLEEN = {1: "CD4 T cell", 2: "CD8 T cell", 4: "Macrophage", 6: "other"}
B_CELL_FIELDS = ("r2", "r4", "r6")
BREAST = {"TUMOR": "Epithelial cell", "CD8_GZMBneg": "CD8 T cell", "CD8_GZMBpos": "CD8 T cell", "OTHER": "other"}
VECTRA = {"B": "B cell", "Helper T": "CD4 T cell", "Cytotoxic T": "CD8 T cell"}
#: Dyes of vectra_lymphoid, and the cocktail of mif_breast.
CHANNELS = {"Alexa 594": "CD8", "FITC": "CD4", "Cy5": "CD20", "CK-EPCAM": "PanCK"}
SETS = {
    "imc_spleen, seen": ("imc_spleen", ["r2", "r4", "r8"], 1.0),
    "mif_breast, seen": ("mif_breast", ["B09", "B14"], 0.5),
    "imc_spleen, held back": ("imc_spleen", ["r6", "r10", "r12"], 1.0),
    "vectra_lymphoid, held back": ("vectra_lymphoid", [""], 0.5),
}
UNNAMED = ["Immune cell", "unassigned", "ambiguous"]


def scored(data: Path, name: str, fields: list[str], pixel_size: float, model: str) -> AnnData:
    """Score the fields of a set."""
    mask = "labels_typed.tif" if name == "imc_spleen" else "labels.tif"
    with tempfile.TemporaryDirectory() as folder:
        for field in fields:
            for file, kind in (("image.ome.tif", "images"), (mask, "masks")):
                place = Path(folder) / kind / f"{field or name}{'.ome.tif' if kind == 'images' else '.tif'}"
                place.parent.mkdir(exist_ok=True)
                place.symlink_to((data / name / field / file).resolve())
        sdata = ns.io.read_fovs(Path(folder) / "images", Path(folder) / "masks")
        return ns.predict(sdata, pixel_size=pixel_size, model=model, progress=False)


def true_types(data: Path, name: str, adata: AnnData) -> pd.Series:
    """Type of each cell by the authors, in our words; missing where none is known."""
    types = []
    for field, cells in adata.obs.groupby(adata.obs["region"].astype(str).str.removesuffix("_labels")):
        if name == "imc_spleen":
            known = pd.read_csv(data / name / field / "classes.csv").set_index("label")["class"]
            names = SPLEEN | ({0: "B cell"} if field in B_CELL_FIELDS else {})
        elif name == "mif_breast":
            table = pd.read_csv(data / name / field / "cells.csv").drop_duplicates("label", keep=False)
            known, names = table.set_index("label")["Phenotype"], BREAST
        else:
            known, names = pd.read_csv(data / name / "cells.csv").set_index("Cell ID")["Phenotype"], VECTRA
        types.append(pd.Series(known.reindex(cells["instance_id"]).map(names).to_numpy(), cells.index))
    return pd.concat(types).reindex(adata.obs_names)


def judge(found: pd.Series, true: pd.Series) -> dict[str, float]:
    """Shares of cells that are named, of names that are right, and of other cells that stay without a name."""
    parents = ns.tl.signatures()["parent"]

    def line(name: str) -> list[str]:
        return [name, *(line(parents[name]) if parents.get(name) else [])]

    found, known = found.astype(str), true.notna() & (true != "other")
    named = known & ~found.isin(UNNAMED)
    right = [a in line(b) for a, b in zip(true[named], found[named], strict=True)]
    above = [b in line(a) for a, b in zip(true[named], found[named], strict=True)]
    return {
        "cells": int(known.sum()),
        "named": named.sum() / known.sum(),
        "right": sum(right) / named.sum(),
        "or above": sum(a or b for a, b in zip(right, above, strict=True)) / named.sum(),
        "other unnamed": found[true == "other"].isin(UNNAMED).mean(),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--cache", type=Path, help="folder that keeps scored tables")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for title in options.sets:
        name, fields, pixel_size = SETS[title]
        kept = options.cache and options.cache / f"{title}.h5ad"
        if kept and kept.exists():
            import anndata

            adata = anndata.read_h5ad(kept)
        else:
            adata = scored(options.data, name, fields, pixel_size, options.model)
            if kept:
                adata.write_h5ad(kept)
        adata.var_names = [CHANNELS.get(channel, channel) for channel in adata.var_names]
        ns.tl.cell_types(adata)
        found, true = adata.obs["cell_type_nimbus"], true_types(options.data, name, adata)
        rows[title] = judge(found, true)
        print(f"{title}\n{pd.crosstab(true, found.astype(str), normalize='index').round(2).to_string()}\n", flush=True)
    print(pd.DataFrame(rows).T.round(3).to_string())


if __name__ == "__main__":
    main()
