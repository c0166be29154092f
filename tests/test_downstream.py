"""The table goes on into squidpy as it is."""

import numpy as np
import pandas as pd
import pytest

import nimbus_sd as ns


@pytest.fixture(scope="module")
def clustered(small):
    adata = ns.predict(ns.datasets.example(), model=small, channels=["CD3"], pixel_size=0.5, progress=False)
    adata.obs["cluster"] = pd.Categorical(adata.obs["cell_type"].astype(str))
    return adata


def test_the_table_has_what_squidpy_asks_for(clustered):
    position = clustered.obsm["spatial"]
    assert position.shape == (clustered.n_obs, 2) and position.dtype.kind == "f" and np.isfinite(position).all()
    assert clustered.obs_names.is_unique
    # Libraries, which must not be neighbours of each other.
    assert isinstance(clustered.obs["region"].dtype, pd.CategoricalDtype)


def test_neighbourhoods_of_clusters_in_squidpy(clustered):
    sq = pytest.importorskip("squidpy", exc_type=ImportError, reason="squidpy is missing or does not fit anndata")
    adata = clustered.copy()
    types = len(adata.obs["cluster"].cat.categories)

    sq.gr.spatial_neighbors(adata, coord_type="generic", delaunay=True, library_key="region")
    first, second = adata.obsp["spatial_connectivities"].nonzero()
    region = adata.obs["region"].to_numpy()
    assert len(first) > adata.n_obs and (region[first] == region[second]).all()

    sq.gr.nhood_enrichment(adata, "cluster", n_perms=20, seed=0, show_progress_bar=False)
    enrichment = adata.uns["cluster_nhood_enrichment"]["zscore"]
    assert enrichment.shape == (types, types) and np.isfinite(enrichment).all()

    one = adata[region == region[0]].copy()
    sq.gr.co_occurrence(one, "cluster", interval=5)
    occurrence = one.uns["cluster_co_occurrence"]["occ"]
    assert occurrence.shape == (types, types, 4) and (occurrence >= 0).all()
