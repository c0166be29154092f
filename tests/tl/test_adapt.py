"""A marker's own line by a few labels."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from nimbus_sd.metrics import calibration_error, marker_metrics
from nimbus_sd.tl import adapt, call_positive
from nimbus_sd.tl._line import PRIOR, fit_line, move

NAN = float("nan")


def table(n=3000, seed=0, shift=(-2.0, 1.5, 0.0), labelled=20, regions="abcd"):
    """Three channels whose scores are off by a shift of their logit; of the first two some cells are labelled."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, 2, (n, 3))
    gold = (evidence > 0).astype(np.float32)
    own = np.full_like(gold, NAN)
    for channel in (0, 1):
        cells = rng.choice(n, labelled, replace=False)
        own[cells, channel] = gold[cells, channel]
    region = pd.Categorical(rng.choice(list(regions), n))
    return AnnData(
        np.zeros((n, 3), np.float32),
        obs=pd.DataFrame({"region": region}, index=[str(i) for i in range(n)]),
        var=pd.DataFrame(index=["CD3", "CD8", "CD20"]),
        layers={"nimbus": expit(evidence + shift).astype(np.float32), "gold": gold, "gold_training": own},
    )


def test_labels_move_the_line_of_their_marker_and_of_no_other(no_warning):
    adata = table()
    before = adata.layers["nimbus"].copy()
    adata.layers["nimbus"][:5] = NAN
    adata.layers["gold_training"][:5] = NAN
    adapt(adata)
    after = adata.layers["nimbus_adapted"]
    assert after.dtype == np.float32 and np.isnan(after[:5]).all() and np.isfinite(after[5:]).all()
    assert after[5:, 2].tobytes() == before[5:, 2].tobytes() and (adata.layers["nimbus"][5:] == before[5:]).all()
    rest = adata[~adata.obs["nimbus_adapted_fitted"]].copy()
    f1 = marker_metrics(rest, ["nimbus", "nimbus_adapted"])["f1"].unstack("layer")
    assert (f1.loc[["CD3", "CD8"], "nimbus_adapted"] > f1.loc[["CD3", "CD8"], "nimbus"] + 0.05).all()
    found = adata.varm["nimbus_adapted"]
    assert found.loc["CD3", "offset"] > 0 > found.loc["CD8", "offset"]
    assert found["reason"].to_list() == ["", "", "no labels"] and found["labels"].to_list() == [20, 20, 0]
    assert found.loc["CD20", ["slope", "offset"]].to_list() == [1, 0] and np.isnan(found.loc["CD20", "f1_after"])


def test_few_labels_move_it_carefully():
    offsets = [fit_line(np.full(n, 0.1), np.ones(n, bool))[1] for n in (0, 1, 5, 50)]
    assert offsets[0] == 0 and (np.diff(offsets) > 0).all() and offsets[1] < PRIOR[1]


def test_many_labels_outweigh_the_prior():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 20_000)
    positive = rng.random(len(x)) < expit(0.5 * x + 1)
    slope, offset = fit_line(expit(x), positive)
    free = LogisticRegression(C=np.inf).fit(x[:, None], positive)
    np.testing.assert_allclose([slope, offset], [free.coef_[0, 0], free.intercept_[0]], atol=2e-3)


def test_it_is_the_most_probable_line():
    rng = np.random.default_rng(0)
    scores, positive = rng.random(12), rng.random(12) < 0.5

    def cost(log_slope, offset):
        p = expit(np.exp(log_slope) * logit(scores) + offset)
        return (
            -np.log(np.where(positive, p, 1 - p)).sum()
            + log_slope**2 / PRIOR[0] ** 2 / 2
            + offset**2 / PRIOR[1] ** 2 / 2
        )

    slope, offset = fit_line(scores, positive)
    best = cost(np.log(slope), offset)
    assert all(cost(np.log(slope) + a, offset + b) > best for a, b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)))


