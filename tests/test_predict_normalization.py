"""Normalisation through predict: measured, given, taken from an earlier run; channels that cannot be scored."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scoring
from scoring import FACTORS

import nimbus_sd as ns
from nimbus_sd.models import PUBLISHED, save

predict = partial(scoring.predict, normalization=None)


@pytest.fixture
def arrays(tissue):
    """The second field of view is three times as bright."""
    first, second = tissue((90, 80), 3, seed=1), tissue((60, 100), 3, seed=2)
    return {"a": first[0], "b": second[0] * 3}, {"a_cells": first[1], "b_cells": second[1]}


@pytest.mark.parametrize("rule", ["mean_of_regions", "pooled"])
def test_the_cards_rule_and_quantile(arrays, make_sdata, deep_network, naive_scores, tmp_path, rule, no_warning):
    card = replace(PUBLISHED, name="mine", root_filters=2, rule=rule, quantile=0.9)
    save(deep_network, card, tmp_path / "mine.safetensors")
    adata = predict(make_sdata(*arrays), tmp_path / "mine.safetensors")
    images, labels = arrays
    factors = []
    for c in range(3):
        positive = [image[c][image[c] > 0] for image in images.values()]
        of_regions = [np.quantile(pixels, 0.9) for pixels in positive]
        pooled = np.quantile(np.concatenate(positive), 0.9)
        factors.append(np.mean(of_regions) if rule == "mean_of_regions" else pooled)
        found = adata.varm["nimbus_normalization"].iloc[c]
        np.testing.assert_allclose(found, [*of_regions, factors[-1]], rtol=1e-12)
    assert list(adata.varm["nimbus_normalization"].columns) == ["a_cells", "b_cells", "factor"]
    assert adata.uns["nimbus"]["normalization"] == rule
    for key in ("a", "b"):
        scores = adata[adata.obs["region"] == f"{key}_cells"].layers["nimbus"]
        expected = naive_scores(deep_network, images[key], labels[f"{key}_cells"], factors, 0.5)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("rule", ["compact", "nimbus"])
@pytest.mark.parametrize(
    "change, named",
    [
        (lambda image: image / 65_535, "b_cells"),
        (lambda image: image / np.float32(257), "b_cells"),
        (lambda image: (image * 16).astype(np.uint16), "b_cells"),
        (lambda image: image * 3, None),
        (lambda image: np.stack([image[0], *np.random.default_rng(0).poisson(1, image[1:].shape)]), None),
    ],
    ids=["0 to 1", "8 bit", "12 bit", "three times", "markers are not stained"],
)
def test_a_region_on_another_scale_is_named(tissue, make_sdata, small, rule, change, named):
    fovs = {key: tissue((90, 80), 3, seed=seed) for seed, key in enumerate("abcd", 1)}
    images = {key: change(image) if key == "b" else image for key, (image, _) in fovs.items()}
    sdata = make_sdata(images, {f"{key}_cells": labels for key, (_, labels) in fovs.items()})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict(sdata, "compact" if rule == "compact" else small)
    found = [str(warning.message) for warning in caught if "another scale" in str(warning.message)]
    assert len(found) == bool(named)
    assert not named or (f"labels {named!r} (" in found[0] and "a_cells" not in found[0])
    # Factors that are given measure no level, but cells do.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict(sdata, small, normalization=dict.fromkeys(sdata.tables["table"].var_names, 300))
    given = [str(warning.message) for warning in caught if "another scale" in str(warning.message)]
    assert len(given) == bool(named) and (not named or f"labels {named!r} (" in given[0])


@pytest.mark.parametrize("form", ["mapping", "series", "varm"])
def test_factors_of_an_earlier_run(arrays, make_sdata, small, form, no_warning):
    measured = predict(make_sdata(*arrays), small)
    factors = measured.varm["nimbus_normalization"]
    given = {"mapping": factors["factor"].to_dict(), "series": factors["factor"][::-1], "varm": factors}[form]
    channels = ["CD20", "DAPI"]
    again = predict(make_sdata(*arrays), small, normalization=given, channels=channels)
    np.testing.assert_allclose(again.layers["nimbus"], measured[:, channels].layers["nimbus"], atol=1e-5, rtol=0)
    assert again.varm["nimbus_normalization"]["factor"].equals(factors.loc[channels, "factor"])


@pytest.mark.parametrize(
    "normalization, error, words",
    [
        ({"DAPI": 1, "CD20": 2}, KeyError, "'CD3'; it has 'DAPI', 'CD20'"),
        (pd.Series({"cd3": 1.0}), KeyError, "'DAPI', 'CD3', 'CD20'; it has 'cd3'"),
        (pd.DataFrame({"f": [1.0]}, index=["DAPI"]), ValueError, "needs one named 'factor'"),
        ({"DAPI": 1, "CD3": -2, "CD20": np.inf}, ValueError, r"'CD3' \(-2\), 'CD20' \(inf\) is not between"),
        ({"DAPI": 1e-40, "CD3": 1e-300, "CD20": 1e39}, ValueError, r"\(1e-40\), 'CD3' \(1e-300\), 'CD20' \(1e\+39\)"),
        (3.0, TypeError, "`normalization` is 3.0; pass a factor for each channel"),
        ({"DAPI": 1, "CD3": "a", "CD20": 2}, ValueError, "of channel 'CD3' is 'a'; give a number"),
        (pd.DataFrame({"factor": [1.0, 2]}, index=["CD3", "CD3"]), ValueError, "names channel.* 'CD3' more than once"),
    ],
)
def test_factors_that_do_not_do(arrays, make_sdata, small, normalization, error, words):
    sdata = make_sdata(*arrays)
    with pytest.raises(error, match=words):
        predict(sdata, small, normalization=normalization)
    assert not sdata.tables


def assert_only_cd3_is_nan(adata):
    assert np.isnan(adata[:, "CD3"].layers["nimbus"]).all()
    assert np.isfinite(adata[:, ["DAPI", "CD20"]].layers["nimbus"]).all()
    assert np.isnan(adata.varm["nimbus_normalization"].loc["CD3", "factor"])


@pytest.mark.parametrize("normalization", [None, FACTORS], ids=["measured", "given"])
@pytest.mark.parametrize("dtype, value", [("uint16", 0), ("float32", -1.5), ("float32", np.nan)])
@pytest.mark.filterwarnings("ignore:There are")
def test_a_channel_empty_in_all_regions_is_not_scored(arrays, make_sdata, small, normalization, dtype, value):
    images, labels = arrays
    images = {key: image.astype(dtype) for key, image in images.items()}
    for image in images.values():
        image[1] = value
    with pytest.warns(UserWarning, match=r"No pixel above 0 in channel\(s\) 'CD3': their scores are NaN"):
        adata = predict(make_sdata(images, labels), small, normalization=normalization)
    assert_only_cd3_is_nan(adata)


@pytest.mark.parametrize("normalization", [None, FACTORS], ids=["measured", "given"])
def test_a_channel_with_light_in_one_region_and_outside_of_all_cells_is_scored(
    arrays, make_sdata, small, normalization
):
    images, labels = arrays
    images["a"][1] = np.where(labels["a_cells"] == 0, 9, 0)
    images["b"][1] = 0
    with pytest.warns(UserWarning, match="Most of the signal lies outside the masks"):
        adata = predict(make_sdata(images, labels), small, normalization=normalization)
    assert (adata[:, "CD3"].layers["integrated_expression"] == 0).all()
    assert np.isfinite(adata.layers["nimbus"]).all()
    assert adata.varm["nimbus_normalization"].loc["CD3", "factor"] == (9 if normalization is None else 100)


def test_warnings_point_at_the_callers_line(arrays, make_sdata, small):
    images, labels = arrays
    for key, image in images.items():
        image[1] = 0
        image[2], image[2, 3, 3] = 0, 7
        images[key] = image.astype(np.float32)
        images[key][0, 0, 0] = -1
    labels["b_cells"][:] = 0
    labels["a_cells"][0, 0] = 1
    settings = {"model": small, "tta": False, "progress": False}
    with pytest.warns(UserWarning) as caught:
        ns.predict(make_sdata(images, labels), pixel_size=0.1, **settings)
        adata = ns.predict(make_sdata(images, labels), normalization=FACTORS | {"DAPI": 0}, **settings)
    ours = [warning for warning in caught if warning.category is UserWarning]
    said = "\n".join(str(warning.message) for warning in ours)
    words = (
        "No pixel above 0",
        "handful",
        "negative",
        "No cell in",
        "implausible",
        "so small",
        "is 0 or NaN",
        "assumed",
    )
    assert not [one for one in words if one not in said]
    assert {warning.filename for warning in ours} == {__file__}
    # What was warned of: a region without a cell has no rows, a factor of 0 gives no scores, all else is there.
    assert set(adata.obs["region"]) == {"a_cells"} and np.isfinite(adata.layers["integrated_expression"]).all()
    assert np.isnan(adata[:, "DAPI"].layers["nimbus"]).all() and np.isfinite(adata[:, "CD20"].layers["nimbus"]).all()
    assert np.isnan(adata.varm["nimbus_normalization"].loc["DAPI", "factor"])
