"""FlowSOM: nodes, metaclusters, a suggested number, new cells on the map."""

import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from nimbus_sd.tl import flowsom, map_to_som
from nimbus_sd.tl._consensus import consensus_labels, mean_silhouettes, numbers_to_try, separable_types

SMALL = {"xdim": 5, "ydim": 4, "engine": "minisom"}
MODULE = sys.modules[flowsom.__module__]


@pytest.mark.parametrize("engine", ["minisom", "online", pytest.param("batch", marks=pytest.mark.slow)])
def test_metaclusters_are_the_types_and_the_number_is_suggested(typed_table, engine, no_warning):
    adata, again = typed_table(), typed_table()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    flowsom(adata, xdim=5, ydim=4, engine=engine)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    clusters, entry = adata.obs["flowsom_nimbus"], adata.uns["flowsom_nimbus"]
    assert adjusted_rand_score(adata.obs["type"], clusters) == 1
    assert clusters.value_counts(sort=False).to_dict() == {"0": 80, "1": 60, "2": 50, "3": 40, "4": 30}
    assert entry["suggestion"]["suggested"] == 5 == entry["params"]["n_metaclusters"]
    flowsom(again, xdim=5, ydim=4, engine=engine)
    assert again.uns["flowsom_nimbus"]["codes"].tobytes() == entry["codes"].tobytes()
    assert again.obs["flowsom_nimbus_node"].equals(adata.obs["flowsom_nimbus_node"])


def test_nodes_codes_and_counts_fit_together(typed_table):
    adata = typed_table(spread=0.2)
    adata.layers["nimbus"][[0, 9], 2] = adata.layers["nimbus"][:, 4] = np.nan
    with pytest.warns(UserWarning, match="left out") as caught:
        flowsom(adata, **SMALL, n_metaclusters=6, channels=["CD20", "CD3", "CD8", "PanCK"])
    assert [warning.filename for warning in caught] == [__file__] * 2
    for key in ("flowsom_nimbus", "flowsom_nimbus_node"):
        assert list(np.flatnonzero(adata.obs[key].isna())) == [0, 9]
    adata = adata[adata.obs["flowsom_nimbus"].notna()]
    entry = adata.uns["flowsom_nimbus"]
    assert entry["codes"].shape == (20, 3) and entry["codes"].dtype == np.float32
    assert list(entry["channels"]) == ["CD20", "CD3", "CD8"] and "suggestion" not in entry
    distance = cdist(adata.layers["nimbus"][:, [2, 0, 1]], entry["codes"])
    node = adata.obs["flowsom_nimbus_node"].cat.codes.to_numpy()
    np.testing.assert_array_equal(node, distance.argmin(axis=1))
    assert entry["mean_distance"] == pytest.approx(distance.min(axis=1).mean(), rel=1e-5)
    np.testing.assert_array_equal(entry["counts"], np.bincount(node, minlength=20))
    np.testing.assert_array_equal(entry["metaclusters"][node], adata.obs["flowsom_nimbus"].astype(str))
    sizes = adata.obs["flowsom_nimbus"].value_counts()
    assert len(sizes) == 6 and (np.diff(sizes[list("012345")]) <= 0).all()
    # Neighbours on the grid are alike.
    on_grid, between = (cdist(*[x] * 2) for x in (np.stack(np.divmod(np.arange(20), 4), axis=1), entry["codes"]))
    assert between[on_grid < 2].mean() < 0.8 * between[on_grid >= 3].mean()


def test_rare_cells_count_where_there_are_more_cells_than_steps(monkeypatch, typed_table):
    """MiniSom alone would fit to the first cells only; here these are of one type."""
    monkeypatch.setattr(MODULE, "_MOST_STEPS", 1000)
    adata = typed_table(counts=(4000, 0, 0, 0, 1000))
    adata = adata[np.argsort(adata.obs["type"] == "epithelium", kind="stable")].copy()
    flowsom(adata, **SMALL, n_metaclusters=2, channels=["CD3", "PanCK"])
    assert adjusted_rand_score(adata.obs["type"], adata.obs["flowsom_nimbus"]) == 1


def test_new_cells_on_a_map_read_from_disk(typed_table, from_disk):
    adata, same = typed_table(), typed_table()
    flowsom(adata, **SMALL)
    reference = from_disk(adata)
    map_to_som(same, reference, key_added="mapped")
    for end in ("", "_node"):
        assert same.obs[f"mapped{end}"].equals(adata.obs[f"flowsom_nimbus{end}"].rename(f"mapped{end}"))
    assert same.uns["mapped"]["mean_distance"] == pytest.approx(adata.uns["flowsom_nimbus"]["mean_distance"])

    new = typed_table(counts=(5, 40, 0, 10, 0), seed=1)[:, ::-1].copy()
    new.layers["other"] = new.layers.pop("nimbus")
    map_to_som(new, reference, layer="other")
    names = dict(zip(adata.obs["type"], adata.obs["flowsom_nimbus"], strict=True))
    assert list(new.obs["flowsom_nimbus"]) == [names[kind] for kind in new.obs["type"]]
    assert list(new.obs["flowsom_nimbus"].cat.categories) == ["0", "1", "2", "3", "4"]
    assert new.uns["flowsom_nimbus"]["counts"].sum() == 55 and len(new.uns["flowsom_nimbus"]["counts"]) == 20


