"""The bootstrap: what is drawn, what is computed in each draw, and how often its intervals cover."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn import metrics

from nimbus_sd.metrics import marker_metrics
from nimbus_sd.metrics._counts import METRICS, Judged, resample
from nimbus_sd.metrics._frame import frame
from nimbus_sd.metrics.bootstrap import draw_cells, draw_regions, interval, share_interval


def simulated(rng, tissues: int, regions: int, cells: int, prevalence: float = 0.2, markers: int = 1) -> AnnData:
    """Many tissues in one table. Each region has its own sensitivity, specificity and share of positive cells."""
    total = tissues * regions
    region = np.arange(total).repeat(cells)

    def of_region(middle: float, spread: float) -> np.ndarray:
        return rng.normal(middle, spread, (total, markers))[region]

    size = (len(region), markers)
    odds = of_region(np.log(prevalence / (1 - prevalence)), 0.35)
    positive = rng.random(size) < 1 / (1 + np.exp(-odds))
    logit = np.where(positive, of_region(1.7, 0.7), of_region(-2.5, 0.7)) + rng.logistic(size=size)
    obs = pd.DataFrame(
        {"region": region.astype(str), "tissue": region // regions}, index=np.arange(size[0]).astype(str)
    )
    layers = {"nimbus": np.float32(1 / (1 + np.exp(-logit))), "gold": np.float32(positive)}
    return AnnData(np.zeros(size, np.float32), obs=obs, layers=layers)


@pytest.mark.parametrize(("prevalence", "average"), [(0.2, None), (0.05, None), (0.2, "macro")])
def test_intervals_cover(prevalence, average):
    """In 200 tissues of 20 regions the interval holds what is true of all regions that there could be."""
    rng = np.random.default_rng(11)
    markers = 1 if average is None else 2
    truth = marker_metrics(simulated(rng, 1, 5000, 40, prevalence, markers), average=average).iloc[0]
    tissues = simulated(rng, 200, 20, 40, prevalence, markers)
    found = marker_metrics(tissues, by="tissue", average=average, n_boot=200).iloc[:200]
    assert (found["resampled"] == "regions").all() and (found["n_regions"] == 20).all()
    covered = {
        name: float(((found[f"{name}_low"] <= truth[name]) & (truth[name] <= found[f"{name}_high"])).mean())
        for name in METRICS
    }
    assert all(0.9 <= share <= 0.99 for share in covered.values()), covered


def test_resampling_cells_would_not_cover():
    """Why regions are drawn: cells of one region are alike."""
    rng = np.random.default_rng(3)
    truth = marker_metrics(simulated(rng, 1, 4000, 40)).iloc[0]["recall"]
    tissues = simulated(rng, 100, 20, 100)
    shares = {}
    for key in ("region", "tissue"):
        found = marker_metrics(tissues, by="tissue", n_boot=100, region_key=key)
        shares[found["resampled"].iloc[0]] = ((found["recall_low"] <= truth) & (truth <= found["recall_high"])).mean()
    assert shares["regions"] > 0.9 and shares["cells"] < 0.85


def test_differences_are_covered():
    rng = np.random.default_rng(0)
    of_region = rng.exponential(1, (500, 20)) - 1
    weights = draw_regions(np.zeros(20, int), 1000, rng)
    ends = np.array([interval(weights @ one / 20, 20) for one in of_region])
    assert 0.9 <= ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean() <= 0.99


@pytest.mark.parametrize("unit", ["regions", "cells"])
@pytest.mark.parametrize("ties", [True, False])
def test_each_draw_is_what_sklearn_finds_in_the_drawn_cells(unit, ties):
    rng = np.random.default_rng(5)
    n = 120
    values = rng.random(n).round(1 if ties else 9).astype(np.float32)
    positive = rng.random(n) < values
    of = rng.integers(0, 7, n) if unit == "regions" else np.arange(n)
    weights = draw_regions(np.zeros(7, int), 6, rng) if unit == "regions" else draw_cells(n, 6, rng)
    one = Judged(np.arange(n), values, positive, values >= 0.6)
    found = resample(one, of, weights)
    for draw, weight in enumerate(weights):
        cells = np.arange(n).repeat(weight[of])
        y, score = positive[cells], values[cells]
        called = score >= 0.6
        expected = {
            "precision": metrics.precision_score(y, called),
            "recall": metrics.recall_score(y, called),
            "specificity": metrics.recall_score(~y, ~called),
            "f1": metrics.f1_score(y, called),
            "accuracy": metrics.accuracy_score(y, called),
            "auroc": metrics.roc_auc_score(y, score),
            "average_precision": metrics.average_precision_score(y, score),
        }
        assert {name: draws[draw] for name, draws in found.items()} == pytest.approx(expected)


def test_blocks_of_draws_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    values = rng.random(300)
    one = Judged(np.arange(300), values, rng.random(300) < values, values > 0.5)
    weights = draw_cells(300, 50, rng)
    whole = resample(one, np.arange(300), weights)
    monkeypatch.setattr("nimbus_sd.metrics._counts._BLOCK", 2000)
    for name, draws in resample(one, np.arange(300), weights).items():
        np.testing.assert_allclose(draws, whole[name], rtol=1e-12)


def test_regions_are_drawn_within_strata():
    strata = np.array([0, 1, 0, 1, 1])
    weights = draw_regions(strata, 500, np.random.default_rng(0))
    assert (weights[:, strata == 0].sum(1) == 2).all() and (weights[:, strata == 1].sum(1) == 3).all()
    assert weights.mean(0) == pytest.approx(np.ones(5), abs=0.15)
    assert (draw_cells(40, 20, np.random.default_rng(0)).sum(1) == 40).all()


def test_cells_are_drawn_where_regions_are_few():
    four = marker_metrics(simulated(np.random.default_rng(0), 1, 4, 50), n_boot=50).iloc[0]
    five = marker_metrics(simulated(np.random.default_rng(0), 1, 5, 50), n_boot=50).iloc[0]
    assert (four["resampled"], four["n_regions"]) == ("cells", 4)
    assert (five["resampled"], five["n_regions"]) == ("regions", 5)


def test_a_marker_counts_the_regions_where_it_is_judged():
    adata = simulated(np.random.default_rng(0), 1, 8, 50, markers=2)
    adata.layers["gold"][adata.obs["region"].astype(int) >= 4, 1] = np.nan
    found = marker_metrics(adata, n_boot=50)
    assert found["n_regions"].tolist() == [8, 4] and found["resampled"].tolist() == ["regions", "cells"]
    assert marker_metrics(adata, n_boot=50, average="macro")["n_regions"].tolist() == [8]


def test_the_mean_over_regions_varies_as_regions_do():
    adata = simulated(np.random.default_rng(0), 1, 12, 400)
    found = marker_metrics(adata, by="region", average="macro", n_boot=500)
    last = found.loc["mean"]
    assert (last["resampled"], last["n_regions"]) == ("regions", 12)
    error = found["recall"].iloc[:-1].std() / np.sqrt(12)
    assert (last["recall_high"] - last["recall_low"]) / 2 == pytest.approx(2.3 * error, rel=0.25)


def test_data_sets_are_drawn_apart_and_cell_types_together():
    adata = simulated(np.random.default_rng(0), 1, 20, 60)
    adata.obs["dataset"] = np.where(adata.obs["region"].astype(int) < 10, "a", "b")
    adata.obs["cell_type"] = np.where(np.arange(adata.n_obs) % 2, "T", "B")
    apart = marker_metrics(adata, by="dataset", average="macro", n_boot=300)
    together = marker_metrics(adata, by="cell_type", average="macro", n_boot=300)
    assert apart["n_regions"].tolist() == [10, 10, 20] and together["n_regions"].tolist() == [20, 20, 20]
    width = {name: found["recall_high"] - found["recall_low"] for name, found in (("a", apart), ("t", together))}
    # Two independent halves: the mean is surer than each. Two types of the same regions err together.
    assert width["a"]["mean"] < 0.85 * width["a"].iloc[:2].mean()
    assert width["t"]["mean"] > 0.8 * width["t"].iloc[:2].mean()


@pytest.mark.parametrize("shared", [False, True])
def test_each_group_keeps_its_number_of_regions_unless_groups_share_some(shared):
    adata = simulated(np.random.default_rng(0), 1, 15, 20)
    adata.obs["dataset"] = np.where(adata.obs["region"].astype(int) < 9, "a", "b")
    if shared:
        adata.obs.iloc[0, adata.obs.columns.get_loc("dataset")] = "b"
    base = frame(adata, "gold", ["dataset"], likely=True, n_boot=200, rng=0, region_key="region")
    for group in base.groups:
        drawn = group.sample.weights[:, group.sample.regions].sum(axis=1)
        assert (drawn == len(group.sample.regions)).all() != shared
    assert (base.groups[0].sample.weights.sum(axis=1) == 15).all()
    assert len(np.unique(base.whole.sample.weights[:, :9].sum(axis=1))) > 1


def test_the_same_seed_gives_the_same_bytes():
    adata = simulated(np.random.default_rng(0), 1, 6, 30)
    first, again, other = (marker_metrics(adata, n_boot=50, rng=seed) for seed in (0, np.random.default_rng(0), 1))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first["f1_low"] != other["f1_low"]).all() and (first["f1"] == other["f1"]).all()


def test_columns_follow_the_figures():
    adata = simulated(np.random.default_rng(0), 1, 6, 30)
    plain, found = marker_metrics(adata), marker_metrics(adata, n_boot=20)
    ends = [f"{name}_{end}" for name in METRICS for end in ("low", "high")]
    assert list(found.columns) == [*plain.columns, *ends, "n_regions", "resampled"]
    pd.testing.assert_frame_equal(found[plain.columns], plain)
    for name in METRICS:
        assert (found[f"{name}_low"] <= found[name]).all() and (found[name] <= found[f"{name}_high"]).all()


def test_a_perfect_figure_is_no_certainty():
    assert share_interval(1.0, np.ones(100), 20) == (pytest.approx(0.025 ** (1 / 20)), 1)
    assert share_interval(0.0, np.zeros(100), 20) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))


@pytest.mark.parametrize("draws, units", [([0.2, 0.3], 1), ([np.nan, np.nan], 9)])
def test_without_draws_there_is_no_interval(draws, units):
    assert np.isnan(share_interval(0.3, np.array(draws), units)).all()
    assert np.isnan(interval(np.array(draws), units)).all()


def test_percentiles_are_expanded():
    draws = np.random.default_rng(0).normal(size=200_000)
    # Many units: those of the normal distribution. Six units: sqrt(6 / 5) times those of Student's.
    assert interval(draws, 10_000) == pytest.approx((-1.96, 1.96), abs=0.03)
    assert interval(draws, 6) == pytest.approx((-2.816, 2.816), abs=0.06)
