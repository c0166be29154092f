"""A whole run: it learns, stops and goes on exactly, keeps its best model, and refuses what cannot work."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from small_training import CARD, EXACT, GIVEN, RECIPE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nimbus_sd as ns
from nimbus_sd.train import Augmentation, Recipe, Selection, Store, run
from nimbus_sd.train.batches import Order
from nimbus_sd.train.objective import count_calls, figures, mean_f1, region_scores
from nimbus_sd.train.store import StoreSettings

CPU = {"accelerator": "cpu", "progress": False}


@pytest.fixture(scope="module")
def done(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "run"
    ns.train.train(store, folder, recipe=RECIPE, **CPU)
    return folder


def log_of(folder) -> list[dict[str, str]]:
    return pd.read_csv(folder / "metrics.csv", dtype=str).to_dict("records")


@pytest.mark.parametrize("where", ["masked_loss", "write_checkpoint"])
def test_a_run_goes_on_exactly_where_it_was_stopped(store, done, tmp_path, monkeypatch, where):
    """In a step, and between the log and the checkpoint of a validation."""
    folder, inner, calls = tmp_path / "run", getattr(run, where), []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == {"masked_loss": 6, "write_checkpoint": 3}[where]:
            raise RuntimeError("the power is off")
        return inner(*arguments)

    monkeypatch.setattr(run, where, stopping)
    with pytest.raises(RuntimeError, match="power is off"):
        ns.train.train(store, folder, recipe=RECIPE, **CPU)
    assert torch.load(folder / "last.ckpt", weights_only=True)["step"] == 4
    before = len(calls)
    # The second time, a finished run is not repeated.
    for _ in range(2):
        ns.train.train(store, folder, recipe=RECIPE, **CPU)
        assert len(calls) - before == {"masked_loss": 4, "write_checkpoint": 2}[where]
    ends = [torch.load(run / "last.ckpt", weights_only=True) for run in (done, folder)]
    for name in ("network", "selector"):
        for key, value in ends[0][name].items():
            assert torch.equal(value, ends[1][name][key]) or value.isnan().any(), key
    for name in ("model.safetensors", "metrics.csv"):
        assert (done / name).read_bytes() == (folder / name).read_bytes()
    log = log_of(folder)
    assert [row["phase"] for row in log] == ["naive", "naive", "robust", "robust"]
    assert float(log[1]["kept"]) == 1 > float(log[3]["kept"]) > 0
    # So are TensorBoard's figures, whose steps are there once each.
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    for name in ("loss", "learning_rate", "kept", "validation_f1"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(int(row["step"]), pytest.approx(float(row[name]))) for row in log]


def test_the_best_model_is_kept_with_its_card(store, tmp_path, monkeypatch):
    f1, saved, save = iter([0.3, 0.6, 0.5, 0.6]), [], run.save
    monkeypatch.setattr(run, "mean_f1", lambda table: next(f1))
    monkeypatch.setattr(run, "save", lambda *given: (saved.append(given[1].figures["step"]), save(*given)))
    path = ns.train.train(store, tmp_path / "run", recipe=RECIPE, license="CC-BY-4.0", **CPU)
    card = ns.models.load(path).card
    assert saved == [2, 4] and card.figures == {"validation_f1": 0.6, "step": 4}
    assert (card.name, card.license, card.pixel_size, card.boundary) == ("run", "CC-BY-4.0", 1.0, "background")
    assert card.training["naive_steps"] == 4 and card.training["selection"]["quantile"] == 0.85
    # License and description of a finished run can be changed.
    before = path.read_bytes()
    ns.train.train(store, tmp_path / "run", recipe=RECIPE, license="MIT", description="Ours.", rng=np.int64(0), **CPU)
    assert path.read_bytes() == before
    assert ns.models.load(path).card == replace(card, license="MIT", description="Ours.")


@pytest.mark.parametrize(
    ("naive", "robust", "steps"),
    [(100, 0, ["2", "4", "6"]), (4, 100, ["2", "4", "6", "8"]), (0, 100, ["2", "4", "6"])],
    ids=["naive only", "a naive phase first does not count", "robust only"],
)
def test_training_stops_where_f1_no_longer_rises(store, tmp_path, monkeypatch, naive, robust, steps):
    monkeypatch.setattr(run, "mean_f1", lambda table: 0.5)
    recipe = replace(RECIPE, naive_steps=naive, robust_steps=robust, patience=2)
    ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    assert [row["step"] for row in log_of(tmp_path / "run")] == steps
    with pytest.raises(ValueError, match="has not reached its noise-robust phase" if not robust else "of another run"):
        ns.train.left_out(tmp_path / "run", store if not robust else elsewhere(store, tmp_path))


def elsewhere(store, folder) -> Store:
    """The same store, but for a region's split."""
    shutil.copytree(store.path, folder / "other")
    zarr.open_group(folder / "other", mode="r+")["0/0"].attrs["split"] = "test"
    return Store(folder / "other")


