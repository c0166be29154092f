"""The parts of the comparison of clusterings; figures come from running it."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from benchmark_module import module

import nimbus_sd as ns

cell_types = module("cell_types")


def test_clusters_are_named_by_more_than_half_of_their_cells():
    types = pd.Series([*"aaabbbrr", "a"], dtype="category")
    clusters = pd.Series([*"0001112", "2", None], dtype="category")
    clusters[6] = "1"
    named = cell_types.named(types, clusters)
    assert named[:7].to_list() == list("aaabbbb") and named[7] == "r" and pd.isna(named[8])
    found = cell_types.figures(types, clusters, named, ["r"])
    assert found["clusters"] == 3 and found["rare cells"] == 2
    assert found["recall of rare"] == 0.5 and found["assigned"] == pytest.approx(8 / 9)
    halves = cell_types.named(pd.Series(list("aabb")), pd.Series(list("0000")))
    assert halves.isna().all()
    assert np.isnan(cell_types.figures(types, clusters, named, [])["recall of rare"])


@pytest.fixture(scope="module")
def tiny():
    return cell_types.cohort(0, 2, 96)


def test_scores_are_those_of_one_call_and_are_kept(tiny, tmp_path, monkeypatch):
    import spatialdata

    few = spatialdata.SpatialData(
        images={name: image.isel(c=[0, 1]) for name, image in tiny.images.items()},
        labels=dict(tiny.labels),
        tables={"table": tiny.tables["table"][:, :2].copy()},
    )
    adata = cell_types.scored(few, "compact", tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2 and not list(tmp_path.glob("*.part"))
    expected = ns.predict(few, table_key="all", progress=False)
    assert list(expected.obs_names) == list(adata.obs_names)
    for layer in ("nimbus", "integrated_expression"):
        np.testing.assert_allclose(adata.layers[layer], expected.layers[layer], rtol=1e-5, atol=1e-5)

    monkeypatch.setattr(cell_types.ns, "predict", lambda *_, **__: pytest.fail("scored again"))
    again = cell_types.scored(few, "compact", tmp_path)
    np.testing.assert_array_equal(again.layers["nimbus"], adata.layers["nimbus"])
    # Other pixels are not taken for these.
    few.images["fov1"] = few.images["fov1"] + 1
    with pytest.raises(pytest.fail.Exception, match="scored again"):
        cell_types.scored(few, "compact", tmp_path)


def test_every_layer_is_judged_by_every_algorithm(tiny):
    table = tiny.tables["table"]
    rng = np.random.default_rng(0)
    copies = rng.integers(table.n_obs, size=300)
    adata = AnnData(
        obs=table.obs.iloc[copies][["cell_type"]].set_axis(np.arange(300).astype(str)),
        var=pd.DataFrame(index=table.var_names),
        layers={"nimbus": table.layers["gold"][copies], "integrated_expression": np.asarray(table.X)[copies]},
    )
    adata.layers["nimbus"] += rng.uniform(-0.05, 0.05, adata.shape).astype(np.float32)
    np.clip(adata.layers["nimbus"], 0, 1, out=adata.layers["nimbus"])
    given = {"channels": cell_types.MARKERS, "rare": cell_types.RARE, "seed": 3}
    found = pd.DataFrame(cell_types.compare(adata, **given, resolutions=[1], attempts=True)).assign(data="x")
    assert len(found) == 6 * 2 + 2 and set(found["seed"]) == {3}
    assert found["ARI"].between(-0.5, 1).all() and found["assigned"].between(0, 1).all()
    np.testing.assert_allclose(adata.layers["arcsinh_z"].mean(axis=0), 0, atol=1e-4)
    index = found.pivot(index="algorithm", columns="layer", values="ARI").loc["flowsom"]
    margin = index["nimbus"] - index[["integrated_expression", "arcsinh_z"]].max()
    assert cell_types.margins(found).xs("flowsom", level="algorithm")["nimbus"].item() == pytest.approx(margin)
    assert set(cell_types.margins(found).columns) == {"nimbus", "scores_logit", "scores_called", "scores_stretched"}