def test_the_order_of_cells_stays_even_where_labels_contradict_it():
    adata = table(labelled=200)
    adata.layers["gold_training"][:, 0] = 1 - adata.layers["gold_training"][:, 0]
    adata.layers["nimbus"][:3, 0] = 0, 1, 0.5
    with pytest.warns(UserWarning, match=r"before using 'CD3' \(scores are not higher in positive cells\)\.") as caught:
        adapt(adata)
    assert len(caught) == 1 and caught[0].filename == __file__
    for before, after in zip(adata.layers["nimbus"].T, adata.layers["nimbus_adapted"].T, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= 0).all() and after.min() >= 0 and after.max() <= 1
    assert (adata.varm["nimbus_adapted"]["slope"] > 0).all()
    assert adata.layers["nimbus_adapted"][:2, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("regions", "unit", "folds"), [("abcd", "regions", 4), ("ab", "cells", 5)])
def test_figures_are_of_cells_that_the_fit_did_not_use(regions, unit, folds):
    adata = table(labelled=40, regions=regions)
    adapt(adata)
    own = adata.layers["gold_training"][:, 0]
    used = np.flatnonzero(np.isfinite(own))
    scores, positive, region = adata.layers["nimbus"][used, 0], own[used] == 1, adata.obs["region"].to_numpy()[used]
    if unit == "regions":
        fold = np.unique(region, return_inverse=True)[1]
    else:
        fold = np.empty(40, int)
        fold[np.argsort(positive, kind="stable")] = np.arange(40) % 5
    after = np.empty(40)
    for part in range(folds):
        out = fold == part
        after[out] = move(scores[out], *fit_line(scores[~out], positive[~out]))
    found = adata.varm["nimbus_adapted"].loc["CD3"]
    loss = -np.log(np.where(positive, after, 1 - after)).mean()
    assert found["held_out"] == unit and found["log_loss_after"] == pytest.approx(loss, rel=1e-4)
    called = after >= 0.5
    assert found["f1_after"] == pytest.approx(2 * (called & positive).sum() / (called.sum() + positive.sum()))
    every = adata.uns["nimbus_adapted"]["held_out"]
    losses = adata.varm["nimbus_adapted"]["log_loss_after"]
    assert every["log_loss_after"] == pytest.approx(losses[["CD3", "CD8"]].mean())


