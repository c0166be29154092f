"""The table goes on into squidpy as it is."""

import numpy as np
import pandas as pd
import pytest
from squidpy_here import squidpy_fits

import nimbus_sd as ns

KEYS = ("flowsom_nimbus", "cell_type_nimbus")


@pytest.mark.skipif(not squidpy_fits(), reason="needs squidpy 1.8 or newer: older ones do not import with anndata 0.12")
def test_neighbourhoods_and_co_occurrence_in_squidpy(small):
    """Clusters of scores that are the truth, and types that some cells do not have."""
    import squidpy as sq

    adata = ns.predict(ns.datasets.example(), model=small, channels=["CD3"], pixel_size=0.5, progress=False)
    markers = ["CD3", "CD8", "CD20", "CD68", "PanCK"]
    ns.tl.flowsom(adata, layer="gold", channels=markers, xdim=4, ydim=4, n_metaclusters=5, engine="minisom")
    types = ns.tl.signatures().loc[["Immune cell", "T cell", "B cell", "Macrophage", "Epithelial cell"]]
    ns.tl.cell_types(adata, types, layer="gold")
    assert np.isfinite(adata.obsm["spatial"]).all() and adata.obs_names.is_unique
    # Libraries, which must not be neighbours of each other.
    assert isinstance(adata.obs["region"].dtype, pd.CategoricalDtype) and adata.obs[list(KEYS)].notna().all(axis=None)

    sq.gr.spatial_neighbors_delaunay(adata, library_key="region")
    first, second = adata.obsp["spatial_connectivities"].nonzero()
    region = adata.obs["region"].to_numpy()
    assert len(first) > adata.n_obs and (region[first] == region[second]).all()
    of_one_region = adata[region == region[0]].copy()
    for key in KEYS:
        sq.gr.nhood_enrichment(adata, key, n_perms=20, seed=0, show_progress_bar=False)
        # A group of a few cells may never touch itself in 20 shuffles, so that there is nothing to divide by.
        large = adata.obs[key].value_counts()[adata.obs[key].cat.categories].to_numpy() >= 50
        assert large.sum() >= 5
        assert np.isfinite(adata.uns[f"{key}_nhood_enrichment"]["zscore"][np.ix_(large, large)]).all()
        sq.gr.co_occurrence(of_one_region, key, interval=5)
        assert (of_one_region.uns[f"{key}_co_occurrence"]["occ"] >= 0).all()
    # Cells of one type lie together in this tissue: the simulation draws it so.
    epithelium = list(adata.obs["cell_type_nimbus"].cat.categories).index("Epithelial cell")
    assert adata.uns["cell_type_nimbus_nhood_enrichment"]["zscore"][epithelium, epithelium] > 2
