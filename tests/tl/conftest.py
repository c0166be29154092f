"""Tables of cells whose type is known."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

CHANNELS = ("CD3", "CD8", "CD20", "CD68", "PanCK")
TYPES = {"T": (0,), "CD8 T": (0, 1), "B": (2,), "macrophage": (3,), "epithelium": (4,)}


def typed_table(counts=(80, 60, 50, 40, 30), seed=0, spread=0.05):
    """Scores near 0.9 or 0.1 in layers["nimbus"]; X says something else."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.repeat(list(TYPES), counts))
    scores = np.full((len(kind), len(CHANNELS)), 0.1)
    for name, positive in TYPES.items():
        scores[np.ix_(kind == name, positive)] = 0.9
    scores = np.clip(scores + rng.normal(0, spread, scores.shape), 0, 1).astype(np.float32)
    return AnnData(
        rng.permutation(scores),
        obs=pd.DataFrame({"type": pd.Categorical(kind)}, index=[f"cell{i}" for i in range(len(kind))]),
        var=pd.DataFrame(index=list(CHANNELS)),
        layers={"nimbus": scores},
    )


@pytest.fixture(name="typed_table")
def _typed_table():
    return typed_table


def signatures(rows, markers=("CD45", "CD3", "CD4", "CD8", "CD20")):
    """Types from texts: ``{"T cell": ("Immune", "CD45+ CD3+")}``."""
    table = pd.DataFrame("", index=list(rows), columns=["parent", *markers])
    for name, (parent, rules) in rows.items():
        table.loc[name, "parent"] = parent
        for rule in rules.split():
            table.loc[name, rule[:-1]] = rule[-1]
    return table


@pytest.fixture(params=["h5ad", "zarr"])
def from_disk(request, tmp_path):
    """Write a table and read it again, in either format."""

    def written_and_read(adata):
        path = tmp_path / f"table.{request.param}"
        with warnings.catch_warnings():
            # Of anndata, about the next version of zarr.
            warnings.simplefilter("ignore", UserWarning)
            getattr(adata, f"write_{request.param}")(path)
        return getattr(anndata, f"read_{request.param}")(path)

    return written_and_read


@pytest.fixture(name="signatures")
def _signatures():
    return signatures
