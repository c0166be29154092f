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
    if (kind, rate) == ("type", 0.3):
        # A type of about a quarter is wrong throughout, one in part, the others are right.
        shares = pd.Series(wrong[known[:, 0], 0]).groupby(adata.obs["cell_type"].to_numpy()[known[:, 0]]).mean()
        assert shares.max() == 1 and (shares == 0).sum() == 2


def test_rows_of_other_settings_have_another_name(monkeypatch):
    before = {rule: noise_robust.name_of(rule) for rule in (None, "laptop", "per class, ramp")}
    assert len(set(before.values())) == 3 and before == {rule: noise_robust.name_of(rule) for rule in before}
    rule = replace(noise_robust.RULES["laptop"], rate=0.5)
    monkeypatch.setitem(noise_robust.RULES, "laptop", rule)
    assert [noise_robust.name_of(key) == name for key, name in before.items()] == [True, False, True]
    monkeypatch.setattr(noise_robust, "FIRST", 601)
    assert not {noise_robust.name_of(key) for key in before} & set(before.values())
