"""Fine-tuning: one call, a report on regions that it has not seen, and a model that predict takes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_training import CARD, EXACT, RECIPE

import nimbus_sd as ns
from nimbus_sd.models import UNet, load, save
from nimbus_sd.train import loop

GIVEN = {"train": ["r0_cells", "r1_cells"], "validation": ["r2_cells"], "test": ["r3_cells"]}


@pytest.fixture
def start(tmp_path):
    """A small network of random weights, as a model of somebody."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(4, CARD.depth, CARD.padding)
    path = tmp_path / "start.safetensors"
    save(network, replace(CARD, root_filters=4, name="start", license="MIT", boundary="cell"), path)
    return path


def tuned(labelled, folder, start, **settings):
    own = {"model": start, "pixel_size": 0.5, "tile_size": 24, "split": GIVEN, "recipe": RECIPE, "progress": False}
    return ns.train.fine_tune(labelled, folder, **own | settings, accelerator="cpu")


def test_the_report_compares_before_and_after_on_held_out_regions(labelled, start, tmp_path):
    recipe = replace(RECIPE, naive_steps=40, robust_steps=0, validate_every=20, batch_size=4, augmentation=EXACT)
    path, report = tuned(labelled, tmp_path / "run", start, recipe=recipe)
    assert list(report.index) == ["DAPI", "CD3", "mean"]
    adata = labelled.tables["table"]
    held = adata[(adata.obs["region"] == "r3_cells").to_numpy()].layers["silver"]
    assert report.loc["CD3", "cells"] == len(held) and report.loc["CD3", "positives"] == held[:, 1].sum()
    for name in ("f1_before", "f1_after", "recall_after"):
        assert report.loc["mean", name] == pytest.approx(report.loc[["DAPI", "CD3"], name].mean())
    assert report.loc["mean", "f1_after"] > report.loc["mean", "f1_before"]
    card = load(path).card
    assert card.figures["held_out_f1_after"] == pytest.approx(report.loc["mean", "f1_after"], abs=1e-6)
    n = int(adata.obs["region"].isin(GIVEN["train"]).sum())
    labels = f"Data set fine-tuning: 2 regions, {2 * n} labels of DAPI, CD3 (0 proofread, {2 * n} not)"
    assert card.trained_on == f"{labels}. Started with start." and card.license == "MIT"
    # Not those of the recipe, which are for a network of its own.
    form = {key: card.training[key] for key in ("root_filters", "depth", "padding", "patch")}
    assert form == {"root_filters": 4, "depth": CARD.depth, "padding": CARD.padding, "patch": CARD.patch}
    # The start's boundary is the new one's, and its weights are noted.
    assert card.boundary == "cell" and card.training["start"] == load(start).card.sha256
    scores = ns.predict(labelled, model=path, pixel_size=0.5, progress=False)
    assert np.isfinite(scores.layers["nimbus"]).all()


def test_the_card_says_of_which_data_and_labels_the_model_is(labelled, start, tmp_path):
    adata = labelled.tables["table"]
    train = np.flatnonzero(adata.obs["region"].isin(GIVEN["train"]))
    adata.layers["gold_training"] = np.full(adata.shape, np.nan, np.float32)
    adata.layers["gold_training"][train[:3], 1] = [0, 1, 0.5]
    adata.layers["silver"][:, 0] = np.nan
    path, _ = tuned(labelled, tmp_path / "run", start, data_set="tonsil", description="For our CD3.")
    card = load(path).card
    found = f"Data set tonsil: 2 regions, {len(train) - 1} labels of CD3 (2 proofread, {len(train) - 3} not)"
    assert card.trained_on == f"{found}. Started with start." and card.description == "For our CD3."


def test_what_does_not_help_is_not_taken(labelled, start, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Run, "_validate", lambda self: 0.5 / (1 + self.step))
    path, report = tuned(labelled, tmp_path / "run", start)
    for key, value in load_file(start).items():
        np.testing.assert_array_equal(load_file(path)[key], value)
    assert report["f1_before"].equals(report["f1_after"]) and load(path).card.figures["step"] == 0


def test_the_same_call_goes_on_and_ends_the_same(labelled, start, tmp_path):
    first = tuned(labelled, tmp_path / "run", start)
    again = tuned(labelled, tmp_path / "run", start)
    assert again.report.equals(first.report)
    # One pixel, which changes no factor.
    labelled.images["r0"].data[0, 0, 0] = 1 if int(labelled.images["r0"].data[0, 0, 0]) != 1 else 2
    for change in ({"normalization": {"DAPI": 1e5, "CD3": 1e5}}, {}):
        with pytest.raises(ValueError, match=r"of another run: store\.content"):
            tuned(labelled, tmp_path / "run", start, **change)


