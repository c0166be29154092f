"""The table goes on into squidpy as it is."""

import numpy as np
import pandas as pd
import pytest
from squidpy_here import squidpy_fits

import nimbus_sd as ns


@pytest.fixture(scope="module")
def clustered(small):
    """The example, scored; clusters of scores that are the truth, and types that some cells do not have."""
    adata = ns.predict(ns.datasets.example(), model=small, channels=["CD3"], pixel_size=0.5, progress=False)
    markers = ["CD3", "CD8", "CD20", "CD68", "PanCK"]
    ns.tl.flowsom(adata, layer="gold", channels=markers, xdim=4, ydim=4, n_metaclusters=5, engine="minisom")
    types = ns.tl.signatures().loc[["Immune cell", "T cell", "B cell", "Macrophage", "Epithelial cell"]]
    ns.tl.cell_types(adata, types, layer="gold")
    return adata


def test_the_table_has_what_squidpy_asks_for(clustered):
    position = clustered.obsm["spatial"]
    assert position.shape == (clustered.n_obs, 2) and position.dtype.kind == "f" and np.isfinite(position).all()
    assert clustered.obs_names.is_unique
    # Libraries, which must not be neighbours of each other.
    assert isinstance(clustered.obs["region"].dtype, pd.CategoricalDtype)
    for key in ("flowsom_nimbus", "cell_type_nimbus"):
        assert isinstance(clustered.obs[key].dtype, pd.CategoricalDtype) and clustered.obs[key].notna().all()


@pytest.mark.skipif(not squidpy_fits(), reason="needs squidpy 1.8 or newer: older ones do not import with anndata 0.12")
def test_neighbourhoods_and_co_occurrence_in_squidpy(clustered):
    import squidpy as sq

    adata = clustered.copy()
    sq.gr.spatial_neighbors_delaunay(adata, library_key="region")
    first, second = adata.obsp["spatial_connectivities"].nonzero()
    region = adata.obs["region"].to_numpy()
    assert len(first) > adata.n_obs and (region[first] == region[second]).all()

    one = adata[region == region[0]].copy()
    for key in ("flowsom_nimbus", "cell_type_nimbus"):
        groups = adata.obs[key].cat.categories
        sq.gr.nhood_enrichment(adata, key, n_perms=20, seed=0, show_progress_bar=False)
        enrichment = adata.uns[f"{key}_nhood_enrichment"]["zscore"]
        # A group of a few cells may never touch itself in 20 shuffles, so that there is nothing to divide by.
        large = adata.obs[key].value_counts()[groups].to_numpy() >= 50
        assert enrichment.shape == (len(groups), len(groups)) and large.sum() >= 5
        assert np.isfinite(enrichment[np.ix_(large, large)]).all()
        sq.gr.co_occurrence(one, key, interval=5)
        occurrence = one.uns[f"{key}_co_occurrence"]["occ"]
        here = len(one.obs[key].cat.categories)
        assert occurrence.shape == (here, here, 4) and (occurrence >= 0).all()
    # Cells of one type lie together in this tissue: the simulation draws it so.
    epithelium = list(adata.obs["cell_type_nimbus"].cat.categories).index("Epithelial cell")
    assert adata.uns["cell_type_nimbus_nhood_enrichment"]["zscore"][epithelium, epithelium] > 2