def test_a_pull_keeps_weights_near_the_start(store, done, tmp_path):
    start, far = ns.models.load(done / "model.safetensors").network.state_dict(), []
    for pull in (0.0, 50.0):
        recipe = replace(RECIPE, pull=pull, weight_decay=0.0)
        ns.train.train(store, tmp_path / f"{pull}", recipe=recipe, model=done / "model.safetensors", **CPU)
        end = torch.load(tmp_path / f"{pull}" / "last.ckpt", weights_only=True)["network"]
        far.append(sum(float((end[key] - value).square().sum()) for key, value in start.items() if value.ndim == 4))
    assert 0 < far[1] < 0.5 * far[0]


def test_scores_are_those_of_predict(labelled, build, deep):
    """A region that is one tile: cells get nearly the scores of the main job, and are called by them."""
    store = build(labelled, tile_size=(32, 0), model=replace(CARD, depth=5))
    factors = dict(zip(["DAPI", "CD3"], store.regions[0].factors, strict=True))
    adata = ns.predict(labelled, model=deep, pixel_size=0.5, tta=False, normalization=factors, progress=False)
    held = adata[(adata.obs["region"] == "r3_cells").to_numpy()]
    network, cpu = ns.models.load(deep).network, torch.device("cpu")
    scores = region_scores(network, store, store.tiles("test"), 2, cpu)
    # Pixels of a cell count by how many of the image they hold there, and alike here, which matters in small cells.
    assert np.median(np.abs(scores - held.layers["nimbus"])) < 0.02
    assert np.corrcoef(scores.ravel(), held.layers["nimbus"].ravel())[0, 1] > 0.9
    counts, labels = count_calls(network, store, "test", 2, cpu), held.layers["silver"] > 0.5
    for number, channel in enumerate(store.regions[0].channels):
        outcome = 2 * labels[:, number] + (scores[:, number] >= 0.5)
        assert counts[store.strata.index(("d", channel))].tolist() == np.bincount(outcome, minlength=4).tolist()
        assert figures(counts, store).loc[("d", channel), "cells"] == len(held)


def test_f1_is_averaged_over_markers_then_data_sets(labelled, build):
    build(labelled)
    store = build(labelled, data_set="e", channels=["CD3"])
    table = figures(np.array([[5, 5, 5, 5], [5, 0, 0, 5], [9, 1, 9, 1]]), store)
    f1 = [10 / 20, 1.0, 2 / 12]
    np.testing.assert_allclose(table["f1"], f1)
    assert mean_f1(table) == pytest.approx(((f1[0] + f1[1]) / 2 + f1[2]) / 2)


def test_a_loss_that_is_not_a_number_stops_the_run(labelled, build, tmp_path):
    store, folder = build(labelled), tmp_path / "run"
    number, window, channel = store.tiles("train")[Order(len(store.tiles("train")), RECIPE.batch_size, 0)(2)[0]]
    zarr.open_group(store.path, mode="r+")[f"0/{number}/image"][window, channel] = np.nan
    region = store.regions[number]
    place = re.escape(f"d/{region.region}/{region.channels[channel]}, window {window}")
    with pytest.raises(FloatingPointError, match=rf"loss of step 3 is nan.*last checkpoint.* is kept.*{place}"):
        ns.train.train(store, folder, recipe=replace(RECIPE, augmentation=EXACT), **CPU)
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["step"] == 2 and all(value.isfinite().all() for value in state["network"].values())
    ns.models.load(folder / "model.safetensors")


