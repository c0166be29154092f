"""Calls from scores, their thresholds, and the markers that should not be called."""

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import read_zarr

import nimbus_sd as ns
from nimbus_sd.metrics.auto_threshold import auto_threshold
from nimbus_sd.tl import call_positive

NAN = float("nan")
RANGES = {
    "median": {"low": 0.0, "high": 0.5, "false_alarm": 0.0125},
    "cv": {"low": 0.2, "high": 8.0, "false_alarm": 0.02},
}


def table(n=400, channels=("CD3", "CD8", "CD20"), ranges=RANGES):
    """Clear scores, and images like those of the training."""
    rng = np.random.default_rng(0)
    shape = n, len(channels)
    positive = rng.random(shape) < 0.3
    scores = np.where(positive, rng.beta(20, 3, shape), rng.beta(2, 30, shape)).astype(np.float32)
    expression = np.where(positive, rng.gamma(8, 5, shape), rng.gamma(2, 3, shape)).astype(np.float32)
    adata = AnnData(
        expression.copy(),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(n)]),
        var=pd.DataFrame(index=list(channels)),
        layers={"nimbus": scores, "integrated_expression": expression},
        varm={"nimbus_normalization": pd.DataFrame({"factor": [100.0] * len(channels)}, index=list(channels))},
        uns={"nimbus": {"model": "compact"} | ({"ranges": ranges} if ranges else {})},
    )
    return adata


def test_calls_at_or_above_the_threshold_and_nothing_where_there_is_no_score(no_warning):
    adata = table()
    adata.layers["nimbus"][:4, 0] = [0.5, 0.4999, NAN, 0.9]
    before = adata.copy()
    assert call_positive(adata) is None
    calls = adata.layers["positive"]
    assert calls.dtype == np.float32
    np.testing.assert_array_equal(calls[:4, 0], [1, 0, NAN, 1])
    np.testing.assert_array_equal(calls[4:], before.layers["nimbus"][4:] >= 0.5)
    found = adata.varm["positive"]
    assert list(found.columns) == ["threshold", "low", "high", "share_positive", "reason"]
    assert (found[["threshold", "low", "high"]] == 0.5).all(axis=None) and (found["reason"] == "given").all()
    np.testing.assert_allclose(found["share_positive"], np.nanmean(calls, axis=0))
    assert (adata.var["positive_flag"] == "").all()
    assert adata.uns["positive"] == {
        "tool": "call_positive",
        "params": {"layer": "nimbus", "threshold": 0.5, "n_boot": 0},
        "trained_range": "compared",
    }
    np.testing.assert_array_equal(adata.layers["nimbus"], before.layers["nimbus"])


def test_thresholds_by_channel_and_another_key():
    adata = table()
    call_positive(adata, threshold={"CD8": 0.9, "CD3": 0.1, "CD20": np.float32(0.25)}, key_added="called")
    assert adata.varm["called"]["threshold"].to_list() == pytest.approx([0.1, 0.9, 0.25])
    np.testing.assert_array_equal(adata.layers["called"], adata.layers["nimbus"] >= np.float32([0.1, 0.9, 0.25]))
    assert set(adata.layers) - {None} == {"nimbus", "integrated_expression", "called"} and "called_flag" in adata.var


def test_auto_gives_each_marker_its_own_threshold(no_warning):
    adata = table()
    adata.layers["nimbus"][:, 1] *= 0.4
    call_positive(adata, threshold="auto", rng=3)
    found = adata.varm["positive"]
    assert (found["reason"] == "valley between two modes").all()
    assert (found["low"] <= found["threshold"]).all() and (found["threshold"] <= found["high"]).all()
    assert found.loc["CD8", "high"] < 0.4 < found.loc["CD3", "threshold"]
    assert found["threshold"].to_list() == [auto_threshold(scores).value for scores in adata.layers["nimbus"].T]
    again = table()
    again.layers["nimbus"][:, 1] *= 0.4
    call_positive(again, threshold="auto", rng=3)
    pd.testing.assert_frame_equal(again.varm["positive"], found)
    call_positive(again, threshold="auto", n_boot=0)
    assert again.varm["positive"][["low", "high"]].isna().all(axis=None)


def test_a_channel_alone_gets_the_threshold_that_it_gets_among_others():
    among, alone = table(), table()[:, :1].copy()
    for adata in (among, alone):
        call_positive(adata, threshold="auto")
    pd.testing.assert_series_equal(
        among.varm["positive"].loc["CD3"].drop("reason"), alone.varm["positive"].loc["CD3"].drop("reason")
    )


