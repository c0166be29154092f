"""Scores fitted to labels: one map for all channels, or a line for each marker."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from nimbus_sd.metrics import calibration_curve, calibration_error, marker_metrics
from nimbus_sd.tl import adapt, calibrate, call_positive
from nimbus_sd.tl.calibrate import PRIOR, fit_line, move

NAN = float("nan")


def table(n=3000, seed=0, shift=(-2.0, 1.5, 0.0), noise=0.0, labelled=20, regions="abcd"):
    """Scores that are off by a shift of their logit; of the first two channels some cells are labelled for training."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, 2, (n, len(shift)))
    gold = (evidence + noise * rng.logistic(size=evidence.shape) > 0).astype(np.float32)
    training = np.full_like(gold, NAN)
    for channel in (0, 1):
        cells = rng.choice(n, labelled, replace=False)
        training[cells, channel] = gold[cells, channel]
    region = pd.Categorical(rng.choice(list(regions), n))
    return AnnData(
        np.zeros(gold.shape, np.float32),
        obs=pd.DataFrame({"region": region}, index=[str(i) for i in range(n)]),
        var=pd.DataFrame(index=["CD3", "CD8", "CD20"][: len(shift)]),
        layers={"nimbus": expit(evidence + shift).astype(np.float32), "gold": gold, "gold_training": training},
    )


def noisy(n=3000, shift=(1.5, -1.0)):
    """Two channels of three regions, whose true probabilities are the scores without the shift."""
    return table(n, shift=shift, noise=1.0, regions="abc")


def test_it_is_the_fit_of_sklearn_on_the_judged_cells_of_the_regions():
    adata = noisy()
    gold = adata.layers["gold"]
    gold[::7], gold[1::7], gold[2::7] = 0.5, NAN, np.where(gold[2::7] == 1, 0.75, 0.25)
    adata.layers["nimbus"][:20, 0] = NAN
    # One fit for a channel whose scores are too high and one whose are too low.
    calibrate(adata, regions=["a", "b"], likely=False, key_added="sure")
    with pytest.warns(UserWarning, match="The fit makes 'CD8' worse") as caught:
        calibrate(adata, regions=["a", "b"], key_added="likely")
    assert len(caught) == 1 and caught[0].filename == __file__
    scores = adata.layers["nimbus"].astype(float)
    scored = np.isfinite(scores)
    inside = (adata.obs["region"] != "c").to_numpy()[:, None]
    for name, states in (("sure", (0, 1)), ("likely", (0, 0.25, 0.75, 1))):
        used = inside & scored & np.isin(gold, states)
        isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores[used], gold[used] > 0.5)
        np.testing.assert_allclose(adata.layers[name][scored], isotonic.predict(scores[scored]), atol=1e-5)
        assert np.isnan(adata.layers[name][~scored]).all() and adata.layers[name].dtype == np.float32
    entry = adata.uns["likely"]
    assert entry["fitted_on"] == ["a", "b"] and entry["params"]["likely"]
    assert (entry["cells"], entry["positives"]) == (used.sum(), (gold[used] > 0.5).sum())


def test_metrics_say_when_they_are_asked_about_the_regions_used_to_fit(from_disk, no_warning):
    adata = noisy(shift=(1.5, 1.5))
    # Regions may be numbers.
    adata.obs["region"] = adata.obs["region"].cat.rename_categories({"a": 0, "b": 1, "c": 2})
    calibrate(adata, regions=[0, 1])
    with pytest.warns(UserWarning, match="none is left to judge it on"):
        calibrate(adata, regions=[0, 1, 2], key_added="all")
    assert adata.uns["all"]["fitted_on"] == ["0", "1", "2"]
    assert (adata.layers["all"] != adata.layers["nimbus_calibrated"]).any()
    adata = from_disk(adata)
    for metric in (calibration_error, calibration_curve):
        with pytest.warns(UserWarning, match=r"fitted on the truth of region\(s\) '0', '1', and 6\d%") as caught:
            metric(adata, ["nimbus", "nimbus_calibrated"])
        assert len(caught) == 1 and caught[0].filename == __file__
        metric(adata[adata.obs["region"] == 2], "nimbus_calibrated")
        metric(adata, "nimbus")


