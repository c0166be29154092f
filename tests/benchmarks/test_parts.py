"""Parts of three benchmarks: `tl.adapt`, noise-robust training, checks without labels; figures come from runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from benchmark_module import module

adapt, label_free, noise_robust = module("adapt"), module("label_free"), module("noise_robust")


def test_the_user_labels_unsure_and_bright_cells_in_turn():
    scores, means = np.array([0.01, 0.5, 0.99, 0.6, 0.02, 0.98]), np.array([1, 2, 9, 3, 1, 8])
    order = adapt.mixed(scores, means, np.random.default_rng(0))
    assert sorted(order) == list(range(6)) and order[0] == 1 and means[order[1]] >= 2.5


def test_cells_that_judge_are_not_labelled():
    cells = pd.DataFrame({"score": np.linspace(0, 1, 20), "mean": np.arange(20.0), "state": [0, 1] * 10})
    for _, own, others in adapt.draw(cells, np.random.default_rng(0)):
        assert len(own) == len(others) == 10 and not set(own.index) & set(others.index)


def test_a_shift_moves_labels_whole():
    labels = np.zeros((8, 8), int)
    labels[2:4, 2:5] = 5
    np.testing.assert_array_equal(label_free.shifted(labels, 2)[4:6, 4:7], 5)
    assert (label_free.shifted(labels, 2) > 0).sum() == 6


def test_checks_tell_agreement_exclusion_and_change(monkeypatch):
    base = pd.DataFrame(False, index=range(10), columns=label_free.CHANNELS)
    base.loc[:4, ["CD19", "CD20", "CD79a", "PAX5", "Kappa"]] = True
    base.loc[5:, ["CD3", "CD7", "CD4", "Lambda"]] = True
    base.loc[4:5, "CD8"] = True

    def calls(model, image, labels, **change):
        other = base.copy()
        if "factor" in change:
            other.loc[0, "CD20"] = False
        return other

    monkeypatch.setattr(label_free, "calls", calls)
    found = label_free.checks("any", np.zeros((1, 1, 1)), np.zeros((1, 1), int))
    assert found["together", "CD20, PAX5: phi"] == pytest.approx(1)
    assert found["apart", "CD3, CD20: both, of the rarer"] == 0
    assert found["apart", "CD4, CD8: both, of the rarer"] == 0.5
    changed = found["calls changed, of positives"]
    assert changed["mask grown by 1 px"] == 0
    assert changed["factor half"] == pytest.approx(1 / base.to_numpy().sum())


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