def test_a_network_without_finite_scores_stops_the_run(store, tmp_path):
    recipe = replace(RECIPE, learning_rate=1e10, naive_steps=1, robust_steps=0)
    with pytest.raises(FloatingPointError, match=r"After step 1 no cell .* has a finite score"):
        ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"tensorboard"}


def test_another_run_or_file_is_refused(store, done, tmp_path):
    for tiles, given, message in (
        (store, {"recipe": replace(RECIPE, selection=Selection(quantile=0.7))}, "'quantile': 0.85 then, 0.7 now"),
        (store, {"rng": 1}, "seed: 0 then, 1 now"),
        (elsewhere(store, tmp_path), {}, "store 'content': "),
    ):
        with pytest.raises(ValueError, match=f"of another run: .*{message}"):
            ns.train.train(tiles, done, **{"recipe": RECIPE} | given, **CPU)
    path = tmp_path / "last.ckpt"
    for content in ([1], {}, {"inputs": 3}, {"inputs": "{"}, {"inputs": "[1]"}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"last\.ckpt holds no state of a training run.*delete it"):
            run.read_checkpoint(path, {})
    run.write_checkpoint(path, {"network": torch.arange(1000.0)}, {"seed": 1})
    data = bytearray(path.read_bytes())
    data[re.search(torch.arange(500.0, 502.0).numpy().tobytes(), data).start()] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged.*delete it"):
        run.read_checkpoint(path, {})


def test_what_cannot_be_trained_is_refused(labelled, build, store, tmp_path):
    without = build(labelled, "without", split={"train": [f"r{i}_cells" for i in range(4)]})
    labelled.tables["table"].layers["silver"][(labelled.tables["table"].obs["region"] == "r2_cells").to_numpy()] = 0
    negative, inner = build(labelled, "negative"), replace(RECIPE, depth=5)
    for tiles, given, error, message in (
        (store, {"model": "compact"}, ValueError, "pixel_size of 1.0, and model 'compact' takes 0.5"),
        (store, {"recipe": inner}, ValueError, "16 pixels wide; this network takes multiples of 16 of at least 32"),
        (without, {}, ValueError, "no judged cell in a region for validation"),
        (negative, {}, ValueError, "no positive cell in a region for validation"),
        (store, {"recipe": "LAPTOP"}, TypeError, r"`recipe` is 'LAPTOP'; it must be a .*Recipe"),
        (store, {"rng": np.random.default_rng(0)}, ValueError, "rng is Generator.*pass an integer"),
    ):
        with pytest.raises(error, match=message):
            ns.train.train(tiles, tmp_path / "run", **{"recipe": RECIPE} | given, **CPU)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="'16-mixed' is not supported"):
        ns.train.train(store, tmp_path / "run", recipe=RECIPE, precision="16-mixed", **CPU)


@pytest.mark.parametrize(
    "make, name, values",
    [
        (Augmentation, "noise", [-1]),
        (Augmentation, "scale", [1.0]),
        (Selection, "quantile", [1.0, "1"]),
        (Selection, "ramp", [(0, 5), (0.5, 0), (0.5,)]),
        (Selection, "sure", [(0.9, 0.1), 0.9]),
        *((Recipe, name, [0, 4.0, True]) for name in ("batch_size", "patience")),
        (Recipe, "learning_rate", [0, "1e-3", np.inf]),
        *((Recipe, name, [{}, None]) for name in ("selection", "augmentation")),
        (Recipe, "boundary", ["outer"]),
        (lambda overlap: StoreSettings(16, overlap, 0.5, "otsu", None), "overlap", [16, 4.0]),
        (lambda naive_steps: Recipe(naive_steps=naive_steps, robust_steps=0), "naive_steps", [0]),
    ],
)
def test_wrong_settings_are_refused(make, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name} is .* must be"):
            make(**{name: value})
    assert replace(RECIPE, naive_steps=np.int64(4)).to_dict() == RECIPE.to_dict()
    assert Recipe.laptop(depth=5).depth == 5 and Recipe.fine_tune(patience=None).patience is None


