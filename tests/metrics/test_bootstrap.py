"""The bootstrap: what is drawn, what is computed in each draw, and how often its intervals cover."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from metric_tables import metrics_of_sklearn, table

from nimbus_sd._table import truth_states
from nimbus_sd.metrics import marker_metrics
from nimbus_sd.metrics.bootstrap import draw_cells, draw_regions, interval, split
from nimbus_sd.metrics.judged import METRICS, Judged, resample


def simulated(rng, tissues: int, regions: int, cells: int, prevalence: float = 0.2, markers: int = 1) -> AnnData:
    """Many tissues in one table. Each region has its own sensitivity, specificity and share of positive cells."""
    total = tissues * regions
    region = np.arange(total).repeat(cells)
    size = (len(region), markers)

    def of_region(middle: float, spread: float) -> np.ndarray:
        return rng.normal(middle, spread, (total, markers))[region]

    odds = of_region(np.log(prevalence / (1 - prevalence)), 0.35)
    positive = rng.random(size) < 1 / (1 + np.exp(-odds))
    logit = np.where(positive, of_region(1.7, 0.7), of_region(-2.5, 0.7)) + rng.logistic(size=size)
    adata = table(nimbus=1 / (1 + np.exp(-logit)), gold=positive)
    adata.obs["region"], adata.obs["tissue"] = region.astype(str), region // regions
    return adata


def tissue(regions: int, cells: int, **options) -> AnnData:
    return simulated(np.random.default_rng(0), 1, regions, cells, **options)


@pytest.mark.parametrize(("prevalence", "average"), [(0.2, None), (0.05, None), (0.2, "macro")])
def test_intervals_cover(prevalence, average):
    """In 200 tissues of 20 regions the interval holds what is true of all regions that there could be."""
    rng = np.random.default_rng(11)
    markers = 1 if average is None else 2
    truth = marker_metrics(simulated(rng, 1, 5000, 40, prevalence, markers), average=average).iloc[0]
    tissues = simulated(rng, 200, 20, 40, prevalence, markers)
    found = marker_metrics(tissues, by="tissue", average=average, n_boot=100).iloc[:200]
    assert (found["resampled"] == "regions").all() and (found["n_regions"] == 20).all()
    covered = {
        name: float(((found[f"{name}_low"] <= truth[name]) & (truth[name] <= found[f"{name}_high"])).mean())
        for name in METRICS
    }
    assert all(0.9 <= share <= 0.99 for share in covered.values()), covered


@pytest.mark.parametrize("unit", ["regions", "cells"])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("block", [2_000_000, 300])
def test_each_draw_is_what_sklearn_finds_in_the_drawn_cells(unit, ties, block, monkeypatch):
    monkeypatch.setattr("nimbus_sd.metrics.judged._BLOCK", block)
    rng = np.random.default_rng(5)
    n = 120
    values = rng.random(n).round(1 if ties else 9).astype(np.float32)
    positive = rng.random(n) < values
    of = rng.integers(0, 7, n) if unit == "regions" else np.arange(n)
    weights = draw_regions(np.zeros(7, int), 6, rng) if unit == "regions" else draw_cells(n, 6, rng)
    found = resample(Judged(np.arange(n), values, positive, values >= 0.6), of, weights)
    for draw, weight in enumerate(weights):
        cells = np.arange(n).repeat(weight[of])
        expected = metrics_of_sklearn(positive[cells], values[cells], values[cells] >= 0.6)
        assert {name: draws[draw] for name, draws in found.items()} == pytest.approx(expected)


def test_cells_are_drawn_where_regions_are_few():
    assert marker_metrics(tissue(5, 50), n_boot=50).iloc[0]["resampled"] == "regions"
    # A marker counts the regions where it is judged.
    adata = tissue(8, 50, markers=2)
    adata.layers["gold"][adata.obs["region"].astype(int) >= 4, 1] = np.nan
    found = marker_metrics(adata, n_boot=50)
    assert found["n_regions"].tolist() == [8, 4] and found["resampled"].tolist() == ["regions", "cells"]
    assert marker_metrics(adata, n_boot=50, average="macro")["n_regions"].tolist() == [8]


def test_the_mean_over_regions_varies_as_regions_do():
    found = marker_metrics(tissue(12, 400), by="region", average="macro", n_boot=500)
    last = found.loc["mean"]
    assert (last["resampled"], last["n_regions"]) == ("regions", 12)
    error = found["recall"].iloc[:-1].std() / np.sqrt(12)
    assert (last["recall_high"] - last["recall_low"]) / 2 == pytest.approx(2.3 * error, rel=0.25)


def test_data_sets_are_drawn_apart_and_cell_types_together():
    adata = tissue(20, 60)
    adata.obs["dataset"] = np.where(adata.obs["region"].astype(int) < 10, "a", "b")
    adata.obs["cell_type"] = np.where(np.arange(adata.n_obs) % 2, "T", "B")
    width = {}
    for by, regions in (("dataset", [10, 10, 20]), ("cell_type", [20, 20, 20])):
        found = marker_metrics(adata, by=by, average="macro", n_boot=300)
        assert found["n_regions"].tolist() == regions
        width[by] = (found["recall_high"] - found["recall_low"]).to_numpy()
    # Two independent halves: the mean is surer than each. Two types of the same regions err together.
    assert width["dataset"][2] < 0.85 * width["dataset"][:2].mean()
    assert width["cell_type"][2] > 0.8 * width["cell_type"][:2].mean()


@pytest.mark.parametrize("shared", [False, True])
def test_each_group_keeps_its_number_of_regions_unless_groups_share_some(shared):
    adata = tissue(15, 20)
    adata.obs["dataset"] = ["b" if shared else "a", *"a" * (9 * 20 - 1), *"b" * (6 * 20)]
    groups, whole = split(adata, truth_states(adata, "gold"), ["dataset"], n_boot=200, rng=0, region_key="region")
    for group in groups:
        drawn = group.weights[:, group.regions].sum(axis=1)
        assert (drawn == len(group.regions)).all() != shared
    assert (groups[0].weights.sum(axis=1) == 15).all()
    assert len(np.unique(whole.weights[:, :9].sum(axis=1))) > 1


def test_seeds_and_columns():
    adata = tissue(6, 30)
    first, again, other = (marker_metrics(adata, n_boot=50, rng=seed) for seed in (0, np.random.default_rng(0), 1))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first["f1_low"] != other["f1_low"]).all()
    plain = marker_metrics(adata)
    pd.testing.assert_frame_equal(first[plain.columns], plain)
    for name in METRICS:
        assert (first[f"{name}_low"] <= first[name]).all() and (first[name] <= first[f"{name}_high"]).all()


def test_ends_of_intervals():
    # A perfect figure is no certainty.
    assert interval(np.ones(100), 20, 1.0) == (pytest.approx(0.025 ** (1 / 20)), 1)
    assert interval(np.zeros(100), 20, 0.0) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    for draws, units in (([0.2, 0.3], 1), ([np.nan, np.nan], 9)):
        assert np.isnan([interval(np.array(draws), units), interval(np.array(draws), units, 0.3)]).all()
    # Of differences from regions the true one, 0, is covered.
    rng = np.random.default_rng(0)
    of_region, weights = rng.exponential(1, (500, 20)) - 1, draw_regions(np.zeros(20, int), 1000, rng)
    ends = np.array([interval(weights @ each / 20, 20) for each in of_region])
    assert 0.9 <= ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean() <= 0.99
    # Many units: the percentiles of the normal distribution. Six units: sqrt(6 / 5) times those of Student's.
    normal = np.random.default_rng(0).normal(size=200_000)
    assert interval(normal, 10_000) == pytest.approx((-1.96, 1.96), abs=0.03)
    assert interval(normal, 6) == pytest.approx((-2.816, 2.816), abs=0.06)
