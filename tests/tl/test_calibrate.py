"""Calibration on the truth of some regions, judged on the others."""

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from nimbus_sd.metrics import calibration_curve, calibration_error
from nimbus_sd.tl import calibrate

NAN = float("nan")


def table(n=3000, seed=0, shift=(1.5, -1.0)):
    """Two channels of three regions, whose scores are off by a shift of their logit."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(-1, 2, (n, 2))
    gold = (rng.random((n, 2)) < expit(evidence)).astype(np.float32)
    scores = expit(evidence + shift).astype(np.float32)
    return AnnData(
        np.zeros((n, 2), np.float32),
        obs=pd.DataFrame({"region": pd.Categorical(rng.choice(["a", "b", "c"], n))}, index=[str(i) for i in range(n)]),
        var=pd.DataFrame(index=["CD3", "CD8"]),
        layers={"nimbus": scores, "gold": gold},
    )


def others(adata):
    return adata[~adata.obs["region"].isin(["a", "b"])].copy()


def test_scores_become_probabilities_in_other_regions():
    adata = table()
    adata.layers["nimbus"][:20, 0] = NAN
    # One fit for a channel whose scores are too high and one whose are too low.
    with pytest.warns(UserWarning, match="The fit makes 'CD8' worse") as caught:
        calibrate(adata, regions=["a", "b"])
    assert len(caught) == 1 and caught[0].filename == __file__
    result = adata.layers["nimbus_calibrated"]
    assert result.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(result), np.isnan(adata.layers["nimbus"]))
    assert np.nanmin(result) >= 0 and np.nanmax(result) <= 1
    for before, after in zip(adata.layers["nimbus"].T, result.T, strict=True):
        order = np.argsort(before[np.isfinite(before)])
        assert (np.diff(after[np.isfinite(before)][order]) >= 0).all()
    errors = calibration_error(others(adata), ["nimbus", "nimbus_calibrated"])["ece"].unstack("layer")
    # Shifts of 1.5 and -1 in the logit cost 0.2 and 0.12. With 1000 cells to judge on, 0.03 of error are chance.
    assert errors.loc["all", "nimbus_calibrated"] < 0.05


def test_it_is_the_fit_of_sklearn_on_the_judged_cells_of_the_regions():
    adata = table()
    adata.layers["gold"][::7] = 0.5
    adata.layers["gold"][1::7] = NAN
    adata.layers["gold"][2::7] = np.where(adata.layers["gold"][2::7] == 1, 0.75, 0.25)
    calibrate(adata, regions="a", likely=False, key_added="sure")
    calibrate(adata, regions="a", key_added="likely")
    scores, gold = adata.layers["nimbus"].astype(float), adata.layers["gold"]
    inside = (adata.obs["region"] == "a").to_numpy()[:, None]
    for name, states in (("sure", (0, 1)), ("likely", (0, 0.25, 0.75, 1))):
        used = inside & np.isin(gold, states)
        isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores[used], gold[used] > 0.5)
        np.testing.assert_allclose(adata.layers[name].ravel(), isotonic.predict(scores.ravel()), atol=1e-5)
    entry = adata.uns["likely"]
    assert (
        entry["fitted_on"] == ["a"] and entry["cells"] == used.sum() and entry["positives"] == (gold[used] > 0.5).sum()
    )
    assert entry["params"] == {
        "layer": "nimbus",
        "truth": "gold",
        "likely": True,
        "region_key": "region",
    }


def test_truth_of_other_regions_does_not_count():
    one, other = table(), table()
    other.layers["gold"][(other.obs["region"] == "c").to_numpy()] = 1
    for adata in (one, other):
        calibrate(adata, regions=["a", "b"])
    np.testing.assert_array_equal(one.layers["nimbus_calibrated"], other.layers["nimbus_calibrated"])


def test_classes_that_are_apart():
    adata = table()
    adata.layers["nimbus"][:] = 0.2 + 0.5 * adata.layers["gold"]
    calibrate(adata, regions=["a", "b"])
    assert calibration_error(others(adata), "nimbus_calibrated").loc["all", "ece"] < 0.01


def test_metrics_say_when_they_are_asked_about_the_regions_used_to_fit(no_warning):
    adata = table(shift=(1.5, 1.5))
    calibrate(adata, regions=["a", "b"])
    for metric in (calibration_error, calibration_curve):
        with pytest.warns(UserWarning, match=r"fitted on the truth of region\(s\) 'a', 'b', and 6\d%") as caught:
            metric(adata, ["nimbus", "nimbus_calibrated"])
        assert len(caught) == 1 and caught[0].filename == __file__
        metric(others(adata), "nimbus_calibrated")
        metric(adata, "nimbus")


def test_nothing_left_to_judge_on_is_said():
    with pytest.warns(UserWarning, match="none is left to judge it on"):
        calibrate(table(), regions=["a", "b", "c"])


def test_survives_the_disk(tmp_path):
    adata = table(300)
    calibrate(adata, regions=["a"])
    adata.write_h5ad(tmp_path / "table.h5ad")
    back = anndata.read_h5ad(tmp_path / "table.h5ad")
    with pytest.warns(UserWarning, match=r"region\(s\) 'a', and \d+%"):
        calibration_error(back, "nimbus_calibrated")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer": "x"}, KeyError, "no layer 'x'"),
        ({"regions": ["a", "d"]}, KeyError, r"no region\(s\) \['d'\]; it has \['a', 'b', 'c'\]"),
        ({"region_key": "x"}, KeyError, "no column 'x'"),
        ({"key_added": "nimbus"}, ValueError, "`key_added` is 'nimbus'"),
        ({"layer": "big"}, ValueError, r"outside \[0, 1\]"),
        ({"truth": "ones"}, ValueError, "0 negative"),
        ({"truth": "nobody"}, ValueError, "labels no cell"),
        ({"truth": "elsewhere"}, ValueError, "there are 0 positive and 0 negative"),
        ({"truth": "reverse"}, ValueError, "higher scores in the positive ones"),
    ],
)
def test_what_is_not_allowed_changes_nothing(settings, error, message):
    adata = table(300)
    gold = adata.layers["gold"]
    more = {
        "big": adata.layers["nimbus"] * 100,
        "ones": np.ones_like(gold),
        "nobody": np.full_like(gold, 0.5),
        "elsewhere": np.where((adata.obs["region"] == "a").to_numpy()[:, None], NAN, gold),
        "reverse": (adata.layers["nimbus"] < 0.3).astype(np.float32),
    }
    for name, values in more.items():
        adata.layers[name] = values
    with pytest.raises(error, match=message):
        calibrate(adata, **{"regions": ["a"]} | settings)
    assert "nimbus_calibrated" not in adata.layers and "nimbus_calibrated" not in adata.uns


def test_regions_may_be_numbers():
    adata = table()
    adata.obs["region"] = adata.obs["region"].cat.rename_categories({"a": 0, "b": 1, "c": 2})
    calibrate(adata, regions=[0, 1])
    assert list(adata.uns["nimbus_calibrated"]["fitted_on"]) == ["0", "1"]
    with pytest.raises(KeyError, match=r"`regions` names none; it has \['0', '1', '2'\]"):
        calibrate(adata, regions=[])


def test_what_others_made_is_not_overwritten(no_warning):
    adata = table(shift=(1.5, 1.5))
    adata.uns["spatialdata_attrs"] = {"region_key": "region"}
    with pytest.raises(ValueError, match=r"uns\['spatialdata_attrs'\], which `tl.calibrate` did not make"):
        calibrate(adata, regions="a", key_added="spatialdata_attrs")
    calibrate(adata, regions="a")
    first = adata.layers["nimbus_calibrated"].copy()
    calibrate(adata, regions=["a", "b"])
    assert (adata.layers["nimbus_calibrated"] != first).any()


def test_channels_of_one_name_have_a_row_each():
    adata = table()
    adata.var_names = ["CD3", "CD3"]
    assert list(calibration_error(adata).index) == ["CD3", "CD3", "all"]
