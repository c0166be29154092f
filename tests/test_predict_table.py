"""Regions in, table out: several regions, multiscale elements, large ids, an existing table, disk."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
from scoring import FACTORS, predict
from spatialdata.transformations import Scale

from nimbus_sd.models import PUBLISHED, load, save
from nimbus_sd.spatial import table as tables

pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding")


@pytest.fixture
def two(tissue, make_sdata):
    """Two fields of view of different size."""
    first, second = tissue((90, 80), 3, seed=1), tissue((60, 100), 3, seed=2)
    return make_sdata({"a": first[0], "b": second[0]}, {"a_cells": first[1], "b_cells": second[1]})


def test_several_regions_are_scored_as_each_alone(two, small):
    adata = predict(two, small)
    assert two.tables["table"] is adata
    assert list(adata.obs["region"].unique()) == ["a_cells", "b_cells"]
    for region in ("a", "b"):
        alone = predict(two, small, region, f"{region}_cells", table_key="alone")
        together = adata[adata.obs["region"] == f"{region}_cells"]
        for of in (lambda t: t.layers["nimbus"], lambda t: t.obs_names, lambda t: t.obsm["spatial"]):
            np.testing.assert_array_equal(of(together), of(alone))
        del two.tables["alone"]


def test_provenance(two, small):
    adata = predict(two, small, pixel_size={"a": 0.5, "b": 0.4}, normalization=None, tta=True)
    model = load(small).card
    assert {key: value for key, value in adata.uns["nimbus"].items() if key not in ("wrote", "area_unit")} == {
        "model": "small",
        "model_description": model.description,
        "sha256": model.sha256,
        "model_pixel_size": 1.0,
        "image": {"a_cells": "a", "b_cells": "b"},
        "pixel_size": {"a_cells": 0.5, "b_cells": 0.4},
        "grow": {"a_cells": 0, "b_cells": 0},
        "normalization": "mean_of_regions",
        "quantile": 0.999,
        "views": 8,
        "precision": "float32",
        "version": version("nimbus-sd"),
    }
    again = predict(two, small, "a", tta=None, grow=0.5).uns["nimbus"]
    # What is known of other regions stays.
    assert again["pixel_size"] == {"a_cells": 0.5, "b_cells": 0.4} and again["grow"] == {"a_cells": 0.5, "b_cells": 0}
    # The card decides on the views.
    assert again["normalization"] == "given" and "quantile" not in again and again["views"] == 8


def test_a_model_with_its_card(two, deep_network, deep, tmp_path, caplog):
    path = tmp_path / "tuned.safetensors"
    ranges = {"median": {"low": 0.0, "high": 0.5, "false_alarm": 0.01}}
    card = replace(PUBLISHED, name="tuned", root_filters=2, revision="r7", tta=False, ranges=ranges)
    written = save(deep_network, card, path)
    with caplog.at_level("INFO", logger="nimbus_sd"):
        adata = predict(two, path, tta=None, key_added="tuned")
    assert "tuned" in caplog.text and "added layers['tuned']" in caplog.text
    expected = {"model": "tuned", "sha256": written.sha256, "revision": "r7", "views": 1, "ranges": ranges}
    assert expected.items() <= adata.uns["tuned"].items()
    assert adata.uns["tuned"]["model_description"] == PUBLISHED.description
    np.testing.assert_array_equal(predict(two, deep).layers["nimbus"], adata.layers["tuned"])


@pytest.mark.parametrize("coarse", ["labels", "image"])
def test_one_element_at_half_the_resolution(tissue, make_sdata, small, coarse):
    """As if the coarse one had been enlarged."""
    image, labels = tissue((60, 70), 2)
    double = Scale([2, 2], axes=("y", "x"))
    large_image, large_labels = (pixels.repeat(2, -1).repeat(2, -2) for pixels in (image, labels))
    if coarse == "labels":
        sdata = make_sdata({"a": large_image}, {"a_cells": labels}, transformations={"a_cells": {"a": double}})
    else:
        sdata = make_sdata({"a": image}, {"a_cells": large_labels}, transformations={"a": {"a": double}})
    fine = predict(make_sdata({"a": large_image}, {"a_cells": large_labels}), small, pixel_size=0.5)
    adata = predict(sdata, small, pixel_size=0.5 if coarse == "labels" else 1.0)
    np.testing.assert_array_equal(adata.layers["nimbus"], fine.layers["nimbus"])
    np.testing.assert_array_equal(adata.obs["area"], fine.obs["area"])
    assert adata.uns["nimbus"]["pixel_size"] == {"a_cells": 0.5 if coarse == "labels" else 1.0}


@pytest.mark.parametrize("dtype, offset", [("uint32", 2**31 + 5), ("int64", 2**62), ("uint64", 2**40)])
def test_large_ids_with_gaps(tissue, make_sdata, small, dtype, offset):
    image, labels = tissue((80, 80), 2)
    large = np.where(labels > 0, labels.astype(np.int64) * 1000 + offset, 0).astype(dtype)
    plain = predict(make_sdata(image, labels), small)
    adata = predict(make_sdata(image, large), small)
    np.testing.assert_array_equal(adata.layers["nimbus"], plain.layers["nimbus"])
    np.testing.assert_array_equal(adata.obs["instance_id"], plain.obs["instance_id"] * 1000 + offset)
    assert adata.obs["instance_id"].dtype == np.int64
    assert adata.obs_names[0] == f"fov_cells_{adata.obs['instance_id'].iloc[0]}"


def test_channels_of_a_second_call_leave_all_others_as_they_are(two, small):
    """To the byte, also what the user did with them since."""
    together = predict(two, small, table_key="together")
    first = predict(two, small, channels=["CD3", "DAPI"])
    first.layers["calls"] = (first.layers["nimbus"] > 0.5).astype(np.float32)
    before = first.copy()
    adata = predict(two, small, channels=["CD20"], normalization={"CD20": 90.0})
    assert list(adata.var_names) == ["CD3", "DAPI", "CD20"]
    np.testing.assert_array_equal(adata.obs_names, before.obs_names)
    for layer in ("nimbus", "integrated_expression", "calls"):
        old = np.ascontiguousarray(adata.layers[layer][:, :2])
        assert old.tobytes() == before.layers[layer].tobytes()
    assert np.isnan(adata.layers["calls"][:, 2]).all()
    np.testing.assert_allclose(adata.layers["nimbus"][:, 2], together[:, "CD20"].layers["nimbus"][:, 0], atol=1e-5)
    assert adata.varm["nimbus_normalization"]["factor"].to_dict() == FACTORS


def test_threads_that_score_into_one_table_lose_no_layer(two, small, monkeypatch):
    merge = tables._merged

    def slow(*args):
        time.sleep(0.5)
        return merge(*args)

    monkeypatch.setattr(tables, "_merged", slow)
    names = ["first", "second", "third"]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: predict(two, small, key_added=name), names))
    assert all(np.isfinite(two.tables["table"].layers[name]).all() for name in names)
