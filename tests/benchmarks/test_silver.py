"""The parts of the benchmark of silver labels; figures come from running it."""

import numpy as np
import pandas as pd
from benchmark_module import module

import nimbus_sd as ns
from nimbus_sd.datasets.example import _TYPES

silver = module("silver")


def test_the_matrix_is_what_the_tissue_was_drawn_by():
    matrix = silver.assignment()
    assert {name: set(markers) for name, (_, markers) in _TYPES.items()} == {
        name: {marker for marker, label in row.items() if label == 1} for name, row in matrix.iterrows()
    }


def test_clusters_are_named_by_the_row_that_fits_best():
    profiles = pd.DataFrame(
        [
            [1, 1, 1, -1, -1, -1],
            [1, 1, -1, -1, -1, -1],
            [-1, -1, -1, -1, -1, 2],
            [-1, -1, -1, -1, -1, -1],
            [-1, -0.6, -0.5, -0.7, 0.9, -0.2],
        ],
        columns=silver.LINEAGE,
    )
    found = silver.named(profiles, silver.assignment())
    assert found.to_list() == ["CD8 T cell", "CD4 T cell", "epithelium", "other", "other"]


def test_true_types_give_the_truth():
    adata = ns.datasets.example().tables["table"]
    ns.labels.silver(adata, silver.assignment(), exclude="Ki67")
    found = silver.f1(adata)
    assert "Ki67" not in found and np.allclose(found, 1)
