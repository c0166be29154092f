"""Calls from scores, their thresholds, and the markers that should not be called."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import read_zarr

import nimbus_sd as ns
from nimbus_sd.tl import call_positive
from nimbus_sd.tl.auto_threshold import auto_threshold

NAN = float("nan")
RANGES = {
    "median": {"low": 0.0, "high": 0.5, "false_alarm": 0.0125},
    "cv": {"low": 0.2, "high": 8.0, "false_alarm": 0.02},
}


def table(n=400, channels=("CD3", "CD8", "CD20")):
    """Clear scores, and images like those of the training."""
    rng = np.random.default_rng(0)
    shape = n, len(channels)
    positive = rng.random(shape) < 0.3
    scores = np.where(positive, rng.beta(20, 3, shape), rng.beta(2, 30, shape)).astype(np.float32)
    expression = np.where(positive, rng.gamma(8, 5, shape), rng.gamma(2, 3, shape)).astype(np.float32)
    return AnnData(
        expression.copy(),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(n)]),
        var=pd.DataFrame(index=list(channels)),
        layers={"nimbus": scores, "integrated_expression": expression},
        varm={"nimbus_normalization": pd.DataFrame({"factor": [100.0] * len(channels)}, index=list(channels))},
        uns={"nimbus": {"model": "compact", "ranges": RANGES}},
    )


def test_calls_at_or_above_the_threshold_and_nothing_where_there_is_no_score(no_warning):
    adata = table()
    adata.layers["nimbus"][:4, 0] = [0.5, 0.4999, NAN, 0.9]
    before = adata.layers["nimbus"].copy()
    call_positive(adata)
    calls = adata.layers["positive"]
    assert calls.dtype == np.float32
    np.testing.assert_array_equal(calls[:4, 0], [1, 0, NAN, 1])
    np.testing.assert_array_equal(calls[4:], before[4:] >= 0.5)
    cuts = adata.varm["positive"]
    assert list(cuts.columns) == ["threshold", "low", "high", "share_positive", "reason"]
    assert (cuts[["threshold", "low", "high"]] == 0.5).all(axis=None) and (cuts["reason"] == "given").all()
    np.testing.assert_allclose(cuts["share_positive"], np.nanmean(calls, axis=0))
    assert (adata.var["positive_flag"] == "").all()
    assert adata.uns["positive"]["params"] == {"layer": "nimbus", "threshold": 0.5, "n_boot": 0}
    np.testing.assert_array_equal(adata.layers["nimbus"], before)


def test_thresholds_by_channel_and_another_key(no_warning):
    adata = table()
    call_positive(adata, threshold={"CD8": 0.9, "CD3": 0.1, "CD20": np.float32(0.25)}, key_added="called")
    assert adata.varm["called"]["threshold"].to_list() == pytest.approx([0.1, 0.9, 0.25])
    np.testing.assert_array_equal(adata.layers["called"], adata.layers["nimbus"] >= np.float32([0.1, 0.9, 0.25]))
    assert set(adata.layers) - {None} == {"nimbus", "integrated_expression", "called"} and "called_flag" in adata.var
    call_positive(adata, threshold={"CD8": 0.9}, key_added="others")
    assert adata.varm["others"]["threshold"].to_list() == [0.5, 0.9, 0.5]
    for auto in ({"CD8": 0.9, "*": "auto"}, {"CD3": "auto", "*": 0.9, "CD20": "auto"}):
        call_positive(adata, threshold="auto", key_added="auto")
        call_positive(adata, threshold=auto, key_added="others")
        automatic = [name for name in adata.var_names if name != "CD8"]
        found, expected = (adata.varm[key].loc[automatic].astype({"reason": str}) for key in ("others", "auto"))
        pd.testing.assert_frame_equal(found, expected)
        assert adata.varm["others"].loc["CD8", ["threshold", "low", "high", "reason"]].to_list() == [0.9] * 3 + [
            "given"
        ]
    call_positive(adata, threshold=adata.varm["called"]["threshold"])
    np.testing.assert_array_equal(adata.layers["positive"], adata.layers["called"])
    call_positive(adata, layer="integrated_expression", threshold=30)
    np.testing.assert_array_equal(adata.layers["positive"], adata.layers["integrated_expression"] >= 30)
    # Calls are those that metrics judge, also where float32 is not the number itself.
    for cut in (0.7, 0.9):
        adata.layers["nimbus"][0] = np.float32(cut)
        call_positive(adata, threshold=cut)
        assert (adata.layers["positive"][0] == 1).all()
        adata.layers["gold"] = adata.layers["positive"]
        assert (ns.metrics.marker_metrics(adata, threshold=cut)["f1"] == 1).all()


def test_auto_gives_each_marker_its_own_threshold(no_warning):
    adata = table()
    adata.layers["nimbus"][:, 1] *= 0.4
    alone = adata[:, :1].copy()
    call_positive(adata, threshold="auto", rng=3)
    cuts = adata.varm["positive"]
    assert (cuts["reason"] == "valley between two modes").all()
    assert (cuts["low"] <= cuts["threshold"]).all() and (cuts["threshold"] <= cuts["high"]).all()
    assert cuts.loc["CD8", "high"] < 0.4 < cuts.loc["CD3", "threshold"]
    assert cuts["threshold"].to_list() == [auto_threshold(scores).threshold for scores in adata.layers["nimbus"].T]
    # A channel alone gets what it gets among others.
    call_positive(alone, threshold="auto", rng=3)
    assert alone.varm["positive"].loc["CD3"].to_list() == cuts.loc["CD3"].to_list()
    call_positive(adata, threshold="auto", n_boot=0)
    assert adata.varm["positive"][["low", "high"]].isna().all(axis=None)


def test_flags_are_named_with_their_reason():
    adata = table(channels=("fine", "vague", "dark", "unscored", "bright", "dense", "rare", "everywhere", "DAPI"))
    rng = np.random.default_rng(1)
    expression, scores = adata.layers["integrated_expression"], adata.layers["nimbus"]
    scores[:, 1] = rng.beta(6, 5, 400)
    expression[:, 2], scores[:, 2] = 0, 0.01
    scores[:, 3] = NAN
    expression[:8, 4] = 130
    expression[:, 5] = np.linspace(60, 80, 400)
    scores[:, 6] = rng.beta(1, 60, 400)
    scores[0, 6] = 0.9
    scores[:, 7:] = np.where(np.arange(400) < 8, 0.02, 0.97)[:, None]
    with pytest.warns(UserWarning) as caught:
        call_positive(adata)
    flags = dict(adata.var["positive_flag"])
    parts = {
        "vague": "look: no separation, ", "dark": "stop: empty, no cell has any signal",
        "unscored": "stop: empty, no cell has a score", "bright": "look: saturated, 2% of the cells",
        "dense": "look: far from the training images, the cells are brighter and hardly any cell stands out",
        "everywhere": "look: nearly all cells are positive (98%)", "rare": "note: nearly none, 1 of 400 cells",
    }  # fmt: skip
    assert {name for name, flag in flags.items() if flag} == set(parts)
    assert all(part in flags[name] for name, part in parts.items())
    # A stain of every cell is not flagged for being that.
    assert flags["DAPI"] == ""
    assert len(caught) == 1 and caught[0].filename == __file__
    assert all(f"'{name}' ({flags[name]})" in str(caught[0].message) for name in parts if name != "rare")
    assert "rare" not in str(caught[0].message) and "stop" in str(caught[0].message).split("look")[0]
    assert np.isnan(adata.varm["positive"].loc["unscored", "share_positive"])
    # They do not depend on where the threshold comes from.
    with pytest.warns(UserWarning, match="'vague' .look: no separation"):
        call_positive(adata, threshold="auto")
    assert dict(adata.var["positive_flag"]) == flags


def test_a_call_that_hangs_on_the_threshold_is_flagged():
    adata = table(160)
    rng = np.random.default_rng(0)
    # A third group between the two: the threshold lies on this side of it or on that.
    adata.layers["nimbus"][:, 1] = np.concatenate([rng.beta(4, 30, 60), rng.beta(20, 20, 40), rng.beta(30, 4, 60)])
    with pytest.warns(UserWarning):
        call_positive(adata, threshold="auto")
    cuts, flags = adata.varm["positive"], adata.var["positive_flag"]
    shares = [(adata.layers["nimbus"][:, 1] >= cuts.loc["CD8", end]).mean() for end in ("high", "low")]
    assert shares[1] - shares[0] > 0.1
    assert f"unstable, from {shares[0]:.0%} to {shares[1]:.0%} of the cells" in flags["CD8"]
    assert "unstable" not in flags["CD3"]


def test_scores_are_compared_with_the_range_of_their_source(no_warning, caplog):
    adata = table()
    adata.layers["integrated_expression"][:, 0] = 70
    adata.layers["nimbus_calibrated"] = adata.layers["nimbus"] ** 2
    adata.uns["nimbus_calibrated"] = {"params": {"layer": "nimbus"}}
    with pytest.warns(UserWarning, match="far from the training images"):
        call_positive(adata, layer="nimbus_calibrated")
    assert adata.uns["positive"]["trained_range"] == "compared"
    del adata.uns["nimbus"]
    with caplog.at_level("INFO", logger="nimbus_sd"):
        call_positive(adata)
        del adata.layers["integrated_expression"], adata.varm["nimbus_normalization"]
        call_positive(adata)
    assert adata.uns["positive"]["trained_range"] == "not known" and (adata.var["positive_flag"] == "").all()
    assert "does not say" in caplog.text and "added layers['positive']" in caplog.text


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        *(({"threshold": cut}, ValueError, f"`threshold` is {cut!r}") for cut in ("otsu", NAN, True, None, 50, -1)),
        ({"threshold": {"CD3": 0.5, "CD8": 5, "CD20": 0.5}}, ValueError, "`threshold` is 5, but"),
        ({"threshold": {"cd3": 0.5}}, KeyError, r"names 'cd3'; the channels are 'CD3', 'CD8', 'CD20', and '\*' is for"),
        (
            {"threshold": {"CD3": "otsu"}},
            ValueError,
            "`threshold` is 'otsu'; it must be a number, 'auto', or a mapping",
        ),
        ({"threshold": {"*": True}}, ValueError, "`threshold` is True"),
        ({"layer": "integrated_expression", "threshold": "auto"}, ValueError, r"scores in \[0, 1\]; .*'CD3', 'CD8"),
        ({"key_added": "nimbus_normalization"}, ValueError, r"varm\['nimbus_normalization'\], which .* did not make"),
    ],
)
def test_what_is_not_allowed_changes_nothing(settings, error, message):
    adata = table()
    with pytest.raises(error, match=message):
        call_positive(adata, **settings)
    assert "positive" not in adata.layers and "positive" not in adata.uns and adata.var.empty


@pytest.mark.filterwarnings("ignore")
def test_a_table_with_calls_takes_further_channels(tissue, make_sdata, small, tmp_path):
    sdata = make_sdata(*tissue((60, 60), 2, seed=1))
    settings = {"model": small, "tta": False, "pixel_size": 0.5, "progress": False}
    call_positive(ns.predict(sdata, channels=["DAPI"], **settings))
    adata = ns.predict(sdata, channels=["CD3"], **settings)
    assert np.isnan(adata.varm["positive"].loc["CD3", "threshold"]) and pd.isna(adata.var.loc["CD3", "positive_flag"])
    sdata.write(tmp_path / "one.zarr")
    back = read_zarr(tmp_path / "one.zarr").tables["table"]
    call_positive(back)
    assert np.isfinite(back.varm["positive"].loc["CD3", "threshold"])


@pytest.mark.filterwarnings("ignore")
def test_results_survive_the_disk(from_disk):
    adata = table()
    adata.layers["nimbus"][:, 0] = NAN
    call_positive(adata, threshold="auto", n_boot=10)
    back = from_disk(adata)
    for _ in range(2):
        np.testing.assert_array_equal(back.layers["positive"], adata.layers["positive"])
        pd.testing.assert_frame_equal(back.varm["positive"], adata.varm["positive"])
        assert back.var["positive_flag"].to_list() == adata.var["positive_flag"].to_list()
        call_positive(back, threshold="auto", n_boot=10)


def test_a_photograph_of_a_stained_section_is_no_panel():
    for names in (("red", "green", "blue"), ("0", "1", "2")):
        adata = table(channels=names)
        # By name, or as all channels are bright in the same cells.
        if names[0] == "0":
            adata.layers["integrated_expression"] = adata.layers["integrated_expression"][:, [0]] * [[1, 2, 1.5]]
        with pytest.warns(UserWarning, match="stop: the three channels look like one photograph"):
            call_positive(adata)
