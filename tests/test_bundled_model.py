"""How good the bundled model is: on the packaged example, whose truth is known, and on real tissue."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import nimbus_sd as ns

REAL = Path(__file__).parents[2] / "shared" / "data" / "codex_lymphoid"

pytestmark = pytest.mark.filterwarnings("ignore:.*so small that no pixel is left", "ignore:.*a handful of pixels")


@pytest.fixture(scope="module")
def scored():
    return ns.predict(ns.datasets.example(), progress=False)


def test_scores_beat_integrated_expression_on_the_example(scored):
    scores = ns.metrics.marker_metrics(scored)
    expression = ns.metrics.marker_metrics(scored, "integrated_expression", threshold="otsu")
    assert scores["f1"].mean() > expression["f1"].mean(), scores["f1"].round(3).to_dict()


def test_scores_part_positive_from_negative_cells_of_each_marker(scored):
    values, gold = scored.layers["nimbus"], scored.layers["gold"]
    parted = {}
    for i, name in enumerate(scored.var_names):
        judged = gold[:, i] != 0.5
        if np.unique(gold[judged, i]).size == 2:
            parted[name] = round(roc_auc_score(gold[judged, i], values[judged, i]), 3)
    assert len(parted) == 7
    assert min(parted.values()) > 0.9, parted


@pytest.fixture(scope="module")
def lymphoid():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not here")
    sdata = ns.io.read_fovs(REAL / "image.ome.tif", REAL / "labels.tif", pixel_size=0.5)
    return ns.predict(sdata, pixel_size=0.5, progress=False), sdata


def test_every_cell_and_channel_of_real_tissue_has_a_score(lymphoid):
    adata, sdata = lymphoid
    (labels,) = sdata.labels.values()
    (image,) = sdata.images.values()
    assert adata.n_obs == len(np.unique(labels)) - 1
    assert adata.n_vars == image.sizes["c"] == 56
    scores = adata.layers["nimbus"]
    assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1


def test_almost_all_cells_of_real_tissue_have_a_nucleus(lymphoid):
    adata, _ = lymphoid
    assert (adata[:, "DAPI"].layers["nimbus"] >= 0.5).mean() >= 0.95


def test_hardly_any_cell_of_real_tissue_is_a_t_and_a_b_cell(lymphoid):
    adata, _ = lymphoid
    positive = adata[:, ["CD3", "CD20"]].layers["nimbus"] >= 0.5
    assert positive.all(axis=1).mean() <= 0.05
    # Both kinds are there: this is a lymph node.
    assert (positive.mean(axis=0) > 0.02).all()


@pytest.mark.parametrize(
    ("folder", "mask", "pixel_size", "channel"),
    [("vectra_lymphoid", "labels.tif", 0.5, "DAPI"), ("codex_intestine", "labels_expert1.tif", 0.38, "nucleus")],
)
def test_almost_all_cells_of_other_platforms_have_a_nucleus(folder, mask, pixel_size, channel):
    data = REAL.parent / folder
    if not data.is_dir():
        pytest.skip(f"{data} is not here")
    sdata = ns.io.read_fovs(data / "image.ome.tif", data / mask, pixel_size=pixel_size)
    adata = ns.predict(sdata, channels=[channel], progress=False)
    assert (adata.layers["nimbus"] >= 0.5).mean() >= 0.95


def test_the_card_tells_what_the_model_was_trained_on_and_how_it_did():
    card = ns.models.load("compact").card
    assert card.description and card.trained_on and card.source
    assert 0.5 < card.figures["simulated_f1_score_0.5"] < card.figures["simulated_f1_score_best"] < 1
    assert set(card.ranges) == {"median", "q10", "q99", "zeros", "cv"}
    assert all(0 <= limits["false_alarm"] < 0.05 for limits in card.ranges.values())