def test_labels_move_the_line_of_their_marker_and_of_no_other(no_warning):
    adata = table()
    before = adata.layers["nimbus"].copy()
    adata.layers["nimbus"][:5] = NAN
    adata.layers["gold_training"][:5] = NAN
    adapt(adata)
    after = adata.layers["nimbus_adapted"]
    assert after.dtype == np.float32 and np.isnan(after[:5]).all() and np.isfinite(after[5:]).all()
    assert after[5:, 2].tobytes() == before[5:, 2].tobytes() and (adata.layers["nimbus"][5:] == before[5:]).all()
    unused = adata[~adata.obs["nimbus_adapted_fitted"]].copy()
    f1 = marker_metrics(unused, ["nimbus", "nimbus_adapted"])["f1"].unstack("layer")
    assert (f1.loc[["CD3", "CD8"], "nimbus_adapted"] > f1.loc[["CD3", "CD8"], "nimbus"] + 0.05).all()
    lines = adata.varm["nimbus_adapted"]
    assert lines.loc["CD3", "offset"] > 0 > lines.loc["CD8", "offset"]
    assert lines["reason"].to_list() == ["", "", "no labels"] and lines["labels"].to_list() == [20, 20, 0]
    assert lines.loc["CD20", ["slope", "offset"]].to_list() == [1, 0] and np.isnan(lines.loc["CD20", "f1_after"])
    adapt(adata)
    assert adata.layers["nimbus_adapted"].tobytes() == after.tobytes()
    # Labels of other regions do not count.
    inside = (adata.obs["region"] == "a").to_numpy()
    adapt(adata, labels="gold", regions="a", key_added="some")
    adata.layers["gold"][~inside] = 1
    adapt(adata, labels="gold", regions="a", key_added="same")
    assert adata.layers["same"].tobytes() == adata.layers["some"].tobytes() and adata.uns["some"]["regions"] == ["a"]
    np.testing.assert_array_equal(adata.obs["some_fitted"], inside & np.isfinite(adata.layers["nimbus"]).any(axis=1))


def test_it_is_the_most_probable_line():
    offsets = [fit_line(np.full(n, 0.1), np.ones(n, bool))[1] for n in (0, 1, 5, 50)]
    assert offsets[0] == 0 and (np.diff(offsets) > 0).all() and offsets[1] < PRIOR[1]
    rng = np.random.default_rng(0)
    scores, positive = rng.random(12), rng.random(12) < 0.5

    def cost(log_slope, offset):
        p = expit(np.exp(log_slope) * logit(scores) + offset)
        prior = (log_slope / PRIOR[0]) ** 2 / 2 + (offset / PRIOR[1]) ** 2 / 2
        return prior - np.log(np.where(positive, p, 1 - p)).sum()

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
    labels = adata.layers["gold_training"][:, 0]
    used = np.flatnonzero(np.isfinite(labels))
    scores, positive, region = adata.layers["nimbus"][used, 0], labels[used] == 1, adata.obs["region"].iloc[used]
    fold = region.cat.codes.to_numpy()
    if unit == "cells":
        fold = np.empty(40, int)
        fold[np.argsort(positive, kind="stable")] = np.arange(40) % 5
    after = np.empty(40)
    for part in range(folds):
        out = fold == part
        after[out] = move(scores[out], *fit_line(scores[~out], positive[~out]))
    figures = adata.varm["nimbus_adapted"].loc["CD3"]
    loss = -np.log(np.where(positive, after, 1 - after)).mean()
    assert figures["held_out"] == unit and figures["log_loss_after"] == pytest.approx(loss, rel=1e-4)
    called = after >= 0.5
    assert figures["f1_after"] == pytest.approx(2 * (called & positive).sum() / (called.sum() + positive.sum()))
    losses = adata.varm["nimbus_adapted"]["log_loss_after"][["CD3", "CD8"]]
    assert adata.uns["nimbus_adapted"]["held_out"]["log_loss_after"] == pytest.approx(losses.mean())


def test_labels_that_are_undetermined_or_too_few():
    adata = table()
    training = adata.layers["gold_training"]
    some = np.flatnonzero(np.isfinite(training[:, 0]))[::5]
    training[np.flatnonzero(np.isnan(training[:, 0]))[:100], 0] = 0.5
    training[some, 0] = np.where(training[some, 0] == 1, 0.75, 0.25)
    training[training[:, 1] == 0, 1] = NAN
    one_class = r"'CD8' \(labels of one class: \d+ positive, 0 neg"
    for likely, labels in ((True, 20), (False, 16)):
        with pytest.warns(UserWarning, match=f"before using {one_class}"):
            adapt(adata, likely=likely)
        assert adata.varm["nimbus_adapted"].loc["CD3", "labels"] == labels
    training[:, 0] = NAN
    training[:3, 0] = 0
    with pytest.warns(UserWarning, match=rf"'CD3' \(too few labels: 0 positive, 3 negative\), {one_class}"):
        adapt(adata)


