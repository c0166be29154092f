"""Leiden clusters: those of scanpy on the layer, beside whatever the table has."""

import sys

import anndata
import numpy as np
import pytest
import scanpy as sc
from sklearn.metrics import adjusted_rand_score
from spatialdata import SpatialData

from nimbus_sd.tl import _neighbours, leiden


def test_clusters_are_the_types_and_named_by_size(typed_table, no_warning):
    adata = typed_table()
    assert leiden(adata, resolution=0.1) is None
    found = adata.obs["leiden_nimbus"]
    assert adjusted_rand_score(adata.obs["type"], found) == 1
    assert found.value_counts()[["0", "1", "2", "3", "4"]].to_list() == [80, 60, 50, 40, 30]
    assert list(found.cat.categories) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("rng", [0, 5])
def test_it_is_scanpy_on_the_layer_and_not_on_x(typed_table, rng):
    adata = typed_table(spread=0.3)
    leiden(adata, n_neighbors=9, rng=rng)
    plain = anndata.AnnData(adata.layers["nimbus"], obs=adata.obs[[]])
    sc.pp.neighbors(plain, 9, use_rep="X", random_state=rng)
    sc.tl.leiden(plain, 1.0, random_state=rng, flavor="igraph", n_iterations=2, directed=False)
    assert len(plain.obs["leiden"].cat.categories) > 5
    assert adjusted_rand_score(plain.obs["leiden"], adata.obs["leiden_nimbus"]) == 1
    ours = adata.obsp["leiden_nimbus_neighbors_connectivities"]
    np.testing.assert_array_equal(ours.toarray(), plain.obsp["connectivities"].toarray())


def test_scanpy_finds_the_graph_and_its_values(typed_table):
    adata = typed_table(spread=0.3)
    leiden(adata, channels=["CD20", "CD3"], resolution=0.5)
    entry = adata.uns["leiden_nimbus_neighbors"]
    assert entry["params"]["n_neighbors"] == 15 and entry["params"]["use_rep"] == "leiden_nimbus_neighbors"
    np.testing.assert_array_equal(adata.obsm["leiden_nimbus_neighbors"], adata.layers["nimbus"][:, [2, 0]])
    np.testing.assert_array_equal(np.diff(adata.obsp[entry["distances_key"]].indptr), 14)
    sc.tl.leiden(adata, 0.5, neighbors_key="leiden_nimbus_neighbors", flavor="igraph", n_iterations=2, directed=False)
    assert adjusted_rand_score(adata.obs["leiden"], adata.obs["leiden_nimbus"]) == 1
    again = sc.Neighbors(adata, neighbors_key="leiden_nimbus_neighbors")
    assert again.n_neighbors == 15
    params = adata.uns["leiden_nimbus"]["params"]
    assert params["random_state"] == 0 and params["resolution"] == 0.5 and params["layer"] == "nimbus"


@pytest.mark.slow
def test_approximate_neighbours_of_many_cells_are_nearly_the_exact_ones(typed_table, monkeypatch):
    """From 8,192 cells on scanpy's neighbours are approximate, by a package whose matrices scanpy may not take."""
    exact, found, again = typed_table(spread=0.2), typed_table(spread=0.2), typed_table(spread=0.2)
    leiden(exact, resolution=0.1)
    monkeypatch.setattr(_neighbours, "_EXACT_BELOW", 100)
    leiden(found, resolution=0.1)
    leiden(again, resolution=0.1)
    name = "leiden_nimbus_neighbors_connectivities"
    assert found.obsp[name].data.tobytes() == again.obsp[name].data.tobytes()
    assert abs(found.obsp[name] - exact.obsp[name]).sum() < 0.02 * exact.obsp[name].sum()
    assert adjusted_rand_score(exact.obs["leiden_nimbus"], found.obs["leiden_nimbus"]) > 0.95


def test_what_was_there_stays_and_a_second_call_overwrites_its_own(typed_table, caplog):
    adata = typed_table()
    sc.pp.neighbors(adata, 5, use_rep="X")
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    before = adata.copy()
    leiden(adata)
    leiden(adata, resolution=0.2, key_added="coarse")
    with caplog.at_level("INFO", "nimbus_sd"):
        leiden(adata, resolution=0.1)
    adata.layers["empty"] = np.full(adata.shape, np.nan)
    with caplog.at_level("INFO", "nimbus_sd"), pytest.raises(ValueError, match="no score of any cell"):
        leiden(adata, layer="empty")
    assert caplog.text.count("overwrote") == 1
    assert "overwrote uns['leiden_nimbus'], obs['leiden_nimbus']" in caplog.text
    assert adata.uns["leiden_nimbus"]["params"]["resolution"] == 0.1 and "coarse" in adata.obs
    assert adata.obs["leiden"].equals(before.obs["leiden"]) and adata.uns["leiden"] == before.uns["leiden"]
    assert adata.uns["neighbors"] == before.uns["neighbors"]
    for name in ("connectivities", "distances"):
        np.testing.assert_array_equal(adata.obsp[name].toarray(), before.obsp[name].toarray())
    with pytest.raises(ValueError, match=r"obs\['leiden'\], which `tl.leiden` did not make"):
        leiden(adata, key_added="leiden")


