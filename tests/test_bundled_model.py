"""How good the bundled model is: on the packaged example, whose truth is known, and on real tissue."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry
from skimage.measure import label
from sklearn.metrics import f1_score, roc_auc_score

import nimbus_sd as ns

REAL = Path(__file__).parents[2] / "shared" / "data" / "codex_lymphoid"
GOLD = Path(__file__).parents[1] / "tools" / "compact" / "gold.csv"

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


def test_predict_warns_of_markers_that_need_a_look_in_one_line():
    sdata = ns.datasets.example()
    image = sdata.images["fov1_image"] if "fov1_image" in sdata.images else next(iter(sdata.images.values()))
    for element in sdata.images.values():
        element[0], element[1] = 0, 7
    names = [str(name) for name in image.coords["c"].values[:2]]
    with pytest.warns(UserWarning, match="2 of 2 markers need a look") as caught:
        ns.predict(sdata, channels=names, progress=False, table_key="spoilt")
    message = next(str(warning.message) for warning in caught if "need a look" in str(warning.message))
    assert f"{names[0]!r} (stop: empty" in message and "\n" not in message and "docs/flags.md" in message


@pytest.fixture(scope="module")
def lymphoid():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not here")
    sdata = ns.io.read_fovs(REAL / "image.ome.tif", REAL / "labels.tif", pixel_size=0.5)
    return ns.predict(sdata, pixel_size=0.5, progress=False), sdata


def test_real_tissue(lymphoid):
    """A lymph node: every cell and channel has a score, and calls are what is known of such tissue."""
    adata, sdata = lymphoid
    (labels,), (image,) = sdata.labels.values(), sdata.images.values()
    assert adata.n_obs == len(np.unique(labels)) - 1
    assert adata.n_vars == image.sizes["c"] == 56
    scores = adata.to_df("nimbus")
    assert np.isfinite(scores).all(axis=None) and scores.min(axis=None) >= 0 and scores.max(axis=None) <= 1
    positive = scores >= 0.5
    # Almost all cells have a nucleus.
    assert positive["DAPI"].mean() >= 0.95
    # Of those called CD20-positive, not of all cells: that would be kept by missing most B cells.
    assert (positive["CD3"] & positive["CD20"]).sum() <= 0.33 * positive["CD20"].sum()
    assert positive["CD3"].mean() > 0.1 and positive["CD20"].mean() > 0.1
    # Haze in all nuclei is not called in nearly all cells.
    for channel, most in {"p53": 0.6, "MEF2B": 0.5, "FADD": 0.4, "CCR4": 0.05}.items():
        assert positive[channel].mean() < most, channel


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


def test_calls_of_held_out_cells_agree_with_eyes(lymphoid):
    adata, _ = lymphoid
    gold = pd.read_csv(GOLD, dtype={"state": str})
    gold = gold[(gold["dataset"] == "codex_lymphoid") & (gold["drawn"] == "even") & (gold["state"] != "u")]
    rows = pd.Index(adata.obs["instance_id"]).get_indexer(gold["label"])
    called = adata.layers["nimbus"][rows, adata.var_names.get_indexer(gold["channel"])] >= 0.5
    f1 = {
        name: f1_score(cells["state"] == "1", called[gold["channel"] == name])
        for name, cells in gold.groupby("channel")
        if (cells["state"] == "1").any()
    }
    assert len(f1) > 15 and np.mean(list(f1.values())) > 0.93, f1


@pytest.fixture
def flags_of(make_sdata):
    """Flags of channels as `tl.call_positive` gives them."""

    def flags_of(image, labels):
        adata = ns.predict(make_sdata(image, labels), pixel_size=0.5, progress=False)
        ns.tl.call_positive(adata)
        return list(adata.var["positive_flag"])

    return flags_of


@pytest.mark.filterwarnings(
    "ignore:Look at", "ignore:.*should not be called", "ignore:.*the image of", "ignore:No pixel"
)
def test_images_that_are_no_stain_of_a_marker_are_flagged(flags_of):
    bright_field = immunohistochemistry()
    nuclei = label(gaussian_filter(rgb2hed(bright_field)[..., 0], 2) > 0.05)
    assert nuclei.max() > 50
    assert all(flags_of(np.moveaxis(bright_field, -1, 0), nuclei)), "an H&E-like image"
    rng = np.random.default_rng(0)
    empty, saturated = np.zeros(nuclei.shape), np.full(nuclei.shape, 255)
    noise = rng.normal(100, 10, nuclei.shape)
    assert all(flags_of(np.stack([empty, saturated, noise]).clip(0, 255).astype(np.uint8), nuclei))


def test_the_figures_on_the_card_are_those_of_the_judged_cells():
    figures = pd.read_csv(GOLD.with_name("figures.csv"))
    even = figures[figures["drawn"] == "even"]
    card = ns.models.load("compact").card
    assert card.figures["left_out_f1"] == pytest.approx(even["left out: F1"].mean(), abs=5e-4)
    states = pd.read_csv(GOLD, dtype={"state": str})
    sure = states[(states["drawn"] == "even") & (states["state"] != "u")]
    positive = sure.groupby(["dataset", "channel"]).filter(lambda cells: (cells["state"] == "1").any())
    assert even["cells"].sum() == len(positive)
