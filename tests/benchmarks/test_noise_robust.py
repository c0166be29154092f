"""The errors that the benchmark of noise-robust training makes are those that it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from benchmark_module import module

noise_robust = module("noise_robust")


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"cell_type": rng.choice(list("abcd"), 800), "region": rng.choice(["r1", "r2", "r3"], 800)})
    truth = rng.choice([0, 1, 0.5], (800, 3), p=[0.6, 0.3, 0.1]).astype(np.float32)
    obs.index = obs.index.astype(str)
    return AnnData(np.zeros((800, 3), np.float32), obs=obs), truth


@pytest.mark.parametrize("kind", ["random", "type"])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_the_share_of_wrong_labels_is_met_in_every_marker(cells, kind, rate):
    adata, truth = cells
    wrong = noise_robust.wrong_labels(adata, truth, rate, kind, np.random.default_rng(1))
    known = truth != 0.5
    assert not wrong[~known].any()
    np.testing.assert_allclose(wrong.sum(axis=0), rate * known.sum(axis=0), atol=0.5)


def test_errors_by_type_are_blocks_of_types_and_regions(cells):
    adata, truth = cells
    wrong = noise_robust.wrong_labels(adata, truth, 0.3, "type", np.random.default_rng(1))
    for marker in range(3):
        known = truth[:, marker] != 0.5
        shares = pd.Series(wrong[known, marker]).groupby(adata.obs["cell_type"].to_numpy()[known]).mean()
        # A type of about a quarter is wrong throughout, one in part, the others are right.
        assert sorted(shares.round(6))[-1] == 1 and (shares == 0).sum() == 2
        torn = shares.index[(shares > 0) & (shares < 1)]
        here = known & adata.obs["cell_type"].isin(torn).to_numpy()
        by_region = pd.Series(wrong[here, marker]).groupby(adata.obs["region"].to_numpy()[here]).mean()
        assert ((by_region > 0) & (by_region < 1)).sum() <= 1


def test_rows_of_other_settings_have_another_name(monkeypatch):
    before = {rule: noise_robust.name_of(rule) for rule in (None, "laptop", "per class, ramp")}
    assert len(set(before.values())) == 3 and before == {rule: noise_robust.name_of(rule) for rule in before}
    rule = replace(noise_robust.RULES["laptop"], rate=0.5)
    monkeypatch.setitem(noise_robust.RULES, "laptop", rule)
    assert [noise_robust.name_of(one) == name for one, name in before.items()] == [True, False, True]
    monkeypatch.setattr(noise_robust, "FIRST", 601)
    assert not {noise_robust.name_of(one) for one in before} & set(before.values())