def test_what_was_left_out_can_be_seen(store, done, tmp_path):
    cells = ns.train.left_out(done, store)
    assert set(cells["region"]) == {"r0_cells", "r1_cells"} and 0.5 < cells["kept"].mean() < 1
    # Of the cells that a threshold decides about, it is one loss below which all are kept.
    for _, doubtful in cells.query("0.1 < score < 0.9").groupby("channel"):
        assert doubtful.loc[doubtful["kept"], "loss"].max() < doubtful.loc[~doubtful["kept"], "loss"].min()
    twice = pd.concat([cells, cells[~cells["kept"]].assign(window=0)], ignore_index=True)
    axes = ns.train.show_left_out(twice, store, n_cells=3, width=10)
    worst = cells[~cells["kept"]].nlargest(1, "loss").iloc[0]
    assert axes[0].get_title() == f"{worst.channel}: label {worst.label:g}, score {worst.score:.2f}"
    assert len(axes) == 3 and axes[0].images[0].get_array().shape[0] <= 10
    with pytest.raises(ValueError, match="None of the"):
        ns.train.show_left_out(cells.assign(kept=True), store)
    with pytest.raises(FileNotFoundError, match="no run in"):
        ns.train.left_out(tmp_path, store)


def test_proofread_labels_are_always_believed_and_move_no_threshold(labelled, build, tmp_path, monkeypatch):
    adata = labelled.tables["table"]
    adata.layers["gold_training"] = np.full(adata.shape, np.nan, np.float32)
    adata.layers["gold_training"][:, 1] = 1 - adata.layers["silver"][:, 1]
    store, learned, loss = build(labelled), [], run.masked_loss
    recipe = replace(RECIPE, selection=Selection(quantile=0.3, sure=(0.0, 1.0)))

    def noting(logits, batch, keep, boundary):
        learned.append((keep[1:], batch.trusted[1:]))
        return loss(logits, batch, keep, boundary)

    monkeypatch.setattr(run, "masked_loss", noting)
    ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    keep, trusted = (torch.cat(parts) for parts in zip(*learned[recipe.naive_steps :], strict=True))
    assert trusted.any() and keep[trusted].float().mean() > 0.9 > keep[~trusted].float().mean()
    threshold = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["selector"]["threshold"]
    assert torch.isfinite(threshold[0]).all() and torch.isnan(threshold[1]).all()
    cells = ns.train.left_out(tmp_path / "run", store).groupby("channel")["kept"].mean()
    assert cells["CD3"] == 1 > cells["DAPI"]


SCRIPT = """
import sys
from small_training import RECIPE
import nimbus_sd as ns
if __name__ == "__main__":
    ns.train.train(sys.argv[1], sys.argv[2], recipe=RECIPE, accelerator="cpu", devices=2, progress=False)
"""


@pytest.mark.slow
def test_two_devices_share_batches_thresholds_and_f1(store, tmp_path):
    """Two processes stand for two GPUs; what is written is one model, and its checkpoint goes on on one device."""
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = [str(Path(ns.__file__).parents[1]), str(Path(__file__).parents[1] / "helpers")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "script.py", str(store.path), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in log_of(tmp_path / "run")] == ["2", "4", "6", "8"]
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["step"] == 8 and state["selector"]["threshold"].isfinite().all()
    # A finished run is recognised by one device too, and its best F1 is that of the model on all regions.
    model = ns.models.load(ns.train.train(store, tmp_path / "run", recipe=RECIPE, **CPU))
    counts = count_calls(model.network, store, "validation", 2, torch.device("cpu"))
    assert mean_f1(figures(counts, store)) == pytest.approx(model.card.figures["validation_f1"], abs=1e-5)