def test_flags_are_named_with_their_reason():
    adata = table(channels=("fine", "vague", "dark", "unscored", "bright", "dense", "rare"))
    rng = np.random.default_rng(1)
    expression, scores = adata.layers["integrated_expression"], adata.layers["nimbus"]
    scores[:, 1] = rng.beta(6, 5, 400)
    expression[:, 2], scores[:, 2] = 0, 0.01
    scores[:, 3] = NAN
    expression[:8, 4] = 130
    expression[:, 5] = np.linspace(60, 80, 400)
    scores[:, 6] = rng.beta(1, 60, 400)
    with pytest.warns(UserWarning) as caught:
        call_positive(adata)
    flags = dict(adata.var["positive_flag"])
    assert flags["fine"] == "" and flags["rare"] == ""
    assert flags["vague"].startswith("no separation: ") and "between 0.25 and 0.75" in flags["vague"]
    assert flags["dark"] == "empty: no cell has any signal"
    assert flags["unscored"] == "empty: no cell has a score"
    assert flags["bright"] == "saturated: 2% of the cells are as bright as the normalisation factor, or brighter"
    assert flags["dense"].count("unlike the training: ") == 2
    assert "median 0.7 is above 0.5 (1.2% of good images are)" in flags["dense"]
    message = str(caught[0].message)
    assert len(caught) == 1 and caught[0].filename == __file__
    for name, flag in flags.items():
        assert (f"'{name}' ({flag})" in message) == bool(flag)
    assert np.isnan(adata.varm["positive"].loc["unscored", "share_positive"])


def test_flags_do_not_depend_on_where_the_threshold_comes_from():
    given, auto = table(), table()
    for adata, threshold in ((given, 0.3), (auto, "auto")):
        adata.layers["nimbus"][:, 0] = np.random.default_rng(1).beta(6, 5, 400)
        with pytest.warns(UserWarning, match="'CD3' .no separation"):
            call_positive(adata, threshold=threshold)
    assert given.var["positive_flag"].to_list() == auto.var["positive_flag"].to_list()


def test_a_model_that_does_not_tell_its_range_is_said_to(no_warning, caplog):
    adata = table(ranges=None)
    adata.layers["integrated_expression"][:, 0] = 70
    with caplog.at_level("INFO", logger="nimbus_sd"):
        call_positive(adata)
    assert adata.uns["positive"]["trained_range"] == "not known" and "does not say" in caplog.text
    assert "added layers['positive']" in caplog.text
    without = table()
    del without.varm["nimbus_normalization"], without.layers["integrated_expression"], without.uns["nimbus"]
    call_positive(without)
    assert without.uns["positive"]["trained_range"] == "not known" and (without.var["positive_flag"] == "").all()


def test_calibrated_scores_are_compared_with_the_range_of_their_source():
    adata = table()
    adata.layers["integrated_expression"][:, 0] = 70
    adata.layers["nimbus_calibrated"] = adata.layers["nimbus"] ** 2
    adata.uns["nimbus_calibrated"] = {"params": {"layer": "nimbus"}}
    with pytest.warns(UserWarning, match="unlike the training"):
        call_positive(adata, layer="nimbus_calibrated")
    assert adata.uns["positive"]["trained_range"] == "compared"