def test_what_cannot_be_mapped(typed_table):
    adata = typed_table()
    flowsom(adata, **SMALL, n_metaclusters=4)
    unscored = typed_table()
    unscored.layers["nimbus"][:, 0] = np.nan
    for table, error, message in (
        (typed_table()[:, ["CD3", "CD20"]].copy(), KeyError, "no channel 'CD8'"),
        (adata, ValueError, r"`tl\.map_to_som` did not make"),
        (unscored, ValueError, r"no score of any cell in channel\(s\) 'CD3'"),
    ):
        with pytest.raises(error, match=message):
            map_to_som(table, adata)
    with pytest.raises(KeyError, match=r"no map uns\['x'\].*'flowsom_nimbus'"):
        map_to_som(typed_table(), adata, key="x")
    with pytest.raises(TypeError, match="`reference` is 'flowsom_nimbus'"):
        map_to_som(typed_table(), "flowsom_nimbus")


@pytest.mark.filterwarnings("ignore:.*the same in every cell")
@pytest.mark.parametrize(
    "given, message",
    [
        ({"xdim": 0}, "`xdim` is 0; it must be a whole number, 1 or more"),
        ({"xdim": 2, "ydim": 1}, "a grid has at least 3 nodes"),
        ({"xdim": 20, "ydim": 20}, "260 cells have all scores; a grid of 20 x 20 needs 400"),
        ({"n_metaclusters": 0}, "`n_metaclusters` is 0"),
        ({"n_metaclusters": 21}, "`n_metaclusters` is 21, but the grid has 20 nodes only"),
        ({"engine": "som"}, "`engine` is 'som'; it must be one of 'auto', 'online', 'batch', 'minisom'"),
        ({"rng": -1}, "`rng` is -1"),
        ({"layer": "constant"}, "Only 1 nodes have cells, too few to suggest a number"),
        ({"layer": "constant", "n_metaclusters": 2}, "Only 1 nodes have cells, too few for so many `n_metaclusters`"),
    ],
)
def test_wrong_arguments(typed_table, given, message):
    adata = typed_table()
    adata.layers["constant"] = np.full(adata.shape, 0.5)
    with pytest.raises(ValueError, match=message):
        flowsom(adata, **SMALL | given)
    assert not adata.uns


def test_the_engine_by_the_number_of_cells_and_without_the_package(typed_table, monkeypatch):
    assert [MODULE._choose_engine("auto", n) for n in (99_999, 100_000)] == ["online", "batch"]
    monkeypatch.setitem(sys.modules, "flowsom", None)
    for engine in ("auto", "online", "batch"):
        with pytest.raises(ImportError, match=r"'\.\[flowsom\]' .*engine='minisom' does without"):
            flowsom(typed_table(), engine=engine)
    flowsom(typed_table(), **SMALL)


def test_consensus_finds_groups_and_gives_exact_numbers():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [20, 10, 5])
    codes = (np.eye(3)[truth] + rng.normal(0, 0.1, (35, 3))).astype(np.float32)
    numbers = numbers_to_try(35)
    assert numbers.tolist() == list(range(2, 35)) and numbers_to_try(200).max() == 40
    labels = consensus_labels(codes, numbers, np.random.default_rng(1))
    assert [len(set(row)) for row in labels] == numbers.tolist()
    assert adjusted_rand_score(truth, labels[1]) == 1 and mean_silhouettes(codes, labels).argmax() == 1
    same = np.zeros((6, 2), np.float32)
    assert [len(set(row)) for row in consensus_labels(same, np.array([1, 3, 6]), rng)] == [1, 3, 6]


def test_separable_types_differ_in_a_marker_and_have_cells():
    means = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.1], [0.1, 0.9], [0.5, 0.1], [0.9, 0.9]], np.float32)
    # The second is the first, the fifth lies between two others, and the last has too few cells.
    assert separable_types(means, np.array([500, 400, 500, 300, 50, 5])) == 3
    assert separable_types(means, np.array([500, 400, 500, 300, 50, 50])) == 4
    assert separable_types(means[:1], np.array([3])) == 1


def test_values_of_another_scale_get_the_number_with_the_best_silhouette(typed_table):
    adata = typed_table()
    adata.layers["counts"] = 100 * adata.layers["nimbus"]
    flowsom(adata, **SMALL, layer="counts")
    suggestion = adata.uns["flowsom_nimbus"]["suggestion"]
    assert suggestion["suggested"] == suggestion["n_metaclusters"][suggestion["silhouette"].argmax()]
