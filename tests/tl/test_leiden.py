"""Leiden clusters: those of scanpy on the layer, beside whatever the table has."""

import sys

import numpy as np
import pynndescent
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsTransformer

from nimbus_sd.tl import leiden

GRAPH = "leiden_nimbus_neighbors_connectivities"


@pytest.mark.parametrize("rng", [0, 5])
def test_it_is_scanpy_on_the_layer_and_not_on_x_and_scanpy_finds_the_graph(typed_table, rng):
    adata = typed_table(spread=0.3)
    leiden(adata, n_neighbors=9, rng=rng, channels=["CD20", "CD3"])
    values = adata.layers["nimbus"][:, [2, 0]]
    np.testing.assert_array_equal(adata.obsm["leiden_nimbus_neighbors"], values)
    plain = AnnData(values, obs=adata.obs[[]])
    given = {"random_state": rng, "flavor": "igraph", "n_iterations": 2, "directed": False}
    sc.pp.neighbors(plain, 9, use_rep="X", random_state=rng)
    for table, key in ((plain, None), (adata, "leiden_nimbus_neighbors")):
        sc.tl.leiden(table, 1.0, neighbors_key=key, **given)
        assert adjusted_rand_score(table.obs["leiden"], adata.obs["leiden_nimbus"]) == 1
    sizes = adata.obs["leiden_nimbus"].value_counts(sort=False)
    assert sizes.index.tolist() == [str(i) for i in range(len(sizes))] and len(sizes) > 5
    assert sizes.is_monotonic_decreasing
    # Neighbours at the same distance may change places with where the arrays lie in memory.
    assert (adata.obsp[GRAPH] != plain.obsp["connectivities"]).nnz <= 8
    assert sc.Neighbors(adata, neighbors_key="leiden_nimbus_neighbors").n_neighbors == 9


def test_many_cells_get_scanpys_approximate_neighbours(typed_table, monkeypatch):
    """The settings are those of scanpy; PyNNDescent, which takes long to compile, hands over exact neighbours here."""
    settings = []

    class Exact(pynndescent.PyNNDescentTransformer):
        kind = sparse.csr_matrix

        def fit_transform(self, values):
            settings.append(self.get_params() | {"metric_kwds": None})
            return self.kind(KNeighborsTransformer(n_neighbors=self.n_neighbors - 1).fit_transform(values))

    monkeypatch.setattr(pynndescent, "PyNNDescentTransformer", Exact)
    adata = typed_table((3000, 2000, 2000, 1000, 192), spread=0.2)
    plain = AnnData(adata.layers["nimbus"])
    sc.pp.neighbors(plain, 5, use_rep="X", random_state=3)
    # As PyNNDescent returns it from 0.7 on, which scanpy 1.11 does not take.
    monkeypatch.setattr(Exact, "kind", sparse.csr_array)
    leiden(adata, n_neighbors=5, rng=3)
    assert settings[0] == settings[1] and settings[0]["n_iters"] == 13
    assert abs(adata.obsp[GRAPH] - plain.obsp["connectivities"]).max() == 0


def test_other_results_stay_and_a_second_call_overwrites_its_own(typed_table, caplog):
    adata = typed_table()
    sc.pp.neighbors(adata, 5, use_rep="X")
    adata.obs["leiden"] = "x"
    before = adata.copy()
    leiden(adata)
    leiden(adata, resolution=0.2, key_added="coarse")
    with caplog.at_level("INFO", "nimbus_sd"):
        leiden(adata, resolution=0.1)
    assert "overwrote uns['leiden_nimbus'], obs['leiden_nimbus']" in caplog.text
    assert adata.uns["leiden_nimbus"]["params"]["resolution"] == 0.1 and "coarse" in adata.obs
    assert adata.obs["leiden"].equals(before.obs["leiden"]) and adata.uns["neighbors"] == before.uns["neighbors"]
    for name in ("connectivities", "distances"):
        np.testing.assert_array_equal(adata.obsp[name].toarray(), before.obsp[name].toarray())
    with pytest.raises(ValueError, match=r"obs\['leiden'\], which `tl.leiden` did not make"):
        leiden(adata, key_added="leiden")


