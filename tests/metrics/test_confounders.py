"""Confounders, against loops over cells; their information: known values, a null that holds, honest intervals."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats
from sklearn.feature_selection import mutual_info_classif

from nimbus_sd.metrics import confounder_information, confounders
from nimbus_sd.metrics.confounders import _estimate, _halves, _information, _interval

NAMES = ["cell_size", "heterogeneity", "rarity", "sparsity", "density", "spill_over"]
FAST = {"n_permutations": 0, "n_boot": 0, "progress": False}


def table(n=60, m=3, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.choice([0, 0.25, 0.5, 0.75, 1, np.nan], (n, m))
    obs = {"region": pd.Categorical(rng.choice(["a", "b"], n)), "area": rng.uniform(10, 90, n)}
    obs["perimeter"] = rng.integers(20, 40, n).astype(float)
    adata = AnnData(
        obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=list("XYZUVW")[:m]),
        layers={"gold": gold, "integrated_expression": rng.lognormal(1, 1, (n, m)).astype(np.float32)},
        # On a grid, where cells share a place and distances equal the radius.
        obsm={"spatial": rng.integers(0, 30, (n, 2)).astype(float)},
        uns={"nimbus": {"pixel_size": {"a": 0.5, "b": 0.25}, "wrote": []}},
    )
    edges = np.triu(rng.integers(0, 9, (n, n)) * (rng.random((n, n)) < 0.05), 1)
    adata.obsp["boundary"] = sparse.csr_matrix((edges + edges.T).astype(np.float32))
    return adata


def naive(adata, radius, likely=True):
    gold, place = adata.layers["gold"], adata.obsm["spatial"]
    positive = (gold == 1) | (likely & (gold == 0.75))
    judged = positive | (gold == 0) | (likely & (gold == 0.25))
    region = adata.obs["region"].to_numpy()
    out = {name: np.full(adata.shape, np.nan) for name in NAMES}
    for i in range(adata.n_obs):
        same = region == region[i]
        near = same & (np.hypot(*(place - place[i]).T) <= radius[region[i]]) & (np.arange(adata.n_obs) != i)
        out["cell_size"][i], out["density"][i] = adata.obs["area"].iloc[i], near.sum()
        for j in range(adata.n_vars):
            values = adata.layers["integrated_expression"][same, j].astype(float)
            out["heterogeneity"][i, j] = np.std(values) / np.mean(values)
            if judged[same, j].any():
                out["rarity"][i, j] = positive[same & judged[:, j], j].mean()
                out["sparsity"][i, j] = (near & positive[:, j]).sum()
                shared = adata.obsp["boundary"].toarray()[i] @ positive[:, j]
                out["spill_over"][i, j] = shared / adata.obs["perimeter"].iloc[i]
    return out


@pytest.mark.parametrize(("likely", "pairs"), [(True, 1), (True, 7), (False, 2**22)])
def test_all_of_them(likely, pairs, monkeypatch):
    monkeypatch.setitem(confounders.__globals__, "_PAIRS", pairs)
    adata = table()
    found = confounders(adata, radius=5, likely=likely)
    expected = naive(adata, {"a": 5, "b": 5}, likely)
    assert list(found) == NAMES
    for name, values in found.items():
        assert values.index.equals(adata.obs_names) and values.columns.equals(adata.var_names)
        assert (values.dtypes == np.float32).all()
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, err_msg=name)
    # What all channels share takes the memory of one column.
    assert found["cell_size"].to_numpy().strides[1] == found["density"].to_numpy().strides[1] == 0


def test_radius_in_um_follows_each_regions_pixel_size():
    adata = table(seed=1)
    expected = naive(adata, {"a": 4, "b": 8})
    np.testing.assert_array_equal(confounders(adata, radius=2, unit="um")["sparsity"], expected["sparsity"])
    adata.uns["nimbus"] = {"pixel_size": {"a": 0.5}}
    with pytest.raises(KeyError, match=r"no pixel size of \['b'\].*unit='px'"):
        confounders(adata, unit="um")
    adata.uns["cell_features"] = {"pixel_size": {"b": 0.25}}
    np.testing.assert_array_equal(confounders(adata, radius=2, unit="um")["density"], expected["density"])


@pytest.mark.filterwarnings("ignore:.*divide:RuntimeWarning")
def test_what_is_not_known_is_nan():
    adata = table(seed=2)
    of_a = (adata.obs["region"] == "a").to_numpy()
    adata.layers["gold"][of_a, 0] = adata.layers["integrated_expression"][of_a, 1] = np.nan
    adata.layers["integrated_expression"][~of_a, 1] = 0
    adata.obsm["spatial"][3] = np.nan
    adata.obs.loc["c4", "perimeter"], adata.obs.loc["c5", "region"] = 0, np.nan
    # All cells that c4 touches are positive for Z.
    adata.layers["gold"][:, 2] = 1
    found = confounders(adata, radius=20)
    here = of_a & (np.arange(60) != 5)
    for name in ("rarity", "sparsity", "spill_over"):
        assert found[name].loc[here, "X"].isna().all() and found[name].loc[~of_a, "X"].notna().sum() > 20
    assert found["heterogeneity"]["Y"].isna().all() and found["spill_over"].loc["c4"].isna().all()
    assert found["density"].loc["c3"].isna().all() and found["sparsity"].loc["c3"].isna().all()
    assert all(found[name].loc["c5"].isna().all() for name in NAMES[1:])
    # A cell without a place is nobody's neighbour.
    expected = naive(adata[[i for i in range(60) if i not in (3, 5)]], {"a": 20, "b": 20})["density"]
    np.testing.assert_array_equal(found["density"].drop(["c3", "c5"]), expected)
    del adata.obsp["boundary"]
    assert confounders(adata, radius=20)["spill_over"].isna().all(axis=None)


def test_bad_input():
    for options, error, message in (
        *(({"radius": radius}, ValueError, "above 0") for radius in (0, np.nan)),
        ({"unit": "mm"}, ValueError, "'px' or 'um'"),
        ({"region_key": "fov"}, KeyError, "no column 'fov'"),
    ):
        with pytest.raises(error, match=message):
            confounders(table(), **options)
    for where, key in (("obsm", "spatial"), ("layers", "integrated_expression"), ("obs", "area")):
        adata = table()
        del getattr(adata, where)[key]
        with pytest.raises(KeyError, match=key):
            confounders(adata)
    for name, value in {"max_cells": 0, "n_boot": -1, "threshold": "median"}.items():
        with pytest.raises(ValueError, match=name):
            confounder_information(errors(n=30), **{name: value})


def errors(n=1200, regions=6, seed=0):
    """Small cells are called wrong more often by "nimbus"; "silver" errs at random, and half of it is undetermined."""
    rng = np.random.default_rng(seed)
    adata = table(n, 2)
    del adata.obsp["boundary"]
    adata.obs["region"] = pd.Categorical([f"r{i}" for i in rng.integers(0, regions, n)])
    adata.obs["area"] = area = rng.uniform(10, 100, n)
    gold = (rng.random((n, 2)) < 0.3).astype(np.float32)
    by_size = rng.random((n, 2)) < np.where(area < 40, 0.4, 0.05)[:, None]
    at_random = rng.random((n, 2)) < 0.1
    adata.layers["gold"] = gold
    adata.layers["nimbus"] = np.where(by_size, 1 - gold, gold) * 0.8 + 0.1
    adata.layers["silver"] = np.where(rng.random((n, 2)) < 0.5, 0.5, np.where(at_random, 1 - gold, gold))
    return adata


def test_estimates_are_sklearns_of_all_markers_together():
    adata = errors()
    found = confounder_information(adata, **FAST)
    assert list(found.index) == [("nimbus", name) for name in NAMES]
    wrong = (adata.layers["nimbus"] >= 0.5) != (adata.layers["gold"] > 0.5)
    size = np.repeat(adata.obs["area"].to_numpy(), 2)
    # A cell's markers have one size, and sklearn breaks such ties at random.
    expected = [mutual_info_classif(size[:, None], wrong.ravel(), random_state=seed)[0] for seed in range(5)]
    row = found.loc[("nimbus", "cell_size")]
    assert row["information"] == pytest.approx(np.mean(expected), abs=0.01)
    assert row["pairs"] == row["pairs_judged"] == 2400 and row["wrong"] == wrong.sum() and row["reason"] == ""
    assert row["n_regions"] == 6 and row["resampled"] == "regions"
    # What it is: 1/3 of the cells with 40 % of errors, the others with 5 %.
    entropy = [stats.entropy([share, 1 - share]) for share in (0.4, 0.05, (0.4 + 2 * 0.05) / 3)]
    assert row["information"] == pytest.approx(entropy[2] - (entropy[0] + 2 * entropy[1]) / 3, abs=0.03)


def test_null_and_interval_tell_a_confounder_from_none():
    found = confounder_information(errors(seed=1), ["nimbus", "silver"], n_permutations=19, n_boot=9, max_cells=800)
    size = found.xs("cell_size", level="confounder")
    assert size["p_value"].loc["nimbus"] == pytest.approx(1 / 20) and size["p_value"].loc["silver"] > 0.05
    assert size["information"].loc["nimbus"] > size["null_95"].loc["nimbus"]
    assert size["information_low"].loc["nimbus"] > 0
    known = found.dropna(subset="information")
    assert known["information"].between(known["information_low"], known["information_high"]).all()
    assert (known["pairs"] == 800).all()
    # Undetermined silver labels call nobody.
    assert found.loc[("silver", "cell_size"), "pairs_judged"] < 1400


def test_same_call_same_bytes_and_the_draw_is_shared():
    options = {"n_permutations": 2, "n_boot": 2, "max_cells": 100}
    adata = errors(n=300, regions=3)
    adata.layers["same"] = adata.layers["nimbus"]
    found, again, other = (confounder_information(adata, ["nimbus", "same"], rng=seed, **options) for seed in (3, 3, 4))
    # Regions are fewer than five.
    assert set(found["resampled"]) == {"cells"} and found["n_regions"].iloc[0] == 3
    pd.testing.assert_frame_equal(found, again, check_exact=True)
    assert not found["information"].equals(other["information"])
    assert found.loc["nimbus"]["wrong"].equals(found.loc["same"]["wrong"])


def pairs_of(value, wrong, unit) -> pd.DataFrame:
    return pd.DataFrame({"value": value, "wrong": wrong, "region": unit, "cell": unit, "owner": unit})


def test_values_change_owners_as_wholes():
    """Few regions that differ in errors and, by chance, in a confounder: cells alone would seem to prove it."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(8), 200)
    wrong = rng.random(1600) < np.linspace(0.02, 0.4, 8)[rng.permutation(8)][group]
    of_region = pairs_of(rng.random(8)[group], wrong, group)
    assert _estimate(of_region, 29, 0, rng)["p_value"] > 0.05
    assert _estimate(of_region.assign(owner=np.arange(1600)), 29, 0, rng)["p_value"] < 0.05