def test_metrics_say_when_they_are_asked_about_the_cells_used(from_disk, no_warning):
    adata = table()
    adapt(adata)
    with pytest.warns(UserWarning, match="no separation"):
        call_positive(adata, layer="nimbus_adapted")
    adata.uns["nimbus_calibrated"] = {"params": {"layer": "nimbus_adapted"}}
    adata.layers["nimbus_calibrated"] = adata.layers["nimbus_adapted"]
    adata = from_disk(adata)
    unused = adata[~adata.obs["nimbus_adapted_fitted"]].copy()
    match = r"Layer 'nimbus_adapted' was fitted on the cells of obs\['nimbus_adapted_fitted'\], and 1% .* other cells"
    # What was made from the adapted scores knows those cells as well.
    for layer in ("nimbus_adapted", "positive", "nimbus_calibrated"):
        with pytest.warns(UserWarning, match=match):
            marker_metrics(adata, layer)
        marker_metrics(unused, layer)
    # Layers that are made from each other end.
    adapt(adata, layer="positive")
    with pytest.warns(UserWarning, match="and 1% ") as caught:
        marker_metrics(adata, "nimbus_adapted")
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("tool", "settings", "error", "message"),
    [
        (calibrate, {"layer": "big"}, ValueError, r"outside \[0, 1\]"),
        (calibrate, {"regions": ["a", "x"]}, KeyError, r"names \['x'\], which .* has \['a', 'b', 'c', 'd'\]"),
        (calibrate, {"region_key": "x"}, KeyError, "no column 'x'"),
        (calibrate, {"layer": "mine", "key_added": "mine"}, ValueError, "`key_added` is 'mine', a layer that is need"),
        (calibrate, {"key_added": "big"}, ValueError, r"layers\['big'\], which `tl.calibrate` did not make"),
        (adapt, {"layer": "big"}, ValueError, r"outside \[0, 1\]"),
        (adapt, {"labels": "nobody"}, ValueError, "labels no cell"),
        (adapt, {"regions": []}, KeyError, r"`regions` names none; .* has \['a', 'b', 'c', 'd'\]"),
        (adapt, {"labels": "mine", "key_added": "mine"}, ValueError, "`key_added` is 'mine', a layer that is needed"),
        (adapt, {"labels": "gold", "regions": None}, ValueError, "the labels for evaluation: name the `regions`"),
        (adapt, {"labels": "elsewhere"}, ValueError, r"no cell with a score in region\(s\) \['a'\]"),
        (adapt, {"key_added": "other"}, ValueError, r"obs\['other_fitted'\], which `tl.adapt` did not make"),
        (calibrate, {"truth": "ones"}, ValueError, "0 negative"),
        (calibrate, {"truth": "elsewhere"}, ValueError, "there are 0 positive and 0 negative"),
        (calibrate, {"truth": "reverse"}, ValueError, "higher scores in positive"),
    ],
)
def test_what_is_not_allowed_changes_nothing(tool, settings, error, message):
    adata = table(300)
    gold = adata.layers["gold"]
    adata.layers["big"] = adata.layers["nimbus"] * 100
    adata.layers["nobody"], adata.layers["ones"] = np.full_like(gold, 0.5), np.ones_like(gold)
    adata.layers["elsewhere"] = np.where((adata.obs["region"] == "a").to_numpy()[:, None], NAN, gold)
    adata.layers["reverse"] = (adata.layers["nimbus"] < 0.3).astype(np.float32)
    adata.layers["mine"], adata.uns["mine"] = gold, {"tool": tool.__name__}
    adata.obs["other_fitted"] = 1
    layers = set(adata.layers)
    with pytest.raises(error, match=message):
        tool(adata, **{"regions": "a"} | settings)
    assert set(adata.layers) == layers and set(adata.uns) == {"mine"} and not adata.varm and adata.obs.shape[1] == 2


def test_a_large_table_is_copied_once_and_in_its_own_precision():
    adata = table(100_000)
    layers = {name: np.repeat(adata.layers[name], 10, axis=1) for name in ("nimbus", "gold_training")}
    big = AnnData(obs=adata.obs, layers=layers)
    tracemalloc.start()
    adapt(big)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * layers["nimbus"].nbytes