def test_labels_that_say_nothing_promise_nothing():
    """Labels at random: a figure of the cells used would rise, that of others must not."""
    gains = []
    for seed in range(20):
        adata = table(labelled=12, seed=seed, shift=(0, 0, 0))
        own = adata.layers["gold_training"]
        own[:] = np.where(np.isfinite(own), np.random.default_rng(seed).random(own.shape) < 0.5, NAN)
        adata.layers["nimbus"][:] = 0.5 + 0.01 * (adata.layers["nimbus"] - 0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapt(adata)
        found = adata.uns["nimbus_adapted"]["held_out"]
        gains.append(found["log_loss_after"] - found["log_loss_before"])
    assert np.mean(gains) > 0


@pytest.mark.parametrize(("likely", "labels"), [(True, 20), (False, 10)])
def test_undetermined_is_left_out_and_likely_may_be(likely, labels):
    adata = table()
    own = adata.layers["gold_training"]
    some = np.flatnonzero(np.isfinite(own[:, 0]))[::2]
    own[some, 0] = np.where(own[some, 0] == 1, 0.75, 0.25)
    own[np.flatnonzero(np.isnan(own[:, 0]))[:100], 0] = 0.5
    adapt(adata, likely=likely)
    assert adata.varm["nimbus_adapted"].loc["CD3", "labels"] == labels


def test_too_few_labels_are_said():
    adata = table()
    own = adata.layers["gold_training"]
    own[np.flatnonzero(np.isfinite(own[:, 0]))[3:], 0] = NAN
    own[own[:, 1] == 0, 1] = NAN
    with pytest.warns(UserWarning, match=r"'CD3' \(too few labels: .*'CD8' \(labels of one class: \d+ positive, 0 neg"):
        adapt(adata)
    assert "no labels" in set(adata.varm["nimbus_adapted"]["reason"])


def test_same_call_same_bytes():
    one, other = table(), table()
    for adata in (one, other, other):
        adapt(adata)
    assert one.layers["nimbus_adapted"].tobytes() == other.layers["nimbus_adapted"].tobytes()
    pd.testing.assert_frame_equal(one.varm["nimbus_adapted"], other.varm["nimbus_adapted"], check_exact=True)


def test_gold_is_used_of_named_regions_only(no_warning):
    one, other = table(), table()
    other.layers["gold"][(other.obs["region"] != "a").to_numpy()] = 1
    for adata in (one, other):
        adapt(adata, labels="gold", regions="a")
    assert one.layers["nimbus_adapted"].tobytes() == other.layers["nimbus_adapted"].tobytes()
    assert one.uns["nimbus_adapted"]["regions"] == ["a"] and (one.obs["region"] == "a").equals(
        one.obs["nimbus_adapted_fitted"].rename("region")
    )


def test_metrics_say_when_they_are_asked_about_the_cells_used(tmp_path, no_warning):
    adata = table()
    adapt(adata)
    call_positive(adata, layer="nimbus_adapted")
    adata.uns["nimbus_calibrated"] = {"params": {"layer": "nimbus_adapted"}}
    adata.layers["nimbus_calibrated"] = adata.layers["nimbus_adapted"]
    adata.write_h5ad(tmp_path / "table.h5ad")
    adata = anndata.read_h5ad(tmp_path / "table.h5ad")
    others = adata[~adata.obs["nimbus_adapted_fitted"]].copy()
    # What was made from the adapted scores knows those cells as well.
    for layer in ("nimbus_adapted", "positive", "nimbus_calibrated"):
        match = (
            r"Layer 'nimbus_adapted' was fitted on the cells of obs\['nimbus_adapted_fitted'\], and 1% .* other cells"
        )
        with pytest.warns(UserWarning, match=match):
            marker_metrics(adata, layer)
        marker_metrics(others, layer)
    with pytest.warns(UserWarning, match="and 100% of the cells") as caught:
        calibration_error(adata, "nimbus_adapted", truth="gold_training")
    assert len(caught) == 1 and caught[0].filename == __file__


def test_layers_made_from_each_other_end():
    adata = table()
    adapt(adata)
    adapt(adata, layer="nimbus_adapted", key_added="again")
    adapt(adata, layer="again")
    with pytest.warns(UserWarning) as caught:
        marker_metrics(adata, "nimbus_adapted")
    assert len(caught) == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer": "x"}, KeyError, "no layer 'x'"),
        ({"labels": "x"}, KeyError, "no layer 'x'"),
        ({"layer": "big"}, ValueError, r"outside \[0, 1\]; only scores can be adapted"),
        ({"labels": "big"}, ValueError, r"they must be in \[0, 1\]"),
        ({"labels": "nobody"}, ValueError, "labels no cell"),
        ({"labels": "gold"}, ValueError, "the labels for evaluation: name the `regions`"),
        ({"labels": "elsewhere", "regions": "a"}, ValueError, r"no cell with a score in region\(s\) 'a'"),
        ({"regions": ["a", "x"]}, KeyError, r"no region\(s\) \['x'\]; it has \['a', 'b', 'c', 'd'\]"),
        ({"region_key": "x"}, KeyError, "no column 'x'"),
        ({"key_added": "nimbus"}, ValueError, "`key_added` is 'nimbus', a layer that is needed"),
        ({"key_added": "big"}, ValueError, r"layers\['big'\], which `tl.adapt` did not make"),
        ({"key_added": "mine"}, ValueError, r"obs\['mine_fitted'\], which `tl.adapt` did not make"),
    ],
)
def test_what_is_not_allowed_changes_nothing(settings, error, message):
    adata = table(300)
    adata.layers["big"] = adata.layers["nimbus"] * 100
    adata.layers["nobody"] = np.full_like(adata.layers["gold"], 0.5)
    adata.layers["elsewhere"] = np.where((adata.obs["region"] == "a").to_numpy()[:, None], NAN, adata.layers["gold"])
    adata.obs["mine_fitted"] = 1
    with pytest.raises(error, match=message):
        adapt(adata, **settings)
    assert "nimbus_adapted" not in {*adata.layers, *adata.uns, *adata.varm} and len(adata.obs.columns) == 2


def test_a_large_table_is_copied_once_and_in_its_own_precision():
    import tracemalloc

    adata = table(400_000)
    size = adata.layers["nimbus"].nbytes
    wide = np.repeat(adata.layers["nimbus"], 10, axis=1)
    labels = np.repeat(adata.layers["gold_training"], 10, axis=1)
    big = AnnData(obs=adata.obs, layers={"nimbus": wide, "gold_training": labels})
    tracemalloc.start()
    adapt(big)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * 10 * size
