"""Checks without labels: changes of the mask, and what is measured."""

import numpy as np
import pandas as pd
import pytest
from benchmark_module import module

label_free = module("label_free")


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