def test_a_bad_call_leaves_the_tiles_of_a_run(labelled, start, tmp_path):
    folder = tmp_path / "run"
    tuned(labelled, folder, start)
    before = sorted((one, one.stat().st_mtime_ns) for one in (folder / "tiles.zarr").rglob("*"))
    for change, error in (
        ({"channels": ["CD9"]}, KeyError),
        ({"table_key": "rna"}, KeyError),
        ({"recipe": "LAPTOP"}, TypeError),
        ({"split": GIVEN | {"train": ["r0_cells"], "test": ["r1_cells", "r3_cells"]}}, ValueError),
    ):
        with pytest.raises(error):
            tuned(labelled, folder, start, **change)
        assert sorted((one, one.stat().st_mtime_ns) for one in (folder / "tiles.zarr").rglob("*")) == before
        assert not (folder / "tiles.zarr.new").exists()


def test_a_run_of_other_labels_is_not_gone_on_with(labelled, start, tmp_path):
    tuned(labelled, tmp_path / "run", start)
    silver = labelled.tables["table"].layers["silver"]
    silver[0] = 1 - silver[0]
    with pytest.raises(ValueError, match=r"of another run: store\.content"):
        tuned(labelled, tmp_path / "run", start)


def test_gold_is_what_held_out_regions_are_judged_by(labelled, start, tmp_path):
    adata = labelled.tables["table"]
    gold = np.full(adata.shape, np.nan, np.float32)
    held = np.flatnonzero((adata.obs["region"] == "r3_cells").to_numpy())[:5]
    gold[held, 1] = [0, 1, 0.5, 0.25, 0.75]
    adata.layers["gold"] = gold
    _, report = tuned(labelled, tmp_path / "run", start, split=(0.5, 0.25, 0.25))
    assert report.loc["CD3", ["cells", "positives"]].tolist() == [4, 2] and "DAPI" not in report.index


def test_a_marker_with_gold_is_not_judged_by_silver(labelled, start, tmp_path):
    adata = labelled.tables["table"]
    adata.layers["gold"] = np.full(adata.shape, np.nan, np.float32)
    held = np.flatnonzero((adata.obs["region"] == "r3_cells").to_numpy())[:5]
    adata.layers["gold"][held, 1] = [0, 1, 0, 0, 1]
    split = {"train": ["r0_cells"], "validation": ["r1_cells"], "test": ["r2_cells", "r3_cells"]}
    _, report = tuned(labelled, tmp_path / "run", start, split=split)
    assert report.loc["CD3", ["truth", "cells", "positives"]].tolist() == ["gold", 5, 2]
    assert report.loc["DAPI", ["truth", "cells"]].tolist() == ["silver", (adata.obs["region"] == "r2_cells").sum()]
    assert report.loc["mean", "truth"] == "gold and silver"


@pytest.mark.parametrize(
    "split, message",
    [
        (GIVEN | {"test": []}, "holds out no region for 'test'"),
        (GIVEN | {"validation": []}, "holds out no region for 'validation'"),
        (GIVEN | {"validation": ["r2_cells", "r0_cells"]}, r"\['r0_cells'\] in two splits"),
    ],
)
def test_it_does_not_judge_itself_on_what_it_trains_on(labelled, start, tmp_path, split, message):
    with pytest.raises(ValueError, match=message):
        tuned(labelled, tmp_path / "run", start, split=split)
    assert not (tmp_path / "run" / "tiles.zarr").exists()


def test_regions_for_validation_without_a_label_are_refused_before_training(labelled, start, tmp_path):
    adata = labelled.tables["table"]
    adata.layers["silver"][(adata.obs["region"] == "r2_cells").to_numpy()] = np.nan
    with pytest.raises(ValueError, match="no judged cell in a region for validation"):
        tuned(labelled, tmp_path / "run", start)
    assert not (tmp_path / "run" / "tiles.zarr").exists()


def test_held_out_regions_without_a_label_are_refused_before_training(labelled, start, tmp_path):
    adata = labelled.tables["table"]
    adata.layers["silver"][(adata.obs["region"] == "r3_cells").to_numpy()] = np.nan
    with pytest.raises(ValueError, match=r"No cell is judged in the held-out regions \['r3_cells'\]"):
        tuned(labelled, tmp_path / "run", start)
    assert not (tmp_path / "run" / "model.safetensors").exists()