def test_cells_without_a_score_get_no_cluster_and_no_neighbours(typed_table):
    adata = typed_table()
    adata.layers["nimbus"][[3, 7], 2] = np.nan
    without = adata[[i for i in range(adata.n_obs) if i not in (3, 7)]].copy()
    with pytest.warns(UserWarning, match="2 of 260 cells are left out") as caught:
        leiden(adata)
    assert caught[0].filename == __file__
    leiden(without)
    missing = adata.obs["leiden_nimbus"].isna()
    assert list(np.flatnonzero(missing)) == [3, 7]
    assert adata.obs["leiden_nimbus"][~missing].equals(without.obs["leiden_nimbus"])
    graph = adata.obsp["leiden_nimbus_neighbors_connectivities"].toarray()
    assert not graph[[3, 7]].any() and not graph[:, [3, 7]].any()
    kept = np.ix_(~missing, ~missing)
    np.testing.assert_array_equal(graph[kept], without.obsp["leiden_nimbus_neighbors_connectivities"].toarray())


def test_logit_spreads_the_ends(typed_table):
    adata = typed_table()
    leiden(adata, transform="logit", channels=["CD3"])
    scores = np.clip(adata.layers["nimbus"][:, 0].astype(float), 0.01, 0.99)
    np.testing.assert_allclose(adata.obsm["leiden_nimbus_neighbors"][:, 0], np.log(scores / (1 - scores)), rtol=1e-5)
    assert adata.uns["leiden_nimbus"]["params"]["transform"] == "logit"


@pytest.mark.parametrize("rng", [3, "generator"])
def test_same_seed_same_bytes(typed_table, rng):
    found = []
    for _ in range(2):
        adata = typed_table(spread=0.3)
        leiden(adata, rng=np.random.default_rng(3) if rng == "generator" else rng)
        graph = adata.obsp["leiden_nimbus_neighbors_connectivities"]
        found.append((adata.obs["leiden_nimbus"].cat.codes.to_numpy().tobytes(), graph.data.tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_survive_the_disk(typed_table, kind, tmp_path):
    adata = typed_table()
    leiden(adata)
    getattr(adata, f"write_{kind}")(tmp_path / "table")
    back = getattr(anndata, f"read_{kind}")(tmp_path / "table")
    assert back.obs["leiden_nimbus"].equals(adata.obs["leiden_nimbus"])
    assert list(back.uns["leiden_nimbus"]["params"]["channels"]) == list(adata.var_names)
    leiden(back, resolution=0.1)
    assert back.uns["leiden_nimbus"]["params"]["resolution"] == 0.1


@pytest.mark.parametrize(
    "given, message",
    [
        ({"n_neighbors": 1}, "`n_neighbors` is 1; it must be a whole number, 2 or more"),
        ({"n_neighbors": 260}, "Only 260 cells have all scores, which is too few"),
        ({"resolution": 0}, "`resolution` is 0; it must be a number above 0"),
        ({"resolution": np.inf}, "`resolution` is inf"),
        ({"resolution": "high"}, "`resolution` is 'high'"),
        ({"rng": None}, "`rng` is None; it must be a seed, from 0 to 2"),
        ({"rng": -1}, "`rng` is -1"),
        ({"rng": 1.5}, "`rng` is 1.5"),
        ({"transform": "log"}, "`transform` is 'log'; it must be None or 'logit'"),
        ({"transform": "logit", "layer": "counts"}, "for scores in \\[0, 1\\]; layer 'counts' has other values"),
        ({"key_added": "a/b"}, "cannot be written to disk"),
    ],
)
def test_what_cannot_be_done_is_said(typed_table, given, message):
    adata = typed_table()
    adata.layers["counts"] = adata.layers["nimbus"] * 100
    with pytest.raises(ValueError, match=message):
        leiden(adata, **given)
    assert "leiden_nimbus" not in adata.obs


@pytest.mark.filterwarnings("ignore:.*the same in every cell")
def test_cells_that_are_all_alike_have_no_clusters(typed_table):
    adata = typed_table()
    adata.layers["nimbus"][:] = 0.5
    with pytest.raises(ValueError, match="All 260 cells have the same values in layer 'nimbus': there are no clusters"):
        leiden(adata)
    assert "leiden_nimbus" not in adata.obs


def test_a_spatialdata_in_place_of_its_table_is_said():
    with pytest.raises(TypeError, match=r"a table of cells \(AnnData\) and was given SpatialData.*sdata.tables"):
        leiden(SpatialData())


def test_without_igraph_it_says_what_to_install(typed_table, monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(ImportError, match=r"igraph \(GPL\): pip install '\.\[leiden\]' in the clone"):
        leiden(typed_table())
