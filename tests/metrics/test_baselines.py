"""Scores against thresholds on intensities."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import f1_score

from nimbus_sd.metrics import compare_baselines, find_threshold

RULES = ["otsu", "mixture", "quantile", "oracle"]


def tissue(seed: int = 0, regions: int = 6, cells: int = 80) -> AnnData:
    """Scores that separate the classes well, intensities that do less well; the third marker has no positives."""
    rng = np.random.default_rng(seed)
    n = regions * cells
    gold = (rng.random((n, 3)) < [0.4, 0.15, 0]).astype(np.float32)
    gold[rng.random((n, 3)) < 0.05] = 0.5
    gold[:, 2] = np.minimum(gold[:, 2], 0)
    intensity = np.exp(rng.normal(1.6 * (gold == 1), 0.6)) * [1, 40, 3000]
    obs = pd.DataFrame({"region": np.arange(n) // cells}, index=np.arange(n).astype(str)).astype(str)
    obs["dataset"] = np.where(np.arange(n) < n / 2, "a", "b")
    layers = {
        "nimbus": np.float32(1 / (1 + np.exp(-rng.normal(5 * (gold - 0.5), 1)))),
        "gold": gold,
        "integrated_expression": np.float32(intensity),
        "median_expression": np.float32(intensity * rng.normal(1, 0.3, (n, 3))),
    }
    return AnnData(np.zeros((n, 3), np.float32), obs=obs, var=pd.DataFrame(index=["CD3", "CD8", "CD20"]), layers=layers)


def by_hand(adata: AnnData, values: np.ndarray, rule: str, everyone: np.ndarray | None = None) -> dict[str, float]:
    """Figures over the markers with positive cells; a rule sees the values of everyone."""
    ours, theirs = [], []
    for i in (0, 1):
        gold, score, value = adata.layers["gold"][:, i], adata.layers["nimbus"][:, i], values[:, i]
        keep = np.isfinite(score) & np.isfinite(value) & (gold != 0.5)
        y = gold[keep] == 1
        seen = value if everyone is None else everyone[:, i]
        cut = find_threshold(value[keep], rule, y) if rule == "oracle" else find_threshold(seen, rule)
        ours.append(f1_score(y, score[keep] >= 0.5))
        theirs.append(f1_score(y, value[keep] >= cut))
    f1, f1_scores = np.mean(theirs), np.mean(ours)
    better = np.sum(np.array(ours) > theirs)
    return {"f1": f1, "f1_scores": f1_scores, "difference": f1_scores - f1, "markers_better": better, "markers": 2}


def test_counted_by_hand():
    adata = tissue()
    adata.layers["median_expression"][::3, 0] = np.nan
    adata.layers["nimbus"][::7, 1] = np.nan
    found = compare_baselines(adata, n_boot=0)
    names = ["integrated_expression", "median_expression", "arcsinh_expression"]
    assert list(found.index) == [(name, rule) for name in names for rule in RULES]
    for name, rule in found.index[:8]:
        expected = by_hand(adata, adata.layers[name], rule)
        assert found.loc[(name, rule), list(expected)].to_dict() == pytest.approx(expected)
    # Only cells that both have count for either.
    judged = (adata.layers["gold"] != 0.5) & np.isfinite(adata.layers["nimbus"])
    assert (found.loc["integrated_expression", "cells"] == judged.sum()).all()
    assert (found.loc["median_expression", "cells"] < judged.sum()).all()


def test_arcsinh_has_the_median_above_0_as_cofactor():
    adata = tissue()
    expression = adata.layers["integrated_expression"]
    expression[::4] = 0
    expression[1, 0] = np.nan
    before = expression.copy()
    found = compare_baselines(adata, n_boot=0)["f1"]["arcsinh_expression"]
    scaled = np.arcsinh(expression / np.nanmedian(np.where(expression > 0, expression, np.nan), axis=0))
    assert found.to_dict() == pytest.approx({rule: by_hand(adata, scaled, rule)["f1"] for rule in RULES})
    assert "arcsinh_expression" not in adata.layers
    np.testing.assert_array_equal(expression, before)


def test_groups_are_averaged_after_markers():
    adata = tissue()[np.r_[0:200, 240:480]].copy()
    found = compare_baselines(adata, by="dataset", n_boot=0, baselines=["median_expression"])
    everyone = adata.layers["median_expression"]
    parts = [adata[adata.obs["dataset"] == name] for name in "ab"]
    expected = [by_hand(part, part.layers["median_expression"], "otsu", everyone) for part in parts]
    row = found.loc[("median_expression", "otsu")]
    assert row["markers"] == 4 and row["f1"] != pytest.approx(by_hand(adata, everyone, "otsu")["f1"])
    for name in ("f1", "f1_scores"):
        assert row[name] == pytest.approx(np.mean([one[name] for one in expected]))


def test_the_interval_is_of_the_paired_difference():
    adata = tissue()
    # As good as the scores but for a few cells: each alone varies much more than the difference.
    adata.layers["close"] = adata.layers["nimbus"].copy()
    adata.layers["close"][::60] = 0
    found, again = (compare_baselines(adata, baselines=["close"], n_boot=300) for _ in range(2))
    pd.testing.assert_frame_equal(found, again, check_exact=True)
    row = found.loc[("close", "oracle")]
    assert 0 < row["difference_high"] - row["difference_low"] < 0.05
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert (row["resampled"], row["n_regions"]) == ("regions", 6)
    few = compare_baselines(adata, baselines=["close"], n_boot=20, region_key="dataset").loc[("close", "oracle")]
    assert (few["resampled"], few["n_regions"]) == ("cells", 2)
    same = compare_baselines(adata, baselines=["nimbus"], threshold="otsu", n_boot=20).loc[("nimbus", "otsu")]
    assert (same[["difference", "difference_low", "difference_high", "markers_better"]] == 0).all()


def test_cells_without_a_value_of_the_baseline_count_for_neither():
    adata = tissue()
    adata.layers["median_expression"][:] = np.nan
    found = compare_baselines(adata, baselines=["median_expression"], n_boot=20)
    assert (found[["cells", "markers"]] == 0).all(axis=None)
    assert found[["f1", "f1_scores", "difference", "difference_low", "difference_high"]].isna().all(axis=None)
    # Undetermined silver labels are none.
    adata.layers["silver"] = np.where(np.arange(adata.n_obs)[:, None] % 3, adata.layers["gold"], 0.5)
    judged = ((adata.layers["gold"] != 0.5) & (adata.layers["silver"] != 0.5)).sum()
    ours = compare_baselines(adata, baselines="silver", n_boot=0)
    theirs = compare_baselines(adata, pred="silver", baselines=["nimbus"], n_boot=0)
    assert (ours["cells"] == judged).all() and (theirs["cells"] == judged).all()
    assert ours.loc[("silver", "oracle"), "f1"] == theirs["f1_scores"].iloc[0] == 1


def test_bad_input():
    adata = tissue(regions=5, cells=10)
    with pytest.raises(KeyError, match="no layer 'eroded_expression'"):
        compare_baselines(adata, baselines=["eroded_expression"])
    del adata.layers["integrated_expression"], adata.layers["median_expression"]
    with pytest.raises(KeyError, match=r"no layer of .*'positive_pixels'"):
        compare_baselines(adata)