def test_other_values_take_given_thresholds_only(no_warning):
    adata = table()
    call_positive(adata, layer="integrated_expression", threshold=30)
    np.testing.assert_array_equal(adata.layers["positive"], adata.layers["integrated_expression"] >= 30)
    with pytest.raises(ValueError, match=r"scores in \[0, 1\], but layers\['integrated_expression'\] has other values"):
        call_positive(adata, layer="integrated_expression", threshold="auto")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer": "x"}, KeyError, "no layer 'x'"),
        ({"threshold": "otsu"}, ValueError, "`threshold` is 'otsu'"),
        ({"threshold": NAN}, ValueError, "`threshold` is nan"),
        ({"threshold": True}, ValueError, "`threshold` is True"),
        ({"threshold": None}, ValueError, "`threshold` is None"),
        ({"threshold": 50}, ValueError, r"`threshold` is 50, but all values of layers\['nimbus'\] are in \[0, 1\]"),
        ({"threshold": -1}, ValueError, "`threshold` is -1"),
        ({"threshold": {"CD3": 0.5, "CD8": 5, "CD20": 0.5}}, ValueError, "`threshold` is 5, but"),
        ({"threshold": {"CD3": 0.5}}, KeyError, r"lacks the channel\(s\) \['CD8', 'CD20'\]"),
        ({"threshold": {"CD3": 0.5, "CD8": 0.5, "CD20": "auto"}}, ValueError, "`threshold` is 'auto'"),
        ({"key_added": "nimbus"}, ValueError, "`key_added` is 'nimbus'"),
        ({"key_added": "gold"}, ValueError, "`key_added` is 'gold'"),
        ({"key_added": "nimbus_normalization"}, ValueError, r"varm\['nimbus_normalization'\], which .* did not make"),
        ({"threshold": "auto", "key_added": "nimbus"}, ValueError, "`key_added` is 'nimbus'"),
    ],
)
def test_what_is_not_allowed_changes_nothing(settings, error, message):
    adata = table()
    with pytest.raises(error, match=message):
        call_positive(adata, **settings)
    assert "positive" not in adata.layers and "positive" not in adata.uns and adata.var.empty


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_results_survive_the_disk(tmp_path, form):
    adata = table()
    adata.layers["nimbus"][:, 0] = NAN
    call_positive(adata, threshold="auto")
    path = tmp_path / f"table.{form}"
    getattr(adata, f"write_{form}")(path)
    back = getattr(anndata, f"read_{form}")(path)
    np.testing.assert_array_equal(back.layers["positive"], adata.layers["positive"])
    pd.testing.assert_frame_equal(back.varm["positive"], adata.varm["positive"])
    assert back.var["positive_flag"].to_list() == adata.var["positive_flag"].to_list()
    assert back.uns["positive"]["params"]["threshold"] == "auto"
    call_positive(back, threshold="auto")
    pd.testing.assert_frame_equal(back.varm["positive"], adata.varm["positive"])


@pytest.mark.filterwarnings("ignore")
def test_a_table_with_calls_takes_further_channels_and_can_be_stored(tissue, make_sdata, small, tmp_path):
    image, labels = tissue((60, 60), 2, seed=1)
    sdata = make_sdata(image, labels)
    settings = {"model": small, "tta": False, "pixel_size": 0.5, "progress": False}
    call_positive(ns.predict(sdata, channels=["DAPI"], **settings))
    adata = ns.predict(sdata, channels=["CD3"], **settings)
    assert np.isnan(adata.varm["positive"].loc["CD3", "threshold"]) and pd.isna(adata.var.loc["CD3", "positive_flag"])
    sdata.write(tmp_path / "one.zarr")
    back = read_zarr(tmp_path / "one.zarr").tables["table"]
    call_positive(back)
    assert np.isfinite(back.varm["positive"].loc["CD3", "threshold"])


@pytest.mark.parametrize("threshold", [0.7, 0.9, 0.1])
def test_calls_are_those_that_metrics_judge(threshold, no_warning):
    adata = table()
    adata.layers["nimbus"][0] = np.float32(threshold)
    call_positive(adata, threshold=threshold)
    assert (adata.layers["positive"][0] == 1).all()
    adata.layers["gold"] = adata.layers["positive"]
    assert (ns.metrics.marker_metrics(adata, threshold=threshold)["f1"] == 1).all()


def test_thresholds_may_come_as_the_table_that_was_stored(no_warning):
    adata = table()
    call_positive(adata, threshold="auto")
    first = adata.layers["positive"].copy()
    call_positive(adata, threshold=adata.varm["positive"]["threshold"], key_added="again")
    np.testing.assert_array_equal(adata.layers["again"], first)


def test_a_call_that_hangs_on_the_threshold_is_flagged():
    adata = table(160)
    rng = np.random.default_rng(0)
    # A third group between the two: the threshold lies on this side of it or on that.
    adata.layers["nimbus"][:, 1] = np.concatenate([rng.beta(4, 30, 60), rng.beta(20, 20, 40), rng.beta(30, 4, 60)])
    with pytest.warns(UserWarning):
        call_positive(adata, threshold="auto")
    found, flags = adata.varm["positive"], adata.var["positive_flag"]
    shares = [(adata.layers["nimbus"][:, 1] >= found.loc["CD8", end]).mean() for end in ("high", "low")]
    assert shares[1] - shares[0] > 0.1
    assert f"unstable: from {shares[0]:.0%} to {shares[1]:.0%} of the cells" in flags["CD8"]
    assert "unstable" not in flags["CD3"]