@pytest.fixture
def start(tmp_path):
    """A small network of random weights, as a model of somebody."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ns.models.UNet(4, CARD.depth, CARD.padding)
    card = replace(CARD, root_filters=4, name="start", license="MIT", boundary="cell")
    ns.models.save(network, card, tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def test_fine_tuning_compares_before_and_after_on_held_out_regions(labelled, build, start, tmp_path):
    """Bright cells are positive: forty steps suffice."""
    adata = labelled.tables["table"]
    n, held = (int(adata.obs["region"].isin(GIVEN[name]).sum()) for name in ("train", "test"))
    adata.layers["gold_training"] = np.full(adata.shape, np.nan, np.float32)
    adata.layers["gold_training"][:3, 1] = [0, 1, 0.5]
    settings = {"naive_steps": 40, "robust_steps": 0, "validate_every": 20, "batch_size": 4}
    tune = {"model": start, "recipe": replace(RECIPE, **settings, augmentation=EXACT), "description": "Ours.", **CPU}
    store = build(labelled, data_set="tonsil", tile_size=(24, 8))
    path, report = ns.train.fine_tune(store, tmp_path / "run", **tune)
    assert list(report.index) == ["DAPI", "CD3", "mean"] and set(report["truth"]) == {"silver"}
    silver = adata.layers["silver"][(adata.obs["region"] == "r3_cells").to_numpy()]
    assert report.loc["CD3", ["cells", "positives"]].tolist() == [held, silver[:, 1].sum()]
    for name in ("f1_before", "f1_after", "recall_after"):
        assert report.loc["mean", name] == pytest.approx(report.loc[["DAPI", "CD3"], name].mean())
    assert report.loc["mean", "f1_after"] > report.loc["mean", "f1_before"]
    card, log = ns.models.load(path).card, log_of(tmp_path / "run")
    assert card.figures["validation_f1"] > 0.8 and float(log[1]["loss"]) < 0.7 * float(log[0]["loss"])
    assert card.figures["held_out_f1_after"] == pytest.approx(report.loc["mean", "f1_after"], abs=1e-6)
    labels = f"Data set tonsil: 2 regions, {2 * n - 1} labels of DAPI, CD3 (2 proofread, {2 * n - 3} not)"
    assert card.trained_on == f"{labels}. Started with start."
    # Not the form of the recipe, which is for a network of its own; and the start's boundary.
    assert (card.license, card.description, card.boundary) == ("MIT", "Ours.", "cell")
    assert card.training["root_filters"] == 4 and card.training["start"] == ns.models.load(start).card.sha256
    scores = ns.predict(labelled, model=path, pixel_size=0.5, progress=False)
    assert np.isfinite(scores.layers["nimbus"]).all()
    again, same = ns.train.fine_tune(store.path, tmp_path / "run", **tune)
    assert same.equals(report) and ns.models.load(again).card == card


def test_what_does_not_help_is_not_taken(store, start, tmp_path, monkeypatch):
    f1 = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(run, "mean_f1", lambda table: next(f1))
    path, report = ns.train.fine_tune(store, tmp_path / "run", model=start, recipe=RECIPE, **CPU)
    before, after = (ns.models.load(model) for model in (start, path))
    for key, value in before.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[key], value)
    assert report["f1_before"].equals(report["f1_after"]) and after.card.figures["step"] == 0
    assert after.card.description == "start, fine-tuned by nimbus_sd."


def test_a_marker_with_gold_is_judged_by_gold_alone(labelled, build, start, tmp_path):
    adata = labelled.tables["table"]
    adata.layers["gold"] = np.full(adata.shape, np.nan, np.float32)
    held = np.flatnonzero((adata.obs["region"] == "r3_cells").to_numpy())[:5]
    adata.layers["gold"][held, 1] = [0, 1, 0.5, 0.25, 0.75]
    split = {"train": ["r0_cells"], "validation": ["r1_cells"], "test": ["r2_cells", "r3_cells"]}
    n = int((adata.obs["region"] == "r2_cells").sum())
    build(labelled, split=split)
    store = build(labelled, split=split, data_set="e", channels=["CD3"])
    _, report = ns.train.fine_tune(store, tmp_path / "run", model=start, recipe=RECIPE, **CPU)
    # Data sets may have markers of one name; the mean is over markers, then over data sets.
    assert report["truth"].tolist() == ["silver", "gold", "gold", "gold and silver"]
    assert report["cells"].to_dict() == {"d: DAPI": n, "d: CD3": 4, "e: CD3": 4, "mean": n + 8}
    assert report.loc["d: CD3", "positives"] == 2
    f1 = report["f1_after"]
    assert f1["mean"] == pytest.approx(((f1["d: DAPI"] + f1["d: CD3"]) / 2 + f1["e: CD3"]) / 2)


def test_held_out_regions_without_a_label_are_refused_before_training(labelled, build, start, tmp_path):
    adata = labelled.tables["table"]
    adata.layers["silver"][(adata.obs["region"] == "r3_cells").to_numpy()] = np.nan
    with pytest.raises(ValueError, match=r"No cell is judged in the held-out regions \['r3_cells'\]"):
        ns.train.fine_tune(build(labelled), tmp_path / "run", model=start, **CPU)
    assert not (tmp_path / "run").exists()
