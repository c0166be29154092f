"""Information of confounders: known values, a null that holds, an interval that is not fooled by ties."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from sklearn.feature_selection import mutual_info_classif

from nimbus_sd.metrics import confounder_information
from nimbus_sd.metrics._pairs import Pairs, _halves, _interval, estimate

NAMES = ["cell_size", "heterogeneity", "rarity", "sparsity", "density", "spill_over"]
FAST = {"n_permutations": 0, "n_boot": 0}


def table(n=1200, m=2, regions=6, seed=0):
    """Small cells are called wrong more often by "nimbus"; "silver" errs at random, and half of it is undetermined."""
    rng = np.random.default_rng(seed)
    gold = (rng.random((n, m)) < 0.3).astype(np.float32)
    area = rng.uniform(10, 100, n)
    by_size = rng.random((n, m)) < np.where(area < 40, 0.4, 0.05)[:, None]
    at_random = rng.random((n, m)) < 0.1
    return AnnData(
        obs=pd.DataFrame({
            "region": pd.Categorical([f"r{i}" for i in rng.integers(0, regions, n)]), "area": area,
        }, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=list("XYZ")[:m]),
        layers={
            "gold": gold,
            "nimbus": np.where(by_size, 1 - gold, gold) * 0.8 + 0.1,
            "silver": np.where(rng.random((n, m)) < 0.5, 0.5, np.where(at_random, 1 - gold, gold)),
            "integrated_expression": rng.lognormal(2, 1, (n, m)),
        },
        obsm={"spatial": rng.uniform(0, 1000, (n, 2))},
    )  # fmt: skip


def test_estimates_are_sklearns_of_all_markers_together():
    adata = table()
    found = confounder_information(adata, **FAST)
    assert found.index.names == ["layer", "confounder"]
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
    share = np.array([0.4, 0.05])
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    total = np.average(share, weights=[1, 2])
    truth = -(total * np.log(total) + (1 - total) * np.log(1 - total)) - np.average(entropy, weights=[1, 2])
    assert row["information"] == pytest.approx(truth, abs=0.03)


def test_null_and_interval_tell_a_confounder_from_none():
    found = confounder_information(table(seed=1), ["nimbus", "silver"], n_permutations=19, n_boot=9, max_cells=800)
    size = found.xs("cell_size", level="confounder")
    assert size["p_value"].loc["nimbus"] == pytest.approx(1 / 20) and size["p_value"].loc["silver"] > 0.05
    assert size["information"].loc["nimbus"] > size["null_95"].loc["nimbus"]
    assert size["information_low"].loc["nimbus"] > 0
    known = found.dropna(subset="information")
    assert (known["information_low"] <= known["information"]).all()
    assert (known["information"] <= known["information_high"]).all()
    assert (known["pairs"] == 800).all()
    # Undetermined silver labels call nobody.
    assert found.loc[("silver", "cell_size"), "pairs_judged"] < 1400


def test_same_call_same_bytes_and_the_draw_is_shared():
    options = {"n_permutations": 2, "n_boot": 2, "max_cells": 300}
    adata = table()
    adata.layers["same"] = adata.layers["nimbus"]
    one, again = (confounder_information(adata, ["nimbus", "same"], rng=3, **options) for _ in range(2))
    pd.testing.assert_frame_equal(one, again, check_exact=True)
    other = confounder_information(adata, ["nimbus", "same"], rng=4, **options)
    assert not one["information"].equals(other["information"])
    assert one.loc["nimbus"]["wrong"].equals(one.loc["same"]["wrong"])


def test_thresholds_of_each_layer():
    adata = table()
    adata.layers["integrated_expression"] = adata.layers["gold"] * 50 + np.random.default_rng(0).random((1200, 2))
    adata.layers["integrated_expression"][:30] = 0.1
    rules = {"nimbus": 0.95, "integrated_expression": {"X": 20, "Y": 30}}
    found = confounder_information(adata, list(rules), threshold=rules, **FAST)["wrong"]
    gold = adata.layers["gold"] > 0.5
    assert found["nimbus", "cell_size"] == gold.sum()
    assert found["integrated_expression", "cell_size"] == gold[:30].sum()


def test_values_change_owners_as_wholes():
    """Few regions that differ in errors and, by chance, in a confounder: cells alone would seem to prove it."""
    rng = np.random.default_rng(5)
    group, everyone = np.repeat(np.arange(8), 200), np.arange(1600)
    wrong = rng.random(1600) < np.linspace(0.02, 0.4, 8)[rng.permutation(8)][group]
    of_region = Pairs(rng.random(8)[group], wrong, group, everyone, group)
    assert estimate(of_region, 29, 0, rng)["p_value"] > 0.05
    assert estimate(of_region._replace(owner=everyone), 29, 0, rng)["p_value"] < 0.05


def test_halves_draw_no_pair_twice():
    unit = np.repeat(np.arange(7), 5)
    pairs = Pairs(np.arange(35.0), np.ones(35, bool), unit, unit, unit)
    for half in _halves(pairs, unit, 20, np.random.default_rng(0)):
        assert len(set(half.values)) == len(half.values) == 15 and len(set(half.region)) == 3


@pytest.mark.parametrize("units", [20, 21])
def test_the_spread_of_halves_is_that_of_the_whole(units):
    """For a mean, whose error is known."""
    rng = np.random.default_rng(1)
    values = rng.normal(5, 1, units)
    pairs = Pairs(values, np.ones(units, bool), *(np.arange(units) for _ in range(3)))
    halves = np.array([half.values.mean() for half in _halves(pairs, np.arange(units), 4000, rng)])
    low, high = _interval(values.mean(), halves, units)
    expected = stats.t.interval(0.95, units - 1, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=0.01)


def test_reasons_instead_of_numbers():
    adata = table(n=60)
    adata.layers["perfect"] = adata.layers["gold"]
    adata.layers["inverse"] = 1 - adata.layers["gold"]
    adata.layers["nothing"] = np.full(adata.shape, np.nan)
    adata.layers["almost"] = adata.layers["gold"].copy()
    adata.layers["almost"][:1] = 1 - adata.layers["gold"][:1]
    adata.obs["area"] = 7.0
    found = confounder_information(adata, ["perfect", "inverse", "nothing", "almost"], n_permutations=3, n_boot=3)
    assert found["information"].isna().all() and found["p_value"].isna().all()
    reason = found["reason"]
    assert reason["perfect", "density"] == "no calls are wrong; at least 4 are needed"
    assert reason["inverse", "density"] == "no calls are right; at least 4 are needed"
    assert reason["almost", "density"] == "2 calls are wrong; at least 4 are needed"
    assert set(reason["nothing"]) == {"no cell has both a label and a value"}
    assert reason["perfect", "cell_size"] == "the same for all cells"
    assert "cell_features" in reason["perfect", "spill_over"]


def test_fewer_than_five_regions_resample_cells():
    found = confounder_information(table(regions=3), n_permutations=0, n_boot=3, max_cells=200)
    assert set(found["resampled"]) == {"cells"} and found["n_regions"].iloc[0] == 3
    assert found["information_high"].iloc[0] > 0


@pytest.mark.parametrize(
    "options, error",
    [
        ({"max_cells": 0}, ValueError),
        ({"n_boot": -1}, ValueError),
        ({"pred": "scores"}, KeyError),
        ({"threshold": "median"}, ValueError),
    ],
)
def test_wrong_arguments(options, error):
    with pytest.raises(error):
        confounder_information(table(n=30), **options)
