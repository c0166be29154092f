"""Scores against thresholds on intensities."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import f1_score

from nimbus_sd.metrics import compare_baselines, find_threshold

RULES = ["otsu", "mixture", "quantile", "oracle"]


def tissue(seed: int = 0, regions: int = 6, cells: int = 80) -> AnnData:
    """Scores that part the classes well, intensities that part them less well; the third marker has no positives."""
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


def by_hand(adata: AnnData, values: np.ndarray, rule: str) -> tuple[float, float, int]:
    """F1 of the baseline and of the scores over the markers with positive cells, and how often scores are better."""
    ours, theirs = [], []
    for i in (0, 1):
        gold, score, value = adata.layers["gold"][:, i], adata.layers["nimbus"][:, i], values[:, i]
        keep = np.isfinite(score) & np.isfinite(value) & (gold != 0.5)
        y = gold[keep] == 1
        known = value[keep] if rule == "oracle" else value
        cut = find_threshold(known, rule, y if rule == "oracle" else None)
        ours.append(f1_score(y, score[keep] >= 0.5))
        theirs.append(f1_score(y, value[keep] >= cut))
    return float(np.mean(theirs)), float(np.mean(ours)), int(np.sum(np.array(ours) > theirs))


def test_counted_by_hand():
    adata = tissue()
    adata.layers["median_expression"][::3, 0] = np.nan
    adata.layers["nimbus"][::7, 1] = np.nan
    found = compare_baselines(adata, n_boot=0)
    names = ["integrated_expression", "median_expression", "arcsinh_expression"]
    assert found.index.names == ["baseline", "rule"]
    assert list(found.index) == [(name, rule) for name in names for rule in RULES]
    assert list(found.columns) == ["cells", "markers", "f1", "f1_scores", "difference", "markers_better"]
    for name in names[:2]:
        for rule in RULES:
            f1, f1_scores, better = by_hand(adata, adata.layers[name], rule)
            row = found.loc[(name, rule)]
            assert row["f1"] == pytest.approx(f1) and row["f1_scores"] == pytest.approx(f1_scores)
            assert row["difference"] == pytest.approx(f1_scores - f1)
            assert (row["markers"], row["markers_better"]) == (2, better)
    judged = (adata.layers["gold"] != 0.5) & np.isfinite(adata.layers["nimbus"])
    assert found.loc["integrated_expression", "cells"].unique().tolist() == [judged.sum()]
    # Only cells that both have count for either.
    both = judged & np.isfinite(adata.layers["median_expression"])
    assert found.loc["median_expression", "cells"].unique().tolist() == [both.sum()]


def test_arcsinh_has_the_median_above_0_as_cofactor():
    adata = tissue()
    expression = adata.layers["integrated_expression"]
    expression[::4] = 0
    expression[1, 0] = np.nan
    found = compare_baselines(adata, n_boot=0)
    cofactor = np.nanmedian(np.where(expression > 0, expression, np.nan), axis=0)
    changed = np.arcsinh(expression / cofactor)
    for rule in RULES:
        assert found.loc[("arcsinh_expression", rule), "f1"] == pytest.approx(by_hand(adata, changed, rule)[0])
    # It changes no order of cells, so that only rules that see the shape find another threshold.
    same = found.loc["arcsinh_expression", "f1"] == found.loc["integrated_expression", "f1"]
    assert same.to_dict() == {"otsu": False, "mixture": False, "quantile": True, "oracle": True}


def test_no_rule_beats_the_oracle():
    found = compare_baselines(tissue(), n_boot=0)["f1"].unstack("rule")
    assert (found[["otsu", "mixture", "quantile"]].max(axis=1) <= found["oracle"]).all()


def test_groups_are_averaged_after_markers():
    adata = tissue()
    adata = adata[np.r_[0:200, 240:480]].copy()
    found = compare_baselines(adata, by="dataset", n_boot=0, baselines=["median_expression"])
    assert found["markers"].unique().tolist() == [4]
    parts = [adata[adata.obs["dataset"] == name] for name in "ab"]
    ours = [by_hand(part, part.layers["median_expression"], "otsu")[1] for part in parts]
    assert found["f1_scores"].iloc[0] == pytest.approx(np.mean(ours))
    assert found["f1_scores"].iloc[0] != pytest.approx(by_hand(adata, adata.layers["median_expression"], "otsu")[1])
    # A rule sees the whole table.
    cuts = [find_threshold(adata.layers["median_expression"][:, i], "otsu") for i in (0, 1)]
    theirs = [
        f1_score(gold[gold != 0.5] == 1, value[gold != 0.5] >= cut)
        for part in parts
        for cut, gold, value in zip(cuts, part.layers["gold"].T, part.layers["median_expression"].T, strict=False)
    ]
    assert found.loc[("median_expression", "otsu"), "f1"] == pytest.approx(np.mean(theirs))


def test_the_interval_is_of_the_paired_difference():
    adata = tissue()
    # As good as the scores but for a few cells: each alone varies much more than the difference.
    adata.layers["close"] = adata.layers["nimbus"].copy()
    adata.layers["close"][::60] = 0
    found = compare_baselines(adata, baselines=["close"], n_boot=300).loc[("close", "oracle")]
    assert 0 < found["difference_high"] - found["difference_low"] < 0.05
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    assert (found["resampled"], found["n_regions"]) == ("regions", 6)
    few = compare_baselines(adata, baselines=["close"], n_boot=20, region_key="dataset").loc[("close", "oracle")]
    assert (few["resampled"], few["n_regions"]) == ("cells", 2)


def test_scores_against_themselves_do_not_differ():
    found = compare_baselines(tissue(), baselines=["nimbus"], threshold="otsu", n_boot=50).loc[("nimbus", "otsu")]
    assert (found[["difference", "difference_low", "difference_high", "markers_better"]] == 0).all()


def test_the_same_seed_gives_the_same_bytes():
    adata = tissue(regions=5, cells=30)
    first, again = (compare_baselines(adata, n_boot=30, baselines=["median_expression"]) for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_a_baseline_without_any_value_is_nan():
    adata = tissue()
    adata.layers["median_expression"][:] = np.nan
    found = compare_baselines(adata, baselines=["median_expression"], n_boot=20)
    assert (found["cells"] == 0).all() and (found["markers"] == 0).all()
    assert found[["f1", "f1_scores", "difference", "difference_low", "difference_high"]].isna().all(axis=None)


def test_the_table_is_left_as_it_was():
    adata = tissue(regions=5, cells=20)
    before = adata.copy()
    compare_baselines(adata, n_boot=10)
    assert set(adata.layers) == set(before.layers)
    for name in ("nimbus", "gold", "integrated_expression", "median_expression"):
        np.testing.assert_array_equal(adata.layers[name], before.layers[name])


def test_bad_input():
    adata = tissue(regions=5, cells=10)
    with pytest.raises(KeyError, match="no layer 'eroded_expression'; there are"):
        compare_baselines(adata, baselines=["eroded_expression"])
    with pytest.raises(KeyError, match="no column 'fov'; it has"):
        compare_baselines(adata, region_key="fov")
    for name in ("integrated_expression", "median_expression"):
        del adata.layers[name]
    with pytest.raises(KeyError, match=r"no layer of a baseline .*; there are \['gold', 'nimbus'\]"):
        compare_baselines(adata)
    adata.layers["gold"][:] = np.nan
    with pytest.raises(ValueError, match="labels no cell"):
        compare_baselines(adata)


def test_cells_that_silver_labels_leave_open_count_for_neither():
    adata = tissue()
    rng = np.random.default_rng(0)
    adata.layers["silver"] = np.where(rng.random(adata.shape) < 0.3, 0.5, adata.layers["gold"])
    judged = ((adata.layers["gold"] != 0.5) & (adata.layers["silver"] != 0.5)).sum()
    ours = compare_baselines(adata, baselines="silver", n_boot=0)
    theirs = compare_baselines(adata, pred="silver", baselines=["nimbus"], n_boot=0)
    assert (ours["cells"] == judged).all() and (theirs["cells"] == judged).all()
    assert ours.loc[("silver", "oracle"), "f1"] == theirs["f1_scores"].iloc[0] == 1