def test_cells_without_a_score_get_no_cluster_and_no_neighbours(typed_table):
    adata = typed_table()
    adata.layers["nimbus"][[3, 7], 2] = np.nan
    kept = np.setdiff1d(np.arange(adata.n_obs), [3, 7])
    without = adata[kept].copy()
    with pytest.warns(UserWarning, match="2 of 260 cells are left out") as caught:
        leiden(adata)
    assert caught[0].filename == __file__
    leiden(without)
    assert list(np.flatnonzero(adata.obs["leiden_nimbus"].isna())) == [3, 7]
    assert adata.obs["leiden_nimbus"].iloc[kept].equals(without.obs["leiden_nimbus"])
    graph = adata.obsp[GRAPH].toarray()
    assert not graph[[3, 7]].any() and not graph[:, [3, 7]].any()
    np.testing.assert_array_equal(graph[np.ix_(kept, kept)], without.obsp[GRAPH].toarray())
    assert np.isnan(adata.obsm["leiden_nimbus_neighbors"][[3, 7]]).all()


def test_results_of_a_generator_and_logits_survive_the_disk(typed_table, from_disk):
    adata, again = typed_table(), typed_table()
    for table in (adata, again):
        leiden(table, transform="logit", channels=["CD3", "CD8"], rng=np.random.default_rng(3))
    assert again.obs["leiden_nimbus"].equals(adata.obs["leiden_nimbus"])
    scores = np.clip(adata.layers["nimbus"][:, :2].astype(float), 0.01, 0.99)
    np.testing.assert_allclose(adata.obsm["leiden_nimbus_neighbors"], np.log(scores / (1 - scores)), rtol=1e-5)
    back = from_disk(adata)
    assert back.obs["leiden_nimbus"].equals(adata.obs["leiden_nimbus"])
    assert list(back.uns["leiden_nimbus"]["params"]["channels"]) == ["CD3", "CD8"]
    leiden(back, resolution=0.1)


@pytest.mark.filterwarnings("ignore:.*the same in every cell")
@pytest.mark.parametrize(
    "given, message",
    [
        ({"n_neighbors": 1}, "`n_neighbors` is 1; it must be a whole number, 2 or more"),
        ({"n_neighbors": 260}, "Only 260 cells have all scores, which is too few"),
        *(({"resolution": value}, f"`resolution` is {value!r}; it must be") for value in (0, np.inf, "a")),
        *(({"rng": value}, f"`rng` is {value}; it must be a seed, from 0 to 2") for value in (None, -1, 1.5)),
        ({"transform": "log"}, "`transform` is 'log'; it must be None or 'logit'"),
        ({"transform": "logit", "layer": "counts"}, "for scores in \\[0, 1\\]; layer 'counts' has other values"),
        ({"layer": "constant"}, "All 260 cells have the same values in layer 'constant'"),
    ],
)
def test_wrong_arguments(typed_table, given, message):
    adata = typed_table()
    adata.layers["counts"] = adata.layers["nimbus"] * 100
    adata.layers["constant"] = np.full(adata.shape, 0.5)
    with pytest.raises(ValueError, match=message):
        leiden(adata, **given)
    assert "leiden_nimbus" not in adata.obs


def test_without_igraph_it_says_what_to_install(typed_table, monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(ImportError, match=r"igraph \(GPL\): pip install '\.\[leiden\]' in the clone"):
        leiden(typed_table())


def test_it_says_how_stable_the_resolution_is(typed_table, caplog):
    leiden(adata := typed_table(), resolution=0.2)
    assert adata.uns["leiden_nimbus"]["stability"] == dict.fromkeys(
        ("other_seed", "lower_resolution", "higher_resolution"), 1.0
    )
    assert "steadier" not in caplog.text
    adata.layers["noise"] = np.random.default_rng(0).random(adata.shape).astype(np.float32)
    leiden(adata, layer="noise", resolution=2)
    assert adata.uns["leiden_nimbus"]["stability"]["other_seed"] < 0.8
    assert "a `resolution` below 2 may be steadier" in caplog.text