def test_halves_draw_no_pair_twice_and_vary_as_the_whole():
    rng = np.random.default_rng(1)
    unit = np.repeat(np.arange(7), 5)
    for half in _halves(pairs_of(np.arange(35.0), True, unit), unit, 20, rng):
        assert half["value"].nunique() == len(half) == 15 and half["region"].nunique() == 3
    # With too few wrong pairs a half has no estimate.
    assert np.isnan(_information(pairs_of(np.arange(35.0), np.arange(35) < 3, unit), 0))
    # The error of a mean is known.
    for units in (20, 21):
        values, unit = rng.normal(5, 1, units), np.arange(units)
        halves = np.array([half["value"].mean() for half in _halves(pairs_of(values, True, unit), unit, 4000, rng)])
        expected = stats.t.interval(0.95, units - 1, values.mean(), stats.sem(values))
        assert _interval(values.mean(), halves, units) == pytest.approx(expected, rel=0.01)


def test_reasons_instead_of_numbers():
    adata = errors(n=60)
    gold = adata.layers["gold"]
    layers = {"perfect": gold, "inverse": 1 - gold, "nothing": np.full(adata.shape, np.nan), "almost": gold.copy()}
    layers["almost"][:1] = 1 - gold[:1]
    adata.layers.update(layers)
    adata.obs["area"] = 7.0
    found = confounder_information(adata, list(layers), n_permutations=3, n_boot=3)
    assert found["information"].isna().all() and found["p_value"].isna().all()
    reason = found["reason"]
    for layer, words in (
        ("perfect", "no calls are wrong"),
        ("inverse", "no calls are right"),
        ("almost", "2 calls are"),
    ):
        assert words in reason[layer, "density"] and reason[layer, "cell_size"] == "the same for all cells"
    assert set(reason["nothing"]) == {"no cell has both a label and a value"}
    assert "cell_features" in reason["perfect", "spill_over"]
    adata.obsp["boundary"] = sparse.csr_matrix((60, 60), dtype=np.float32)
    adata.obs["perimeter"] = 0.0
    found = confounder_information(adata, "perfect", **FAST)
    assert found.loc[("perfect", "spill_over"), "reason"] == "not known for any of the cells"


def test_a_layer_that_was_fitted_on_the_truth_is_said():
    adata = errors(n=200)
    adata.obs["fitted"] = np.arange(adata.n_obs) < 50
    adata.uns["nimbus"] = {"fitted_cells": "fitted"}
    with pytest.warns(UserWarning, match=r"'nimbus' was fitted on the cells of obs\['fitted'\]") as caught:
        confounder_information(adata, **FAST)
    assert [warning.filename for warning in caught] == [__file__]
